"""Where the service is asked although the settings cannot be used, and that the commands do ask it."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forked_commands import Ended, run_all
from worker.operations.health.status import BrokerStatus, Status
from worker.settings import Settings
from worker.settings.control_socket import readable_control_socket

BROKEN_VALUE = "[amqp]\nprefetch = 'many'\n"
BROKEN_SYNTAX = "[amqp\nprefetch = 8\n"


def find(folder: Path, text: str | None, **environ: str) -> Path:
    if text is not None:
        (folder / "a.toml").write_text(text)
    return readable_control_socket(folder / "a.toml", environ=environ, directory=folder)


@pytest.mark.parametrize("broken", [BROKEN_VALUE, BROKEN_SYNTAX], ids=["a value", "no TOML"])
def test_what_the_file_says_of_the_socket_is_read_although_the_rest_is_broken(tmp_path: Path, broken: str) -> None:
    assert find(tmp_path, f'control_socket = "/run/a.sock"\n{broken}') == Path("/run/a.sock")
    assert find(tmp_path, f'state_dir = "/var/a"\n{broken}') == Path("/var/a/control.sock")


@pytest.mark.parametrize("broken", [BROKEN_VALUE, BROKEN_SYNTAX], ids=["a value", "no TOML"])
def test_the_environment_counts_before_a_broken_file(tmp_path: Path, broken: str) -> None:
    found = find(tmp_path, f'control_socket = "/run/a.sock"\n{broken}', AUTOTAG_CONTROL_SOCKET="/run/b.sock")
    assert found == Path("/run/b.sock")


def test_a_line_of_another_table_is_not_the_socket(tmp_path: Path) -> None:
    text = '[of.another.program]\ncontrol_socket = "/run/other.sock"\n= 7\n'
    assert find(tmp_path, text) == Settings().control_socket


def test_the_socket_is_where_it_is_by_default_where_nothing_usable_says_so(tmp_path: Path) -> None:
    assert find(tmp_path, None) == Settings().control_socket, "there is no such file"
    assert find(tmp_path, "control_socket = 7\nstate_dir = [") == Settings().control_socket
    (tmp_path / "a.toml").write_bytes(b'control_socket = "/run/a.sock"\n# \xff\n')
    assert find(tmp_path, None) == Path("/run/a.sock"), "a byte that is no UTF-8 stands elsewhere"


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[list[str]]:
    """The commands that have come to a service on `control.sock` in `tmp_path`."""
    commands: list[str] = []
    broker = BrokerStatus("connected", "4.0.5", 1.0, ["live"], [], None, None, 0, 0)
    status = Status("1", True, True, None, None, broker, 0, {}, None, [], [])

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            commands.append(json.loads(self.rfile.readline())["command"])
            self.wfile.write(json.dumps({"ok": True, "answer": status.to_json()}).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "control.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield commands
        server.shutdown()
        thread.join()


COMMANDS = ("status", "pause", "resume", "reset", "reload")


def run(folder: Path, *options: str) -> list[Ended]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    return run_all([(each, *options) for each in COMMANDS], folder, kept | {"HOME": str(folder)})


@pytest.mark.parametrize("broken", [BROKEN_VALUE, BROKEN_SYNTAX], ids=["a value", "no TOML"])
def test_a_running_service_obeys_although_the_settings_are_broken(
    tmp_path: Path, asked: list[str], broken: str
) -> None:
    (tmp_path / "a.toml").write_text(f'control_socket = "{tmp_path}/control.sock"\n{broken}')
    for done in run(tmp_path, "--config", "a.toml"):
        assert done.status == 0
        (warning,) = done.errors.splitlines()
        assert "the settings cannot be used (" in warning
        assert warning.endswith(f"asking the service on {tmp_path}/control.sock")
    assert tuple(asked) == COMMANDS


def test_a_socket_that_is_named_needs_no_settings(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "a.toml").write_text(BROKEN_SYNTAX)
    for done in run(tmp_path, "--config", "a.toml", "--control-socket", "control.sock"):
        assert (done.status, done.errors) == (0, "")
    assert tuple(asked) == COMMANDS


def test_every_further_problem_is_counted_in_the_same_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("nothing = 1\nnobody = 2\n" + BROKEN_VALUE)
    for done in run(tmp_path, "--config", "a.toml"):
        warning, unreachable = done.errors.splitlines()
        assert "and 2 more: `autotag run --check-settings`" in warning
        assert "no service answers on" in unreachable
        assert done.status == 3
