"""No command lets a text of others command the terminal: not its arguments, settings, files, events or answers.

The commands and their parameters are found in the parser, so that one that is added later is tried too.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked_commands import Ended, commands, run_all
from tests.support.models import built
from tests.support.polling import until
from tests.support.service import Dms, running_service
from worker.operations.health.status import (
    BrokerStatus,
    CanaryModelStatus,
    CanaryStatus,
    ChildStatus,
    ModelStatus,
    PauseStatus,
    ProviderState,
    Status,
)
from worker.operations.printable import printable

HOSTILE = "a\x1b]0;owned\x07\x9b31m\u202egpj\u2066.\u200b\ufeff\rb\x85c"
"""A title for the window, red text, text from right to left, what has no width, a line that overwrites itself."""
WORSE = f"{HOSTILE}\nd\udcff"
"""And a line break, and a byte that is no UTF-8, where an argument or a file name can have them."""

LONG = HOSTILE * 4000
"""More than 100 kB."""

NOT_RUN = {("run",): "serves until it is stopped; its log is tested in test_logs_service.py"}
"""Commands of which only misuse is tried, with the reason."""

HARMLESS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run",): ("--check-settings",),
    ("chaos",): ("--photographs", "/nonexistent"),
    ("bench",): ("--images", "/nonexistent"),
    ("model", "build"): ("--help",),
}
"""What keeps a command that is given one hostile option from doing its long work."""


COMMANDS = commands()


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Without a broker, and with nothing of this machine's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    kept |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    return kept | {
        "AUTOTAG_AMQP__URL": "amqp://127.0.0.1:1/",
        "AUTOTAG_STATE_DIR": str(folder / "state"),
        "AUTOTAG_CONTROL_SOCKET": str(folder / "none.sock"),
        "COLUMNS": "200",
        **more,
    }


def assert_printable(done: list[Ended]) -> None:
    """Nothing that cannot be seen is printed, and no traceback."""
    for each in done:
        for text in (each.output, each.errors):
            hidden = [character for line in text.split("\n") for character in line if printable(character) != character]
            assert hidden == [], (each.arguments, hidden, text[-2000:])
            assert "Traceback" not in text, (each.arguments, text[-2000:])


def misuses() -> Iterator[tuple[str, ...]]:
    """Every command with one hostile value for each of its parameters, and with options that it does not have."""
    yield (WORSE,)
    yield (f"--{WORSE}",)
    yield ("--config", WORSE, "status")
    for words, command in COMMANDS.items():
        harmless = HARMLESS.get(words, ())
        as_json = [("--json",)] if any("--json" in parameter.opts for parameter in command.params) else []
        yield (*words, f"--{WORSE}")
        for parameter in command.params:
            option = next((each for each in parameter.opts if each.startswith("--")), None)
            if option is None:  # an argument
                for more in [(), *as_json]:
                    yield (*words, *harmless, *more, WORSE)
                    yield (*words, *harmless, *more, LONG)
            elif not getattr(parameter, "is_flag", False):
                yield (*words, *harmless, option, WORSE)
                yield (*words, *harmless, f"{option}={WORSE}", WORSE)


def test_hostile_arguments_of_every_command(tmp_path: Path) -> None:
    lines = list(misuses())
    assert {line[: len(words)] for words in COMMANDS for line in lines if line[: len(words)] == words} == set(COMMANDS)
    assert_printable(run_all(lines, tmp_path, environment(tmp_path)))


@pytest.mark.parametrize(
    "settings",
    [
        f"{json.dumps(HOSTILE)} = 1\n",
        f"[amqp]\nurl = {json.dumps(HOSTILE)}\n",
        f"[tensorflow]\nmodel = {json.dumps(HOSTILE)}\n[defaults.tensorflow]\nenabled = true\n",
        f"[instances.{json.dumps('acme')}.labels]\nrename = {{ {json.dumps(HOSTILE)} = {json.dumps(HOSTILE)} }}\n",
        f"[sources]\npath_roots = [{json.dumps('/' + HOSTILE)}]\n",
        f"this is {HOSTILE} no TOML\n",
    ],
    ids=["a key", "an address", "a model", "a rule", "a path", "no TOML"],
)
def test_hostile_settings_of_every_command(tmp_path: Path, settings: str) -> None:
    file = tmp_path / "hostile.toml"
    file.write_text(settings.replace("\x7f", "\\u007f"))
    lines = [
        ("--config", str(file), *words, *HARMLESS.get(words, ()), *(["x"] if words[-1] in {"tag", "show"} else []))
        for words in COMMANDS
        if words not in {("dead-letters", "purge"), ("chaos",), ("bench",)}
    ]
    assert_printable(run_all(lines, tmp_path, environment(tmp_path)))


def in_operation(
    folder: Path, package: Path, labelled: Path, key: str
) -> Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """For each command what makes it show what others have written: an event, a result, a file, a model package."""
    return {
        ("tag",): (("--model", str(package), *map(str, sorted(folder.iterdir()))),),
        ("publish",): (("--by", "base64", "--wait", "--timeout", "60", *map(str, sorted(folder.iterdir()))),),
        ("backfill",): ((str(folder), "--dry-run"), (str(folder), "--by", "base64")),
        ("check",): ((),),
        ("evaluate",): ((str(labelled), "--model", str(package), "--plot", str(folder.parent / "plot.svg")),),
        ("calibrate",): ((str(labelled), "--model", str(package), "--write", str(folder.parent / "calibrated.toml")),),
        ("results",): ((), ("--asset", HOSTILE)),
        ("status",): ((),),
        ("health",): ((),),
        ("pause",): ((),),
        ("resume",): ((),),
        ("reload",): ((),),
        ("reset",): ((),),
        ("schema",): (("result",),),
        ("simulate",): ((str(labelled),),),
        ("config", "show"): ((), ("--instance", "acme"), ("--running",)),
        ("config", "init"): ((), (str(folder.parent / "first.toml"),)),
        ("config", "reference"): ((),),
        ("config", "set"): (("instances.acme.labels.drop", HOSTILE), ("instances.acme.language", HOSTILE)),
        ("config", "unset"): (("instances.acme.labels.drop",), (HOSTILE,)),
        ("config", "history"): ((), ("1",)),
        ("config", "undo"): ((),),
        ("shadow", "report"): ((),),
        ("model", "list"): ((),),
        ("model", "verify"): ((str(package),),),
        ("model", "build"): (("--help",),),
        ("model", "install"): ((str(package), "--url", "http://127.0.0.1:1/"),),
        ("topology", "migrate"): ((),),
        ("vocabulary", "check"): ((),),
        ("vocabulary", "map"): ((str(labelled),),),
        ("connect", "try"): (("--help",),),  # what others wrote is shown by test_connect_commands.py
        ("connect", "report"): ((),),
        ("connect", "check"): ((),),
        ("connect", "presets"): ((), ("immich",)),
        ("connect", "rewind"): (("none", "--to", "0"),),  # shows what is typed alone
        ("dead-letters", "list"): ((), ("--asset", HOSTILE)),
        ("dead-letters", "show"): ((key,),),
        ("dead-letters", "replay"): (("--asset", HOSTILE),),
        ("dead-letters", "purge"): (("--yes",),),
        ("bench",): (("--help",),),
        ("chaos",): (("--help",),),
        ("run",): (("--check-settings",),),
    }


def hostile_package(folder: Path) -> Path:
    """A model package whose labels, licence and source were written by somebody else."""
    built_in = built("efficientnet-lite0")
    shutil.copytree(built_in.directory, folder)
    labels = folder / built_in.manifest.labels.file
    lines = labels.read_text().splitlines()
    labels.write_text(
        "".join(f"{line.split()[0]}\t{HOSTILE}{number}\n".replace("\r", "") for number, line in enumerate(lines))
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["labels"]["sha256"] = hashlib.sha256(labels.read_bytes()).hexdigest()
    manifest |= {"name": "hostile", "licence": HOSTILE, "source": HOSTILE, "checked": {HOSTILE: HOSTILE}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_every_command_beside_a_service_that_has_had_hostile_events(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(photographs["coffee"], folder / f"{WORSE.replace('/', '')}.jpg")
    (folder / f"{HOSTILE}.txt").write_bytes(HOSTILE.encode())
    package = hostile_package(tmp_path / "package")
    settings = {
        "DEFAULTS__LABELS__RENAME": json.dumps({"espresso": HOSTILE, "food": HOSTILE, "drink": HOSTILE}),
        "SOURCES__PATH_ROOTS": json.dumps([str(folder)]),
        "TENSORFLOW__SHADOW": str(package),
        "TENSORFLOW__SHADOW_SHARE": "1",
    }
    with running_service(broker, queue_prefix, tmp_path / "run", **settings) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        dms.publish({"path": f"{HOSTILE}.txt"}, asset_id=HOSTILE)
        dms.publish({"path": f"/{HOSTILE}"}, asset_id=HOSTILE)
        dms.publish_body(HOSTILE.encode(), content_type=HOSTILE, message_id=HOSTILE, headers={HOSTILE: HOSTILE})
        until(lambda: dms.depth("dead-letters") == 3, "all were dead-lettered")
        (found, *_) = run_all([("dead-letters", "list", "--json")], tmp_path, service.environment)
        operating = {**service.environment, "COLUMNS": "400"}
        key = json.loads(found.output.splitlines()[0])["id"]
        labelled = tmp_path / "labelled.csv"
        with labelled.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file", "label"])
            rows.writerow([folder / f"{HOSTILE}.txt", HOSTILE])
        table = in_operation(folder, package, labelled, key)
        without = {" ".join(words) for words in COMMANDS.keys() ^ table.keys()}
        assert not without, f"in_operation() has to say what makes these commands show what others wrote: {without}"
        lines = []
        for words, variants in table.items():
            as_json = any("--json" in parameter.opts for parameter in COMMANDS[words].params)
            for variant in variants:
                lines += [(*words, *variant)] + ([(*words, "--json", *variant)] if as_json else [])
        done = run_all(lines, tmp_path, operating)
        assert_printable(done)
        shown = {each.arguments: each.output for each in done}
        # It was not only because nothing was shown
        assert printable(HOSTILE) in shown["dead-letters", "list"]
        letters = [json.loads(line) for line in shown["dead-letters", "list", "--json"].splitlines()]
        assert any(HOSTILE in str(value) for letter in letters for value in letter.values())
        dms.close()
        assert service.stop() == 0


def hostile_status() -> dict[str, Any]:
    """What a service that has been taken over could answer, in the form that the commands expect."""
    broker = BrokerStatus(
        phase=HOSTILE,
        version=HOSTILE,
        for_s=1.0,
        lanes=[HOSTILE],
        pauses=[PauseStatus(HOSTILE, HOSTILE, 1.0)],
        blocked=HOSTILE,
        last_error=LONG,
        reconnects=1,
        unsettled=1,
    )
    return Status(
        version=HOSTILE,
        started=True,
        ready=False,
        reason=HOSTILE,
        why_not=HOSTILE,
        broker=broker,
        events_in_hand=1,
        queues={HOSTILE: 1},
        model=ModelStatus(ready=False, disabled=HOSTILE, relaunches_left=None, waiting=1),
        children=[ChildStatus(HOSTILE, HOSTILE, 1, 1, 1, {HOSTILE: HOSTILE})],
        providers=[ProviderState(HOSTILE, 1, HOSTILE), ProviderState(HOSTILE, 0, None)],
        canary=CanaryStatus(
            HOSTILE, HOSTILE, 1.0, 1.0, [CanaryModelStatus(HOSTILE, HOSTILE, 0, 1, 0.5, HOSTILE, HOSTILE)]
        ),
    ).to_json()


@contextmanager
def answering(path: Path, reply: dict[str, Any]) -> Iterator[None]:
    """A control socket that answers every command with the same."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(json.dumps(reply).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("refused", [False, True], ids=["answered", "refused"])
