"""Listening sockets: without a descriptor left, and the control socket with more connections than it takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.support.polling import eventually
from tests.support.processes import all_descriptors_taken
from worker.errors import Misconfigured, TryLater
from worker.operations.connections import ListeningSocket, Refusal
from worker.operations.control import ControlServer, send_command


async def test_without_a_descriptor_a_connection_is_closed_at_once_and_an_idle_one_makes_room() -> None:
    refusals: Counter[Refusal] = Counter()

    def count(why: Refusal) -> None:
        refusals[why] += 1

    listening = ListeningSocket(socket.AF_INET, "test", 10, request_within_s=60, on_refused=count)
    listening.bind(("127.0.0.1", 0))
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    class Greeting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            listening.connection(transport)
            transport.write(b"hello")

    server = await asyncio.get_running_loop().create_server(Greeting, sock=listening, backlog=8)
    address = listening.getsockname()
    reader, writer = await asyncio.open_connection(*address)
    assert await reader.readexactly(5) == b"hello"
    clients = [socket.socket() for _ in range(4)]
    for client in clients:
        client.setblocking(False)
    # When there is no descriptor for the next ones
    with all_descriptors_taken():
        for client in clients[:2]:
            client.connect_ex(address)
        await eventually(lambda: refusals[Refusal.DESCRIPTORS], "a connection was closed at once")
        # Then the idle one is closed too
        assert await reader.read() == b""
    assert refusals[Refusal.MAKE_ROOM] == 1
    # And the next is accepted again, without a traceback
    clients[2].connect_ex(address)
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.sock_recv(clients[2], 5), 5) == b"hello"
    assert complaints == []
    writer.close()
    for client in clients:
        client.close()
    server.close()


async def test_idle_connections_to_the_control_socket_make_room_for_a_command(tmp_path: Path) -> None:
    async def status() -> object:
        return "well"

    path = tmp_path / "control.sock"
    server = ControlServer(path, {"status": status})
    await server.start()
    idle = [await asyncio.open_unix_connection(path) for _ in range(100)]
    try:
        assert await send_command(path, "status") == "well"
        ended = await asyncio.wait_for(idle[0][0].read(), 5)
        assert ended == b""
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        for _, writer in idle:
            writer.close()
        await server.close()


async def test_a_control_connection_that_sends_no_line_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.operations.control._TIMEOUT_S", 0.6)
    path = tmp_path / "control.sock"
    server = ControlServer(path, {})
    await server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b'{"command": ')
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await server.close()


@pytest.mark.parametrize(
    "reply",
    [
        *(b"[]", b"null", b"7", b'"text"', b"{}", b'{"ok": true}', b'{"ok": false}', b'{"ok": NaN, "answer": 1}'),
        *(b'{"ok": false, "error": ["\\u001b"]}', b"[" * 200_000, b"\xff\xfe", b"1" * 5000, b"x" * (2 << 20), b""),
    ],
    ids=lambda reply: repr(reply[:30]),
)
async def test_what_another_program_answers_on_the_control_socket_is_one_sentence(tmp_path: Path, reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply + b"\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    path = tmp_path / "control.sock"
    server = await asyncio.start_unix_server(answer, path)
    with pytest.raises(TryLater) as refused:
        await send_command(path, "status")
    assert refused.value.reason == "service_unreachable"
    server.close()


@pytest.mark.parametrize("line", [b"[" * 200_000, b"{}", b'{"command": {}}', b'{"command": ["status"]}', b"\xff", b"7"])
async def test_whatever_comes_to_the_control_socket_is_answered(tmp_path: Path, line: bytes) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    path = tmp_path / "control.sock"
    server = ControlServer(path, {})
    await server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line + b"\n")
    assert json.loads(await asyncio.wait_for(reader.readline(), 5))["ok"] is False
    writer.close()
    await server.close()
    assert complaints == []


async def test_a_control_socket_whose_path_is_too_long_is_reported_by_both_sides(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "control.sock"
    with pytest.raises(Misconfigured, match=r"that of a socket at most 107; set `control_socket`"):
        await ControlServer(path, {}).start()
    with pytest.raises(TryLater, match=r"that of a socket at most 107; set `control_socket`"):
        await send_command(path, "status")
