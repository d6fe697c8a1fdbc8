"""Whether the service on this machine is alive, asked over its control socket: a container's health check.

The socket is there whatever HTTP is set to: off, TLS with any certificate, another port, below a path, behind a token.
`python3 -m worker.cli.probe` does what `autotag health` does, and imports next to nothing: it is run every few seconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from worker.cli.output import print_error, print_line

_WITHIN_S = 4.0
"""Below the five seconds that a container's check has; a service whose event loop turns answers in milliseconds."""

_MAXIMUM_ANSWER_BYTES = 1 << 16


def ask(path: Path, *, within_s: float = _WITHIN_S) -> Mapping[str, object]:
    """What the service says of its health: `alive`, `started`, `ready`, `why_not`.

    Raises OSError if none answers in time, and ValueError for an answer that is none.
    """
    deadline_s = time.monotonic() + within_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(within_s)
        connection.connect(os.fspath(path))
        connection.sendall(b'{"command": "health"}\n')
        answer = b""
        while not answer.endswith(b"\n") and len(answer) <= _MAXIMUM_ANSWER_BYTES:
            connection.settimeout(max(0.001, deadline_s - time.monotonic()))
            received = connection.recv(_MAXIMUM_ANSWER_BYTES)
            if not received:
                break
            answer += received
    try:
        reply = json.loads(answer)
    except RecursionError:
        reply = None
    match reply:
        case {"ok": True, "answer": {"alive": bool(alive), **more}}:
            return {"alive": alive} | {str(name): value for name, value in more.items()}
        case {"ok": False, "error": str(why)}:
            raise ValueError(f"the service refused: {why}")
    raise ValueError("what listens there answers as no Autotag does")


def in_words(health: Mapping[str, object]) -> str:
    """One line for people."""
    if not health["alive"]:
        return f"not alive: its event loop has stood still for {health.get('loop_lag_s')} s"
    if not health.get("started"):
        return "alive, and starting"
    return "alive, and taking events" if health.get("ready") else f"alive; not taking events: {health.get('why_not')}"


def _socket_path() -> Path:
    """By the environment, as in a container; else by all settings, whose reading takes a second."""
    if named := os.environ.get("AUTOTAG_CONTROL_SOCKET"):
        return Path(named)
    from worker.settings.control_socket import readable_control_socket
    from worker.settings.names import CONFIG_VARIABLE

    config = os.environ.get(CONFIG_VARIABLE)
    return readable_control_socket(Path(config) if config else None)


def main() -> int:
    """The exit status: 0 for a service that is alive, 1 for one that is not, 3 if none answers."""
    path = _socket_path()
    try:
        health = ask(path)
    except (OSError, ValueError) as error:
        print_error(f"no service answers on {path}: {error}")
        return 3
    print_line(in_words(health))
    return 0 if health["alive"] else 1


if __name__ == "__main__":
    sys.exit(main())
