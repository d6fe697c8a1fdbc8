"""Every command in README and documentation runs as it is written, in a directory beside a broker and a service.

Those that cannot are in `NOT_RUN`, each with the reason; `autotag run` is stopped once it is ready. Which commands and
options there are is examined for all of them by tests/unit/docs/test_commands.py.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from rabbitmq_node import BrokerError, PrivateBroker

from tests.support.documented_commands import PAGES, DocumentedCommand, documented, is_autotag
from tests.support.forked_commands import ROOT
from tests.support.polling import until
from tests.support.service import RunningService, running_service

COMMANDS = [command for page in PAGES for command in documented(page) if command.why_not_run is None]

EXIT_STATUS_IS_AN_ANSWER = {"autotag check", "autotag dead-letters replay", "autotag calibrate"}
"""Commands that end with 1 where there is something to say: a warning, no letter that matches, too few photographs."""


@dataclass(frozen=True)
class Sandbox:
    """A directory with what the commands name, and the environment to run them in."""

    folder: Path
    node: PrivateBroker
    environment: Mapping[str, str]

    def script(self, command: DocumentedCommand) -> str:
        """The command with its addresses and directories as they are here."""
        text = command.before + command.text.removesuffix("&")
        for written, here in (
            ("amqp://guest:guest@localhost/", self.node.url),
            ("/srv/dms/images", str(self.folder / "images")),
            ("autotag/bin/autotag", "autotag"),
        ):
            text = text.replace(written, here)
        return text

    def start(self, command: DocumentedCommand, **more: str) -> subprocess.Popen[str]:
        """Run it by bash, as the leader of a group."""
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self.script(command)],  # noqa: S607
            cwd=self.folder,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    """A RabbitMQ for names as the pages have them."""
    with PrivateBroker() as broker:
        yield broker


@pytest.fixture(scope="module")
def sandbox(
    node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory, photographs: Mapping[str, Path]
) -> Iterator[Sandbox]:
    """Beside the broker and a service that runs."""
    folder = tmp_path_factory.mktemp("sandbox")
    for file in photographs.values():
        shutil.copy(file, folder)
    shutil.copy(photographs["coffee"], folder / "photo.jpg")
    for name in ("chelsea.png", "fido.jpg"):
        shutil.copy(photographs["chelsea"], folder / name)
    (folder / "images").mkdir()
    shutil.copy(photographs["coffee"], folder / "images/harbour.jpg")
    _label(folder, photographs)
    for name in ("scripts", "worker", "deploy", ".venv", "Makefile", "pyproject.toml"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    run = tmp_path_factory.mktemp("service")
    roots = json.dumps([str(folder)])
    settings = {"SOURCES__PATH_ROOTS": roots, "TENSORFLOW__SHADOW": "efficientnet-lite2"}
    with running_service(node.url, "autotag", run, **settings) as service:
        service.ready(within_s=120)
        yield Sandbox(folder, node, _environment(service, folder))
        assert service.stop() == 0


def _label(folder: Path, photographs: Mapping[str, Path]) -> None:
    """A file of labelled photographs, as many as a calibration needs."""
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "label"))
        for number in range(10):
            for name, label in (("chelsea", "cat"), ("coffee", "coffee"), ("motorcycle_left", "motorcycle")):
                copy = f"{name}-{number}.jpg"
                shutil.copy(photographs[name], folder / copy)
                rows.writerow((copy, label))


def _environment(service: RunningService, folder: Path) -> dict[str, str]:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "autotag").write_text(f'#!/bin/sh\nexec {sys.executable} -m worker "$@"\n')
    (programs / "autotag").chmod(0o755)
    return {**service.environment, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "120"}


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_it_runs_as_it_is_written(command: DocumentedCommand, sandbox: Sandbox, tmp_path: Path) -> None:
    words = command.words
    if words[0] == "make":
        assert subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, check=False).returncode == 0
    elif words[0] == "rabbitmqctl":
        user = words[2]
        with contextlib.suppress(BrokerError):  # so that each line can be run on its own, whatever ran before it
            sandbox.node.ctl(*(("delete_user", user) if words[1] == "add_user" else ("add_user", user, "secret")))
        try:
            sandbox.node.ctl(*words[1:])
        finally:  # the node's own user may be of this name
            sandbox.node.ctl("set_permissions", user, ".*", ".*", ".*")
    elif words[-1] == "run":
        runs_until_it_is_stopped(command, sandbox, tmp_path)
    else:
        process = sandbox.start(command)
        output, _ = process.communicate(timeout=150)
        answers = is_autotag(words) and any(" ".join(words).startswith(each) for each in EXIT_STATUS_IS_AN_ANSWER)
        assert process.returncode in ({0, 1} if answers else {0}), output
        assert "Traceback" not in output


def runs_until_it_is_stopped(command: DocumentedCommand, sandbox: Sandbox, folder: Path) -> None:
    """A second service, which takes events, and ends in order at SIGTERM."""
    own = {"AUTOTAG_CONTROL_SOCKET": str(folder / "c.sock"), "AUTOTAG_STATE_DIR": str(folder / "state")}
    process = sandbox.start(command, **own)
    second = RunningService.__new__(RunningService)
    second.environment = {**sandbox.environment, **own}
    try:
        until(lambda: process.poll() is not None or (second.status() or {}).get("ready"), "it is ready", within_s=120)
        assert process.poll() is None, process.communicate()[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode in {0, 128 + signal.SIGTERM, -signal.SIGTERM}, output


def test_the_commands_are_found() -> None:
    programs = {"autotag" if is_autotag(command.words) else command.words[0] for command in COMMANDS}
    assert programs == {"autotag", "make", "rabbitmqctl", ".venv/bin/python"}
    assert len(COMMANDS) > 40