def test_what_a_hostile_service_answers(tmp_path: Path, refused: bool) -> None:
    socket = tmp_path / "control.sock"
    operating = [words for words, command in COMMANDS.items() if command.callback.__module__ == "worker.cli.operate"]
    assert ("status",) in operating
    lines = [(*words, *more) for words in operating for more in [(), ("--json",)]]
    reply = {"ok": False, "error": WORSE} if refused else {"ok": True, "answer": hostile_status()}
    with answering(socket, reply):
        done = run_all(lines, tmp_path, environment(tmp_path, AUTOTAG_CONTROL_SOCKET=str(socket)))
    assert_printable(done)
    for each in done:
        assert printable(HOSTILE) in each.output + each.errors or "--json" in each.arguments or each.status == 0
        if "--json" in each.arguments and not refused:
            assert json.loads(each.output) == hostile_status()


def test_the_traceback_of_a_fault_of_ours_is_printable(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['autotag', 'config', 'show']\n"
        "import worker.cli.context as context\n"
        f"def fails(self): raise RuntimeError({HOSTILE!r} + '\\nautotag: all is well')\n"
        "context.CliContext.read = fails\n"
        "from worker.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(tmp_path), capture_output=True, timeout=60, check=False
    )
    errors = done.stderr.decode()
    assert done.returncode == 1
    assert f"RuntimeError: {printable(HOSTILE)}" in errors
    assert [each for line in errors.split("\n") for each in line if printable(each) != each] == []
    assert "\nautotag: all is well" not in errors
