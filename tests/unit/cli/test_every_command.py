"""What every command has: `-h`, the shared options after its name, and `--json`. The commands are the parser's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forked_commands import Ended, commands, run_all

COMMANDS = commands()
GROUPS = commands(groups=True).keys() - COMMANDS.keys()
SHARED = {"--config", "-c", "--secrets-dir", "--env-file", "--traceable", "--version"}

WITHOUT_JSON: dict[tuple[str, ...], str] = {}
"""Commands that print a result which `--json` does not make JSON, each with the reason."""


def environment(**more: str) -> dict[str, str]:
    """Nothing of this machine's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    return kept | {"COLUMNS": "200"} | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With two settings files, `first.toml` and `second.toml`, each of which says who it is."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.toml").write_text(f'[amqp]\nqueue_prefix = "{name}"\n')
    (tmp_path / "crashes.csv").write_text("1\n2\n")
    return tmp_path


def prefix(done: Ended) -> str:
    """The queue prefix that `config show --json` printed."""
    assert done.status == 0, done
    return str(json.loads(done.output)["settings"]["amqp.queue_prefix"]["value"])


def test_every_command_and_every_group_has_a_short_option_for_help(tmp_path: Path) -> None:
    everything = [*COMMANDS, *GROUPS]
    assert len(everything) > 30
    lines = [(*words, option) for words in everything for option in ("-h", "--help")]
    for done in run_all(lines, tmp_path, environment()):
        assert (done.status, done.errors) == (0, ""), done
        usage = next(line for line in done.output.splitlines() if "Usage: " in line)
        assert " ".join(done.arguments[:-1]) in usage


@pytest.mark.parametrize("words", sorted(COMMANDS.keys() | GROUPS), ids=" ".join)
def test_every_command_and_every_group_has_the_options_of_the_root(words: tuple[str, ...]) -> None:
    command = commands(groups=True)[words]
    assert {option for parameter in command.params for option in parameter.opts} >= SHARED


@pytest.mark.parametrize("words", sorted(COMMANDS.keys() - WITHOUT_JSON.keys()), ids=" ".join)
def test_every_command_has_json(words: tuple[str, ...]) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[words].params)


def test_a_settings_file_may_be_named_before_a_command_within_it_and_after_it(folder: Path) -> None:
    first, second = ("--config", "first.toml"), ("-c", "second.toml")
    lines = [
        (*first, "config", "show", "--json"),
        ("config", *first, "show", "--json"),
        ("config", "show", "--json", *first),
        (*first, "config", "show", "--json", *second),
        (*first, "config", *second, "show", "--json"),
    ]
    found = [prefix(each) for each in run_all(lines, folder, environment())]
    assert found == ["first", "first", "first", "second", "second"], "what stands nearest to the command counts"


def test_the_environment_ranks_below_an_option_wherever_it_stands(folder: Path) -> None:
    lines = [("--config", "first.toml", "config", "show", "--json"), ("config", "show", "--json", "-c", "first.toml")]
    in_environment = environment(AUTOTAG_CONFIG="second.toml")
    assert [prefix(each) for each in run_all(lines, folder, in_environment)] == ["first", "first"]
    assert prefix(run_all([("config", "show", "--json")], folder, in_environment)[0]) == "second"


def test_secrets_and_variables_are_read_from_where_an_option_after_the_command_says(folder: Path) -> None:
    (folder / "secrets").mkdir()
    (folder / "secrets" / "amqp__queue_prefix").write_text("secret")
    (folder / "variables").write_text("AUTOTAG_AMQP__QUEUE_PREFIX=variable\n")
    shown = ("config", "show", "--json")
    lines = [(*shown, "--secrets-dir", "secrets"), (*shown, "--env-file", "variables"), ("status", "--version")]
    *found, version = run_all(lines, folder, environment())
    assert [prefix(each) for each in found] == ["secret", "variable"]
    assert version.output.startswith("autotag "), "it is the version that is printed, and nothing else is done"


@pytest.mark.parametrize(
    ("line", "traceable"), [((), 0), (("--traceable",), 1), (("look", "--traceable"), 1)], ids=["no", "before", "after"]
)
def test_a_process_is_made_traceable_wherever_the_option_stands(
    tmp_path: Path, line: tuple[str, ...], traceable: int
) -> None:
    code = (
        "import ctypes, sys\n"
        "from worker.cli.app import app\n"
        "GET_DUMPABLE = 3\n"
        "app.command('look')(lambda: print(ctypes.CDLL(None).prctl(GET_DUMPABLE, 0, 0, 0, 0)))\n"
        "app(sys.argv[1:])\n"
    )
    arguments = line if "look" in line else (*line, "look")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], env=environment(), cwd=tmp_path, capture_output=True, check=True
    )
    assert int(done.stdout) == traceable


def test_what_needs_no_broker_prints_json_and_nothing_else(folder: Path) -> None:
    lines = [
        ("run", "--check-settings"),
        ("config", "show"),
        ("config", "init"),
        ("config", "init", "new.toml"),
        ("config", "reference"),
        ("config", "reference", "written.md"),
        ("config", "reference", "written.md", "--check"),
        ("config", "reference", "first.toml", "--check"),
        ("schema",),
        ("schema", "event"),
        ("schema", "--write", "schemas"),
        ("schema", "--check"),
        ("vocabulary", "check"),
        ("simulate", "crashes.csv"),
    ]
    done = {each.arguments: each for each in run_all([(*each, "--json") for each in lines], folder, environment())}
    found = {" ".join(line): json.loads(each.output) for line, each in done.items()}
    assert found["run --check-settings --json"] == {"valid": True, "problems": [], "ignored": []}
    keys = {each["key"] for each in found["config reference --json"]["settings"]}
    assert {"amqp.url", "defaults.labels.only", "control_socket"} <= keys
    assert found["config reference written.md --json"] == {"written": "written.md"}
    assert found["config reference written.md --check --json"] == {"checked": "written.md", "up_to_date": True}
    assert found["config reference first.toml --check --json"]["up_to_date"] is False
    assert found["schema event --json"].keys() == {"event.schema.json"}
    assert len(found["schema --write schemas --json"]["written"]) == len(found["schema --json"]) > 5
    assert found["schema --check --json"]["differing"] == list(found["schema --json"])
    failed = {" ".join(line) for line, each in done.items() if each.status != 0}
    assert failed == {"config reference first.toml --check --json", "schema --check --json"}


def test_settings_that_are_invalid_are_listed_as_json(folder: Path) -> None:
    (folder / "first.toml").write_text("enabled = 7\nnothing = 1\n")
    (done,) = run_all([("run", "--check-settings", "--json", "-c", "first.toml")], folder, environment())
    answer = json.loads(done.output)
    assert (done.status, answer["valid"], len(answer["problems"])) == (2, False, 2)
    assert {each.split()[0] for each in answer["problems"]} == {"enabled", "nothing:"}


def test_the_service_itself_has_no_json_but_its_log(folder: Path) -> None:
    (done,) = run_all([("run", "--json")], folder, environment())
    assert done.status == 2
    assert "log.format" in done.errors
