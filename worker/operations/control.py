"""The control socket: how `autotag status`, `reset`, `pause`, `resume` and `reload` reach the running service.

A Unix socket that only its owner may open. A client sends one line of JSON, `{"command": "reset"}`, and receives one:
`{"ok": true, "answer": …}` or `{"ok": false, "error": "…"}`. What a command is about comes as further texts by name:
`{"command": "settings", "about": {"instance": "acme"}}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import structlog

from worker.errors import Misconfigured, TryLater
from worker.operations.connections import ListeningSocket, Stage

_log = structlog.get_logger(__name__)

_MAXIMUM_LINE_BYTES = 1 << 20
_TIMEOUT_S = 10.0
_MAXIMUM_CONNECTIONS = 32
_MAXIMUM_PATH_BYTES = 107
"""Of a Unix socket: 108 bytes of `sockaddr_un` with the NUL at its end (unix(7))."""

Command = Callable[..., Awaitable[object]]


class ControlServer:
    """Listens on the control socket from `start` to `close`. `commands` return JSON values."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises Misconfigured if another service listens there already, or the path can't be used."""
        if (why := why_unusable(self._path)) is not None:
            raise Misconfigured(f"no control socket at {self._path}: {why}; set `control_socket`")
        if await _is_in_use(self._path):
            raise Misconfigured(
                f"another Autotag listens on {self._path}; stop it, or give this one its own `control_socket`"
            )
        listening = ListeningSocket(socket.AF_UNIX, "control socket", _MAXIMUM_CONNECTIONS, request_within_s=_TIMEOUT_S)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.unlink(missing_ok=True)  # left behind by a service that was killed
            # By umask and not by chmod, so that the socket never exists with wider permissions.
            previous_umask = os.umask(0o177)
            try:
                listening.bind(os.fspath(self._path))
            finally:
                os.umask(previous_umask)
            self._server = await asyncio.start_unix_server(
                partial(self._handle, listening),
                sock=listening,
                limit=_MAXIMUM_LINE_BYTES,
                backlog=ListeningSocket.ACCEPTED_AT_ONCE,
            )
        except OSError as error:
            listening.close()
            raise Misconfigured(f"no control socket at {self._path}: {error.strerror}; set `control_socket`") from error

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _handle(
        self, listening: ListeningSocket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connection = listening.connection(writer.transport)
        try:
            line = await reader.readline()  # the listening socket closes a connection on which none comes in time
            if connection.closing:  # what has come of the line so far is not to be obeyed
                return
            connection.enter(Stage.ANSWERING, time.monotonic())
            writer.write(json.dumps(await self._run_command(line)).encode() + b"\n")
            connection.enter(Stage.ANSWERING, time.monotonic(), _TIMEOUT_S)
            await writer.drain()
        except (OSError, ValueError) as error:
            _log.debug("control connection ended early", error=str(error))
        finally:
            writer.close()

    async def _run_command(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            name, about = request["command"], dict(request.get("about", {}))
            command = self._commands[name]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"ok": False, "error": f"unknown command; known are {', '.join(sorted(self._commands))}"}
        try:
            return {"ok": True, "answer": await command(**about)}
        except Exception as error:  # noqa: BLE001 - the failure is reported to the client; the service goes on
            _log.exception("control command failed", command=name)
            return {"ok": False, "error": str(error)}


def why_unusable(path: Path) -> str | None:
    """Why no socket can be at this path, whatever the rights, in words; None when one can."""
    if (size := len(os.fsencode(path))) > _MAXIMUM_PATH_BYTES:
        return f"its path has {size} bytes, and that of a socket at most {_MAXIMUM_PATH_BYTES}"
    return None


def why_not_listening(path: Path) -> str | None:
    """Why a service that is started now by this user could not listen at this path; None when it could, or does."""
    if (why := why_unusable(path)) is not None:
        return why
    return why_not_writable(path.parent)


def why_not_writable(directory: Path) -> str | None:
    """Why this user cannot write there, or make the directory where it is not there yet; None when it can."""
    try:
        there = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    except OSError as error:
        return error.strerror
    if not there.is_dir():
        return f"{there} is no directory"
    return None if os.access(there, os.W_OK | os.X_OK) else f"this user may not write to {there}"


async def send_command(
    path: Path, command: str, *, about: Mapping[str, str] | None = None, within_s: float = _TIMEOUT_S
) -> object:
    """Send a command to the service that listens on `path`. Returns its answer, a JSON value, within `within_s`.

    `about`: what it is about, for a command that takes it.

    Raises TryLater with advice if no service can be reached or it refuses the command.
    """
    if (why := why_unusable(path)) is not None:
        raise TryLater(f"no service can listen on {path}: {why}; set `control_socket`", reason="service_unreachable")
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=_MAXIMUM_LINE_BYTES)
            try:
                request: dict[str, object] = {"command": command} | ({"about": dict(about)} if about else {})
                writer.write(json.dumps(request).encode() + b"\n")
                reply = _read_reply(await reader.readline())
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except PermissionError as error:
        raise TryLater(f"may not open {path}; run this as the user of the service", reason="not_allowed") from error
    except (OSError, ValueError) as error:
        raise TryLater(
            f"no service answers on {path} ({error}); is `autotag run` up, with the same `control_socket`?",
            reason="service_unreachable",
        ) from error
    match reply:
        case {"ok": True, "answer": answer}:
            return answer
        case {"ok": False, "error": str(why)}:
            raise TryLater(f"the service refused: {why}", reason="command_failed")
    raise TryLater(
        f"what listens on {path} answers as no Autotag does; is `control_socket` that of another program?",
        reason="service_unreachable",
    )


def _read_reply(line: bytes) -> object:
    """The JSON value in a reply. Raises ValueError if it is none, or one too deep to be ours."""
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("its answer cannot be read") from None


async def _is_in_use(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(probe, str(path)), 1.0)
        except (OSError, TimeoutError):
            return False
    return True
