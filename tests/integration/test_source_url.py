"""Images over HTTP, from a real server that is hostile in most of these tests."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trustme

from tests.support.polling import eventually
from tests.support.processes import open_descriptors
from worker.errors import AutotagError, CannotBeDone, TryLater
from worker.images.content import Content
from worker.messages import ContentRef, Event, EventData
from worker.settings import SourcesSettings
from worker.sources import Sources
from worker.sources.breaker import SourceFailed
from worker.supervision.turns import Turn

IMAGE = b"\xff\xd8\xff" + os.urandom(300_000)
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """An HTTP server on loopback that sends prepared bytes. `seen` holds the heads of the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer | bytes]] = {}
        self.seen: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.seen.append(head.decode())
                answers = self.answers[head.split(b" ")[1].decode()]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def serve_at(self, path: str, *answers: Answer | bytes) -> str:
        self.answers[path] = list(answers)
        return self.url(path)


def response(status: str = "200 OK", body: bytes = IMAGE, **headers: str | int) -> bytes:
    lines = {"content-length": len(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def redirect(to: str) -> bytes:
    return response("302 Found", b"", location=to)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


def settings(**changes: object) -> SourcesSettings:
    local = {"url_allowed_hosts": ["127.0.0.1:*", "*.test:*"], "url_allow_private_addresses": True, "retries": 0}
    return SourcesSettings(**(local | changes))


def naming(url: str) -> Event:
    data = EventData(asset_id="1", content=ContentRef(url=url))
    return Event(specversion="1.0", id="e", source="s", type="dms.image.uploaded.v1", data=data)


async def fetch(url: str, sources: Sources | None = None, **changes: object) -> Content:
    event = naming(url)
    async with sources or Sources(4) as opened:
        return await opened.open_content(event, None, settings(**changes))


async def refused(url: str, sources: Sources | None = None, **changes: object) -> AutotagError:
    with pytest.raises(AutotagError) as caught:
        await fetch(url, sources, **changes)
    return caught.value


def resolving(*answers: list[str]) -> tuple[Sources, list[str]]:
    """Sources whose resolver returns these answers in turn; and the names that it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int, timeout_s: float) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return Sources(4, resolve=resolve), asked


async def test_an_image_is_fetched_into_sealed_memory(server: Server) -> None:
    url = server.serve_at("/a.jpg?key=secret", response())

    with await fetch(url) as content:
        assert content.read() == IMAGE
        assert content.origin == f"url http://127.0.0.1:{server.port}/a.jpg"
        with pytest.raises(PermissionError):
            os.write(content.fd, b"x")
    assert "accept-encoding: identity" in server.seen[0].lower()


async def test_a_chunked_image_without_a_declared_length_is_fetched(server: Server) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n"

    with await fetch(server.serve_at("/a", chunked)) as content:
        assert content.read() == b"abcdefgh"


# What must not be fetched


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "url_scheme_refused"),
        ("ftp://127.0.0.1/a", "url_scheme_refused"),
        ("gopher://127.0.0.1/a", "url_scheme_refused"),
        ("/etc/passwd", "url_scheme_refused"),
        ("http:///a", "url_scheme_refused"),
        ("http://127.0.0.1:99999999/a", "url_invalid"),
        ("http://[::1", "url_invalid"),
        ("http://user:s3cr3t@127.0.0.1/a", "url_userinfo_refused"),
        ("http://s3cr3t@127.0.0.1/a", "url_userinfo_refused"),
        ("http://example.org/a?k=s3cr3t", "url_host_not_allowed"),
        ("http://127.0.0.1.evil.example/a", "url_host_not_allowed"),
        ("http://test/a", "url_host_not_allowed"),
        ("http://eviltest/a", "url_host_not_allowed"),
        ("http://localhost/a", "url_host_not_allowed"),
        ("http://2130706433/a", "url_host_not_allowed"),
        ("http://0x7f000001/a", "url_host_not_allowed"),
        ("http://0177.0.0.1/a", "url_invalid"),
        ("http://[::1]/a", "url_host_not_allowed"),
        ("http://[::ffff:127.0.0.1]/a", "url_host_not_allowed"),
        ("http://169.254.169.254/latest/meta-data", "url_host_not_allowed"),
    ],
)
async def test_urls_that_may_not_be_named_are_refused_without_a_request(url: str, reason: str) -> None:
    error = await refused(url, url_allow_private_addresses=False)

    assert (type(error), error.reason) == (CannotBeDone, reason)
    assert "s3cr3t" not in str(error)


async def test_without_allowed_hosts_every_url_is_refused_with_what_to_set(server: Server) -> None:
    error = await refused(server.serve_at("/a", response()), url_allowed_hosts=[])

    assert error.reason == "url_host_not_allowed"
    assert "sources.url_allowed_hosts" in str(error)
    assert not server.seen


async def test_a_redirect_to_a_port_that_is_not_allowed_is_not_followed(server: Server) -> None:
    url = server.serve_at("/a", redirect("http://127.0.0.1:6379/"))
    error = await refused(url, url_allowed_hosts=[f"127.0.0.1:{server.port}"])

    assert (type(error), error.reason) == (CannotBeDone, "url_port_not_allowed")
    assert "`sources.url_allowed_ports`" in str(error)


async def test_plain_http_can_be_refused(server: Server) -> None:
    assert (await refused(server.serve_at("/a", response()), url_require_https=True)).reason == "url_scheme_refused"


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1"])
async def test_loopback_is_closed_however_the_host_is_written(server: Server, host: str) -> None:
    # Given the system's own name resolution, which resolves all of these to 127.0.0.1, each an allowed host
    server.serve_at("/a", response())
    error = await refused(server.url("/a", host), url_allowed_hosts=[f"{host}:*"], url_allow_private_addresses=False)

    assert (type(error), error.reason) == (CannotBeDone, "url_address_refused")
    assert "127.0.0.1" in str(error)
    assert not server.seen


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"]
)
async def test_a_name_that_leads_inside_is_refused(server: Server, address: str) -> None:
    sources, _ = resolving([address])
    server.serve_at("/a", response())

    error = await refused(server.url("/a", "dms.test"), sources, url_allow_private_addresses=False)

    assert (type(error), error.reason) == (CannotBeDone, "url_address_refused")
    assert not server.seen


async def test_the_metadata_service_is_closed_even_where_private_addresses_are_open() -> None:
    sources, _ = resolving(["169.254.169.254"])

    assert (await refused("http://dms.test/latest", sources)).reason == "url_address_refused"


async def test_the_connection_is_made_to_the_address_that_was_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a name server that answers a public address first and loopback from then on
    sources, asked = resolving(["203.0.113.7", "93.184.215.14"], ["127.0.0.1"])
    dialled: list[str] = []

    async def dial(remote_host: str, *_: object, **__: object) -> None:
        dialled.append(remote_host)
        raise OSError("no route")

    monkeypatch.setattr("anyio.connect_tcp", dial)
    # When a url is fetched
    error = await refused(server.url("/a", "rebinding.test"), sources, url_allow_private_addresses=False)
    # Then the only address dialled is the public one that was checked (203.0.113.0/24 is reserved)
    assert (type(error), error.reason) == (SourceFailed, "content_unreachable")
    assert (asked, dialled) == (["rebinding.test"], ["93.184.215.14"])


async def test_a_name_that_is_rebound_to_loopback_for_the_next_attempt_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, asked = resolving(["93.184.215.14"], ["127.0.0.1"])

    async def dial(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("anyio.connect_tcp", dial)
    error = await refused(server.url("/a", "rebinding.test"), sources, url_allow_private_addresses=False, retries=3)

    assert (type(error), error.reason) == (CannotBeDone, "url_address_refused")
    assert len(asked) == 2
    assert not server.seen


# Redirects


async def test_redirects_are_followed(server: Server) -> None:
    server.serve_at("/b/c", redirect("../d?x=1"))
    server.serve_at("/d?x=1", response())

    with await fetch(server.serve_at("/a", redirect("/b/c"))) as content:
        assert content.read() == IMAGE


@pytest.mark.parametrize(
    ("location", "requested"),
    [
        ("/Bücher/Straße.jpg".encode(), "/B%C3%BCcher/Stra%C3%9Fe.jpg"),
        (b"/two words.jpg", "/two%20words.jpg"),
        ("/Bücher/Straße.jpg".encode("latin-1"), "/B%FCcher/Stra%DFe.jpg"),
        (b"/B%C3%BCcher/100%25.jpg", "/B%C3%BCcher/100%25.jpg"),
    ],
)
async def test_a_redirect_may_name_what_is_not_ascii(server: Server, location: bytes, requested: str) -> None:
    server.serve_at(requested, response())

    with await fetch(server.serve_at("/a", redirect("LOCATION").replace(b"LOCATION", location))) as content:
        assert content.read() == IMAGE


async def test_a_redirect_to_a_host_that_is_not_ascii_is_followed_where_that_is_allowed(server: Server) -> None:
    sources, asked = resolving(["127.0.0.1"])
    server.serve_at("/b", response())
    location = f"http://bücher.test:{server.port}/b".encode()
    url = server.serve_at("/a", redirect("LOCATION").replace(b"LOCATION", location))

    with await fetch(url, sources, url_allowed_hosts=["127.0.0.1:*", "BÜCHER.test:*"]) as content:
        assert content.read() == IMAGE
    assert asked[-1] == "xn--bcher-kva.test"


@pytest.mark.parametrize("allowed", ["bücher.test", "BÜCHER.TEST.", "xn--bcher-kva.test", "*.test", "*.test."])
@pytest.mark.parametrize("named", ["bücher.test", "xn--bcher-kva.test", "Bücher.test."])
async def test_a_host_may_be_named_in_every_way_it_is_written(server: Server, allowed: str, named: str) -> None:
    sources, _ = resolving(["127.0.0.1"])
    server.serve_at("/a", response())

    with await fetch(server.url("/a", named), sources, url_allowed_hosts=[f"{allowed}:*"]) as content:
        assert content.read() == IMAGE


async def test_a_host_that_looks_like_an_allowed_one_is_refused(server: Server) -> None:
    for named in ("bucher.test", "bücher.test.evil.example", "xbücher.test", "xn--bcher-kvb.test"):
        error = await refused(server.url("/a", named), url_allowed_hosts=["bücher.test"])

        assert error.reason in {"url_host_not_allowed", "url_invalid"}
    assert not server.seen


async def test_more_redirects_than_allowed_are_refused(server: Server) -> None:
    error = await refused(server.serve_at("/a", redirect("/a")), maximum_redirects=2)

    assert (type(error), error.reason) == (CannotBeDone, "url_too_many_redirects")
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("http://localhost/inside", "url_host_not_allowed"),
        ("//169.254.169.254/latest/meta-data", "url_host_not_allowed"),
        ("file:///etc/passwd", "url_scheme_refused"),
        ("http://user:pw@127.0.0.1/", "url_userinfo_refused"),
        ("http://0177.0.0.1/", "url_invalid"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(server: Server, to: str, reason: str) -> None:
    error = await refused(server.serve_at("/a", redirect(to)))

    assert (type(error), error.reason) == (CannotBeDone, reason)
    assert len(server.seen) == 1


async def test_a_redirect_to_a_host_that_leads_inside_is_refused(server: Server) -> None:
    # Given an allowed public host (here: loopback stands in for it) that redirects to an allowed name of a metadata
    # service
    sources, asked = resolving(["127.0.0.1"], ["169.254.169.254"])
    server.serve_at("/a", redirect("http://inside.test/latest"))

    error = await refused(server.url("/a", "outside.test"), sources)

    assert error.reason == "url_address_refused"
    assert asked == ["outside.test", "inside.test"]


# Sizes


async def test_a_declared_size_beyond_the_maximum_is_refused_before_the_body_is_read(server: Server) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
        await asyncio.sleep(30)

    started_s = time.monotonic()
    error = await refused(server.serve_at("/a", endless), maximum_bytes=1000)

    assert (type(error), error.reason) == (CannotBeDone, "content_too_large")
    assert time.monotonic() - started_s < 20


async def test_an_undeclared_size_is_counted_while_reading(server: Server) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    error = await refused(server.serve_at("/a", endless), maximum_bytes=1_000_000)

    assert (type(error), error.reason) == (CannotBeDone, "content_too_large")
    assert sent < 20_000_000


async def test_an_image_of_the_maximum_size_is_taken_and_one_byte_more_is_not(server: Server) -> None:
    url = server.serve_at("/a", response())

    (await fetch(url, maximum_bytes=len(IMAGE))).close()
    assert (await refused(url, maximum_bytes=len(IMAGE) - 1)).reason == "content_too_large"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
async def test_a_compressed_body_is_refused_since_none_was_requested(server: Server, encoding: str) -> None:
    error = await refused(server.serve_at("/a", response(content_encoding=encoding)))

    assert (type(error), error.reason) == (CannotBeDone, "content_encoding_refused")


async def test_an_empty_body_is_no_image(server: Server) -> None:
    assert (await refused(server.serve_at("/a", response(body=b"")))).reason == "content_empty"


# Time


async def test_stalled_headers_end_with_the_read_time_limit(server: Server) -> None:
    async def silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    started_s = time.monotonic()
    error = await refused(server.serve_at("/a", silent), read_timeout_s=0.2)

    assert (type(error), error.reason) == (SourceFailed, "content_unreachable")
    assert time.monotonic() - started_s < 20


async def test_a_body_that_trickles_ends_with_the_total_time_limit(server: Server) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    before = open_descriptors()
    started_s = time.monotonic()
    error = await refused(server.serve_at("/a", trickle), read_timeout_s=5, total_timeout_s=0.3)

    assert (type(error), error.reason) == (SourceFailed, "content_unreachable")
    assert "sources.total_timeout_s" in str(error)
    assert time.monotonic() - started_s < 10
    await eventually(lambda: open_descriptors() <= before, "every connection is closed")  # the server's end closes too


async def test_a_name_server_that_is_silent_ends_with_the_connect_time_limit() -> None:
    async def resolve(host: str, port: int, timeout_s: float) -> list[str]:
        await asyncio.sleep(30)
        return []

    error = await refused("http://dms.test/a", Sources(4, resolve=resolve), connect_timeout_s=0.1)

    assert (type(error), error.reason) == (SourceFailed, "content_unreachable")


# Failing hosts


@pytest.mark.parametrize(
    "failure",
    [
        response("503 Service Unavailable", b""),
        response("429 Too Many", b""),
        response("408 Timeout", b""),
        b"",
        b"rubbish\r\n\r\n",
        response(body=IMAGE)[:-5],
    ],
)
async def test_a_transient_failure_is_retried_at_once(server: Server, failure: bytes) -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.write(failure)
        await writer.drain()
        writer.close()

    with await fetch(server.serve_at("/a", hang_up, hang_up, response()), retries=2) as content:
        assert content.read() == IMAGE
    assert len(server.seen) == 3


async def test_a_lasting_failure_is_left_to_the_delayed_retry(server: Server) -> None:
    error = await refused(server.serve_at("/a", response("503 Busy", b"")), retries=1)

    assert (type(error), error.reason) == (SourceFailed, "content_http_status")
    assert len(server.seen) == 2


async def test_a_host_that_answers_503_is_left_alone_and_what_was_asked_of_it_was_an_attempt(server: Server) -> None:
    url, sources = server.serve_at("/a", response("503 Busy", b"")), Sources(4, failures=2)

    first = await refused(url, sources, retries=5)
    second = await refused(url, sources, retries=5)

    assert (first.reason, second.reason) == ("content_http_status", "source_circuit_open")
    assert isinstance(first, TryLater)
    assert isinstance(second, TryLater)
    assert (first.counted, second.counted) == (True, False)
    assert len(server.seen) == 2


async def test_a_host_that_asks_clients_to_wait_is_not_retried_at_once(server: Server) -> None:
    error = await refused(server.serve_at("/a", response("503 Busy", b"", retry_after=120)), retries=3)

    assert isinstance(error, TryLater)
    assert error.after_s == 120
    assert len(server.seen) == 1


async def test_a_retry_after_may_be_a_date(server: Server) -> None:
    error = await refused(server.serve_at("/a", response("429 Busy", b"", retry_after="Fri, 31 Dec 2100 23:59:59 GMT")))

    assert isinstance(error, TryLater)
    assert error.after_s == 86400


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        ("404 Not Found", TryLater, "content_missing"),
        ("410 Gone", TryLater, "content_missing"),
        ("401 Unauthorized", TryLater, "content_refused"),
        ("403 Forbidden", TryLater, "content_refused"),
        ("204 No Content", CannotBeDone, "content_http_status"),
        ("302 Found", CannotBeDone, "content_http_status"),
        ("400 Bad Request", CannotBeDone, "content_http_status"),
        ("206 Partial Content", CannotBeDone, "content_http_status"),
    ],
)
async def test_other_answers_are_not_retried_at_once(server: Server, status: str, kind: type, reason: str) -> None:
    url = server.serve_at("/a?key=s3cr3t", response(status, b""))

    error = await refused(url, retries=3)

    assert (isinstance(error, kind), error.reason) == (True, reason)
    assert len(server.seen) == 1
    assert "/a" in str(error)
    assert "s3cr3t" not in str(error)


async def test_a_closed_port_is_unreachable(server: Server) -> None:
    error = await refused("http://127.0.0.1:1/a", retries=1)

    assert (type(error), error.reason) == (SourceFailed, "content_unreachable")


async def test_an_unknown_host_is_unreachable() -> None:
    for host in ("no-such-host.test", f"{'x' * 70}.test"):
        error = await refused(f"http://{host}/a")
        assert error.reason in {"content_unreachable", "url_invalid"}


# What must not be disclosed


async def test_no_proxy_cookie_or_secret_goes_anywhere(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a proxy in the environment, and a host that sets a cookie
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    caplog.set_level(logging.INFO)
    url = server.serve_at("/a?key=s3cr3t", response(set_cookie="session=1"))
    # When it is fetched twice
    sources = Sources(4)
    (await fetch(url, sources)).close()
    (await fetch(url, sources)).close()
    # Then it was asked directly, was given no cookie back, and nothing was logged
    assert len(server.seen) == 2
    assert "cookie" not in server.seen[1].lower()
    assert "s3cr3t" not in caplog.text


# What one fetch leaves behind for the next

OTHERS = b"\xff\xd8\xff" + b"of another"
UNASKED = response(body=OTHERS)
CHUNKED = f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{len(IMAGE):x}\r\n".encode() + IMAGE + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (response() + UNASKED, "read"),
        (response() + b"more than the content has" + UNASKED, "read"),
        (CHUNKED + UNASKED, "read"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + response() + UNASKED, "read"),
        (response(connection="keep-alive") + UNASKED[:40], "read"),
        (redirect("/b") + UNASKED, "read"),
        (response("404 Not Found", b"") + UNASKED, "content_missing"),
        (response("503 Busy", b"") + UNASKED, "content_http_status"),
        (response(content_encoding="gzip") + UNASKED, "content_encoding_refused"),
    ],
)
async def test_an_answer_that_nobody_asked_for_is_nobodys(server: Server, first: bytes, outcome: str) -> None:
    earlier: list[asyncio.StreamWriter] = []

    async def keep(writer: asyncio.StreamWriter) -> None:
        earlier.append(writer)
        writer.write(first)

    async def later(writer: asyncio.StreamWriter) -> None:
        for each in earlier:  # also once the next request is there, when no look at the socket can find it any more
            each.write(UNASKED)
        writer.write(response())

    # Given a host that sends more than its answer to one instance's fetch
    url, next_url, sources = server.serve_at("/a", keep), server.serve_at("/b", later), Sources(4)
    try:
        with await sources.open_content(naming(url), None, settings(), Turn("one")) as content:
            assert (outcome, content.read()) == ("read", IMAGE)
    except AutotagError as error:
        assert error.reason == outcome  # noqa: PT017 - or it was read
    # When the same instance, and another, fetch from it
    for instance in ("one", "other"):
        with await sources.open_content(naming(next_url), None, settings(), Turn(instance)) as content:
            # Then they get what they have asked for
            assert content.read() == IMAGE


# TLS


@pytest.fixture
async def tls_server() -> AsyncIterator[tuple[Server, ssl.SSLContext]]:
    authority = trustme.CA()
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("dms.test").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=ours)
    server.port = listening.sockets[0].getsockname()[1]
    server.serve_at("/a", response())
    yield server, theirs
    listening.close()


def on_loopback(tls: ssl.SSLContext | None) -> Sources:
    async def resolve(host: str, port: int, timeout_s: float) -> list[str]:
        return ["127.0.0.1"]

    return Sources(4, resolve=resolve, tls=tls)


async def test_each_fetch_has_a_connection_and_a_tls_session_of_its_own(
    tls_server: tuple[Server, ssl.SSLContext],
) -> None:
    server, trusting = tls_server
    connections: list[object] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("peername"))
        assert not writer.get_extra_info("ssl_object").session_reused
        writer.write(response())

    server.serve_at("/a", answer)
    sources = on_loopback(trusting)
    for _ in range(3):
        (await sources.open_content(naming(server.url("/a", "dms.test", "https")), None, settings())).close()
    assert len(set(connections)) == 3
    sent = f"host: dms.test:{server.port}\r\n", "connection: close\r\n"
    assert all(line in head.lower() for head in server.seen for line in sent)


async def test_tls_verifies_the_name_though_the_connection_goes_to_an_address(
    tls_server: tuple[Server, ssl.SSLContext],
) -> None:
    server, trusting = tls_server

    with await fetch(server.url("/a", "dms.test", "https"), on_loopback(trusting), url_require_https=True) as content:
        assert content.read() == IMAGE
    wrong_name = await refused(server.url("/a", "other.test", "https"), on_loopback(trusting))
    unknown_authority = await refused(server.url("/a", "dms.test", "https"), on_loopback(None))

    assert wrong_name.reason == unknown_authority.reason == "content_unreachable"
    assert "certificate" in str(wrong_name)
    assert len(server.seen) == 1
