"""A forward proxy that opens tunnels (`CONNECT`, RFC 9110 section 9.3.6), with a password if wanted."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ForwardProxy:
    """`targets` are those that were asked for. `names` are looked up here, as only a proxy may be able to.

    `answer`, if it is set, is sent instead of opening a tunnel; b"" ends the connection, None is silence.
    `refused` is a host that is answered with 403.
    """

    def __init__(self, password: str | None = None) -> None:
        self.targets: list[str] = []
        self.names: dict[str, str] = {}
        self.answer: bytes | None = b"unset"
        self.refused: str | None = None
        self.port = 0
        self._authorization = password and "Basic " + base64.b64encode(f"us er:{password}".encode()).decode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        self.targets.append(target)
        if self.refused and target.startswith(self.refused):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        if self.answer is None:
            await reader.read()  # until the client goes
            return
        if self.answer != b"unset":
            writer.write(self.answer or b"")
            await writer.drain()
            return
        if method != "CONNECT":
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        if self._authorization is not None and f"Proxy-Authorization: {self._authorization}\r\n" not in head:
            writer.write(
                b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="corp"\r\n'
                b"Content-Length: 9\r\n\r\nlog in !\n"
            )
            await writer.drain()
            return
        host, _, port = target.rpartition(":")
        try:
            onward = await asyncio.open_connection(self.names.get(host, host).strip("[]"), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, onward[1]), _copy(onward[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def forward_proxy(
    password: str | None = None, certificate: ssl.SSLContext | None = None
) -> AsyncIterator[ForwardProxy]:
    """A proxy on loopback for the length of the block; with a certificate it is spoken to over TLS."""
    proxy = ForwardProxy(password)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=certificate)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
