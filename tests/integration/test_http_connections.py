"""The HTTP server on a real socket: what makes a client wait for it is limited, what a client makes it wait for too."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.support.polling import eventually
from worker.errors import Misconfigured
from worker.http.concurrency import ConcurrencyLimitMiddleware
from worker.http.pages import read_form
from worker.http.protocol import Deadlines
from worker.http.server import HttpServer
from worker.operations import logs
from worker.operations.connections import ListeningSocket, Refusal
from worker.settings import HttpSettings

DEADLINES = Deadlines(head_s=0.8, body_s=0.8, reading_s=0.8, body_by_path_s={"/slow-body": 60.0})
MAXIMUM = 8


class Site:
    """A server with a few routes. A request for `/held` is answered when `release` is set."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.refusals: Counter[Refusal] = Counter()
        self.held = 0
        self.address = ("", 0)
        routes = [
            Route("/livez", self._plain),
            Route("/page", self._plain),
            Route("/held", self._held),
            Route("/large", self._large),
            Route("/form", self._form, methods=["POST"]),
            Route("/slow-body", self._form, methods=["POST"]),
            Route("/refused", self._plain, methods=["POST"]),
        ]
        limit = Middleware(ConcurrencyLimitMiddleware, maximum=MAXIMUM // 2, exempt_paths={"/livez"})
        self.app = Starlette(routes=routes, middleware=[limit])

    def count(self, why: Refusal) -> None:
        self.refusals[why] += 1

    async def _plain(self, _request: Request) -> Response:
        return PlainTextResponse("here")

    async def _held(self, _request: Request) -> Response:
        self.held += 1
        await self.release.wait()
        return PlainTextResponse("at last")

    async def _large(self, _request: Request) -> Response:
        return Response(bytes(64 << 20))

    async def _form(self, request: Request) -> Response:
        return PlainTextResponse(str(await read_form(request)))

    async def get(self, path: str) -> bytes:
        reader, writer = await self.connect(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(sent)
        return reader, writer


@asynccontextmanager
async def listening(settings: HttpSettings) -> AsyncIterator[Site]:
    site = Site()
    server = HttpServer(settings, site.app, deadlines=DEADLINES, on_refused=site.count)
    await server.start()
    host, _, port = server.url.partition("//")[2].partition(":")
    site.address = (host, int(port))
    try:
        yield site
    finally:
        site.release.set()
        await server.close()


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr("worker.http.server.MAXIMUM_CONNECTIONS", MAXIMUM)
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    async with listening(HttpSettings(port=0)) as site:
        yield site
    assert complaints == []


async def ended_after_s(reader: asyncio.StreamReader, step: Callable[[], None] = lambda: None) -> float:
    """Seconds until the server closes the connection, while `step` is called over and over."""
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < 10:
        step()
        try:
            if not await asyncio.wait_for(reader.read(1 << 16), 0.05):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - begun_s


async def test_a_head_that_comes_byte_by_byte_is_closed_at_its_deadline(site: Site) -> None:
    reader, writer = await site.connect(b"GET /page HTTP/1.1\r\nX-Long: ")
    assert 0.5 < await ended_after_s(reader, lambda: writer.write(b"a")) < 2.5
    assert site.refusals == {Refusal.TIMEOUT: 1}
    writer.close()


async def test_a_connection_on_which_nothing_comes_is_closed_at_its_deadline(site: Site) -> None:
    reader, writer = await site.connect()
    assert 0.5 < await ended_after_s(reader) < 2.5
    writer.close()


async def test_the_deadline_of_a_second_head_counts_from_the_end_of_the_response_before(site: Site) -> None:
    reader, writer = await site.connect(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200")
    await asyncio.sleep(0.4)
    writer.write(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200")
    assert 0.5 < await ended_after_s(reader, lambda: writer.write(b"a")) < 2.5
    writer.close()


@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_body_that_never_comes_is_closed_at_its_deadline(site: Site, length: str) -> None:
    reader, writer = await site.connect(f"POST /form HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
    assert 0.5 < await ended_after_s(reader) < 2.5
    assert site.refusals == {Refusal.TIMEOUT: 1}
    writer.close()


async def test_a_path_may_have_a_longer_deadline_for_its_body(site: Site) -> None:
    head = b"POST /slow-body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
    reader, writer = await site.connect(head)
    await asyncio.sleep(1.5)
    writer.write(b"a=b")
    assert b"{'a': 'b'}" in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_a_body_that_goes_on_after_its_response_is_closed_at_the_deadline(site: Site) -> None:
    reader, writer = await site.connect(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    assert 0.5 < await ended_after_s(reader, lambda: writer.write(b"a")) < 2.5
    writer.close()


async def test_garbage_after_a_response_closes_the_connection_and_is_no_error_of_ours(site: Site) -> None:
    reader, writer = await site.connect(b"POST /refused HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await reader.readuntil(b"here")
    writer.write(b"this is no chunk\r\n\r\n")
    assert await ended_after_s(reader) < 10
    assert site.refusals[Refusal.TIMEOUT] == 0, "it was closed for the garbage, and not at a deadline"
    writer.close()


async def test_a_response_that_is_not_read_is_closed_at_the_deadline(site: Site) -> None:
    # Given a client that asks for more than the buffers hold, and reads nothing
    reader, writer = await site.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await eventually(lambda: site.refusals[Refusal.TIMEOUT], "the connection was closed")
    writer.transport.abort()
    assert reader is not None


async def test_a_head_that_is_too_large_is_refused(site: Site) -> None:
    reader, writer = await site.connect(b"GET /page HTTP/1.1\r\nX-Long: " + b"a" * (20 << 10))
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_a_request_that_is_being_answered_is_not_closed_to_make_room(site: Site) -> None:
    # Given requests that are being answered, and idle connections up to the limit
    held = [await site.connect(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") for _ in range(4)]
    await eventually(lambda: site.held == 4, "they are being answered")
    idle = [await site.connect() for _ in range(20)]
    # When health is asked for
    assert (await site.get("/livez")).startswith(b"HTTP/1.1 200")
    assert site.refusals.total() >= 16, "idle ones were closed"
    # Then every one of them has its answer
    site.release.set()
    for reader, writer in held:
        assert b"at last" in await asyncio.wait_for(reader.read(), 5)
        writer.close()
    for _, writer in idle:
        writer.close()


async def test_health_is_answered_while_the_maximum_of_other_requests_is(site: Site) -> None:
    held = [await site.connect(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") for _ in range(4)]
    await eventually(lambda: site.held == 4, "the maximum is being answered")
    refused = await site.get("/page")
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in refused.lower()
    assert (await site.get("/livez")).startswith(b"HTTP/1.1 200")
    site.release.set()
    for reader, writer in held:
        assert b"at last" in await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert (await site.get("/page")).startswith(b"HTTP/1.1 200")


async def test_requests_whose_bodies_are_still_to_come_do_not_use_the_maximum_up(site: Site) -> None:
    head = b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    waiting = [await site.connect(head) for _ in range(6)]
    await asyncio.sleep(0.1)
    assert (await site.get("/page")).startswith(b"HTTP/1.1 200")
    for _, writer in waiting:
        writer.close()


async def test_a_tls_handshake_that_never_ends_is_closed_and_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.http.server.MAXIMUM_CONNECTIONS", MAXIMUM)
    authority = trustme.CA()
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with listening(HttpSettings(port=0, certificate_file=certificate, key_file=key)) as site:
        idle = [await site.connect() for _ in range(3 * MAXIMUM)]
        reader, writer = await asyncio.open_connection(*site.address, ssl=context)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
        assert site.refusals.total() >= MAXIMUM, "handshakes that had not ended were closed"
        assert await ended_after_s(idle[-1][0]) < 2.5
        for _, each in (*idle, (reader, writer)):
            each.close()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST."])
async def test_localhost_is_listened_on_in_both_families_on_one_port_with_one_limit(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr("worker.http.server.MAXIMUM_CONNECTIONS", MAXIMUM)
    async with listening(HttpSettings(port=0, host=host)) as site:
        port = site.address[1]
        for address in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200"), address
            writer.close()
        idle = [await asyncio.open_connection(("127.0.0.1", "::1")[n % 2], port) for n in range(3 * MAXIMUM)]
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
        assert site.refusals.total() >= MAXIMUM, "the connections of both count together"
        for _, each in (*idle, (reader, writer)):
            each.close()


async def test_localhost_is_listened_on_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    bind = ListeningSocket.bind

    def without_ipv6(self: ListeningSocket, address: Any) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        bind(self, address)

    monkeypatch.setattr(ListeningSocket, "bind", without_ipv6)
    async with listening(HttpSettings(port=0, host="localhost")) as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.address[1])
        writer.close()


async def test_a_port_that_is_taken_in_one_family_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::1", 0))
        taken.listen()
        settings = HttpSettings(port=taken.getsockname()[1], host="localhost")
        with pytest.raises(Misconfigured, match="Address already in use"):
            await HttpServer(settings, Site().app, deadlines=DEADLINES).start()


async def test_requests_that_make_uvicorn_complain_do_not_fill_the_log(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("debug", "json")
    reader, writer = await site.connect()
    for _ in range(50):
        writer.write(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"here"), 10)
    writer.close()
    for _ in range(50):
        reader, writer = await site.connect(b"no HTTP\r\n\r\n")
        assert b" 400 " in await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert len(capsys.readouterr().err.splitlines()) <= 1  # connections that were closed, in one line
