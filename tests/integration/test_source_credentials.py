"""Credentials over real connections: sent to their origin and nowhere else; pages that are no images."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.support.polling import eventually
from worker.errors import AutotagError, CannotBeDone, TryLater
from worker.images.content import Content
from worker.messages import ContentRef, Event, EventData
from worker.settings import SourcesSettings
from worker.sources import Sources
from worker.sources.access_tokens import AccessTokens
from worker.sources.breaker import SourceBreakers, SourceFailed
from worker.supervision.turns import Turn

IMAGE = b"\xff\xd8\xff" + bytes(5000)
SECRET = "s3cret"
BASIC = {"kind": "basic", "username": "ü", "password": SECRET}
PAGE = b"<!DOCTYPE html><title>Sign in</title>"
OK, UNAUTHORIZED, BUSY = "200 OK", "401 Unauthorized", "503 Busy"


class Host:
    """An HTTP server on loopback. `answers` has for each path what is answered in turn, the last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[str, bytes, dict[str, str]]]] = {}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self.held = asyncio.Event()
        self.held.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.splitlines()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = first.split(" ")[1]
            self.seen.append((path, headers, body))
            await self.held.wait()
            answers = self.answers[path]
            status, answer, more = answers.pop(0) if len(answers) > 1 else answers[0]
            fields = {"content-length": str(len(answer))} | more
            sent = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            writer.write(f"HTTP/1.1 {status}\r\n{sent}\r\n".encode() + answer)
            await writer.drain()
        finally:
            writer.close()

    def at(self, path: str, *answers: tuple[str, bytes] | tuple[str, bytes, dict[str, str]]) -> str:
        self.answers[path] = [(*each, {})[:3] for each in answers]
        return f"http://{self.origin}{path}"

    @property
    def origin(self) -> str:
        return f"127.0.0.1:{self.port}"

    def sent(self, path: str, header: str = "authorization") -> list[str | None]:
        """A header of each request for a path."""
        return [headers.get(header) for seen, headers, _ in self.seen if seen == path]


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    made, listening = (Host(), Host()), []
    for host in made:
        listening.append(await asyncio.start_server(host.serve, "127.0.0.1", 0))
        host.port = listening[-1].sockets[0].getsockname()[1]
    yield made
    for each in listening:
        each.close()


def settings(credentials: dict[str, Any], **changes: Any) -> SourcesSettings:
    local = {"url_allowed_hosts": ["127.0.0.1:*"], "url_allow_private_addresses": True, "retries": 0}
    return SourcesSettings.model_validate(local | changes | {"credentials": credentials})


async def fetch(url: str, of: SourcesSettings, sources: Sources | None = None, instance: str = "acme") -> Content:
    data = EventData(asset_id="1", content=ContentRef(url=url))
    event = Event(specversion="1.0", id="e", source="s", type="dms.image.uploaded.v1", data=data)
    if sources is not None:
        return await sources.open_content(event, None, of, Turn(instance))
    async with Sources(4) as opened:
        return await opened.open_content(event, None, of, Turn(instance))


async def refusal(url: str, of: SourcesSettings, sources: Sources | None = None) -> AutotagError:
    with pytest.raises(AutotagError) as caught:
        await fetch(url, of, sources)
    assert SECRET not in str(caught.value) + repr(caught.value)
    return caught.value


def token(value: str, **more: object) -> tuple[str, bytes]:
    return OK, json.dumps({"access_token": value, "token_type": "bearer", "expires_in": 600} | more).encode()


def oauth(host: Host, **more: object) -> dict[str, Any]:
    """A credential whose tokens the host issues."""
    return {
        "kind": "oauth2_client_credentials",
        "token_url": f"http://{host.origin}/token",
        "client_id": "the client",
        "client_secret": SECRET,
    } | more


@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        (BASIC, "authorization", "Basic " + base64.b64encode(f"ü:{SECRET}".encode()).decode()),
        ({"kind": "bearer", "token": SECRET}, "authorization", f"Bearer {SECRET}"),
        ({"kind": "header", "header": "X-Api-Key", "value": SECRET}, "x-api-key", SECRET),
        ({"kind": "header", "header": "Authorization", "value": f"Token {SECRET}"}, "authorization", f"Token {SECRET}"),
    ],
)
async def test_a_host_gets_what_was_set_for_it(
    hosts: tuple[Host, Host], credential: dict[str, str], header: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host, _ = hosts
    url = host.at("/a", (OK, IMAGE))

    with await fetch(url, settings({f"http://{host.origin}": credential})) as content:
        assert content.read() == IMAGE

    assert host.sent("/a", header) == [value]
    assert value not in caplog.text


@pytest.mark.parametrize("of", ["{origin}", "https://{origin}", "http://127.0.0.1", "http://localhost:{port}"])
async def test_another_scheme_port_or_name_is_another_origin(hosts: tuple[Host, Host], of: str) -> None:
    host, _ = hosts
    url = host.at("/a", (OK, IMAGE))

    (await fetch(url, settings({of.format(origin=host.origin, port=host.port): BASIC}))).close()

    assert host.sent("/a") == [None]


async def test_a_credential_is_for_the_instances_it_names(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    url, of = host.at("/a", (OK, IMAGE)), settings({f"http://{host.origin}": BASIC | {"instances": ["acme"]}})

    for instance in ("acme", "beta"):
        (await fetch(url, of, instance=instance)).close()

    assert [sent is not None for sent in host.sent("/a")] == [True, False]


async def test_redirects_keep_it_within_the_origin_and_drop_it_for_good_beyond(hosts: tuple[Host, Host]) -> None:
    host, other = hosts
    # Given a way that stays at the host first, then leads to another and back
    last = host.at("/last", (OK, IMAGE))
    away = other.at("/away", ("302 Found", b"", {"location": last}))
    host.at("/second", ("302 Found", b"", {"location": away}))
    url = host.at("/first", ("302 Found", b"", {"location": "/second"}))
    # When it is followed, with credentials for both
    of = settings({f"http://{host.origin}": BASIC, f"http://{other.origin}": {"kind": "bearer", "token": SECRET}})
    (await fetch(url, of)).close()
    # Then each request has what is its own, and none after the first change
    assert [sent is not None for sent in (*host.sent("/first"), *host.sent("/second"))] == [True, True]
    assert (other.sent("/away"), host.sent("/last")) == ([None], [None])


async def test_an_event_that_names_another_host_has_no_use_of_it_by_a_redirect(hosts: tuple[Host, Host]) -> None:
    host, other = hosts
    url = other.at("/a", ("302 Found", b"", {"location": host.at("/private", (OK, IMAGE))}))

    (await fetch(url, settings({f"http://{host.origin}": BASIC}))).close()

    assert host.sent("/private") == [None]


async def test_a_refused_credential_is_tried_later_and_named(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    url = host.at("/a", (UNAUTHORIZED, b""))

    error = await refusal(url, settings({f"http://{host.origin}": BASIC}))

    assert isinstance(error, TryLater)
    assert error.reason == "content_refused"
    assert "what `sources.credentials` has for this host is not accepted" in str(error)
    assert len(host.seen) == 1


# Pages where images should be


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "image/jpeg"])
async def test_a_page_where_an_image_should_be_is_refused(hosts: tuple[Host, Host], content_type: str) -> None:
    host, _ = hosts
    login = host.at("/c/portal/login?next=%2Fa", (OK, PAGE, {"content-type": content_type}))
    url = host.at("/a", ("302 Found", b"", {"location": login}))

    error = await refusal(url, settings({f"http://{host.origin}": BASIC}))

    assert (type(error), error.reason) == (CannotBeDone, "content_refused")
    assert "it looks like a login page" in str(error)


async def test_a_redirect_to_where_people_sign_in_is_refused_as_that(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    url = host.at("/a", ("302 Found", b"", {"location": "https://sso.example/login?token=s3cret"}))
    other = host.at("/b", ("302 Found", b"", {"location": "https://cdn.example/a.jpg"}))

    error = await refusal(url, settings({}))

    assert (type(error), error.reason) == (CannotBeDone, "content_refused")
    assert (await refusal(other, settings({}))).reason == "url_host_not_allowed"


# OAuth2


async def test_a_token_is_asked_for_once_for_all_who_wait_and_kept(hosts: tuple[Host, Host]) -> None:
    host, issuer = hosts
    issuer.at("/token", token("t1"))
    url, of = host.at("/a", (OK, IMAGE)), settings({f"http://{host.origin}": oauth(issuer, scope="read all")})
    async with Sources(16) as sources:
        # Given an endpoint that lets them wait
        issuer.held.clear()
        waiting = [asyncio.create_task(fetch(url, of, sources, f"i{number}")) for number in range(8)]
        await eventually(lambda: len(issuer.seen) == 1, "a token was asked for")
        # When one of them goes, and it answers
        waiting.pop(0).cancel()
        issuer.held.set()
        for content in await asyncio.gather(*waiting):
            content.close()
        (await fetch(url, of, sources)).close()
    # Then it was asked once
    ((_, headers, form),) = issuer.seen
    assert parse_qs(form.decode()) == {"grant_type": ["client_credentials"], "scope": ["read all"]}
    assert headers["authorization"] == "Basic " + base64.b64encode(f"the+client:{SECRET}".encode()).decode()
    assert set(host.sent("/a")) == {"Bearer t1"}


async def test_the_client_may_be_named_in_the_form(hosts: tuple[Host, Host]) -> None:
    host, issuer = hosts
    issuer.at("/token", token("t1"))
    of = settings({f"http://{host.origin}": oauth(issuer, client_in="body")})

    (await fetch(host.at("/a", (OK, IMAGE)), of)).close()

    ((_, headers, form),) = issuer.seen
    assert "authorization" not in headers
    assert parse_qs(form.decode())["client_secret"] == [SECRET]


async def test_a_token_that_is_refused_is_replaced_once(hosts: tuple[Host, Host]) -> None:
    host, issuer = hosts
    issuer.at("/token", token("t1"), token("t2"), token("t3"))
    of = settings({f"http://{host.origin}": oauth(issuer)})
    url = host.at("/a", (OK, IMAGE), (UNAUTHORIZED, b""), (OK, IMAGE), (UNAUTHORIZED, b""))
    async with Sources(4) as sources:
        # Given a token that has worked, and is not accepted any more
        (await fetch(url, of, sources)).close()
        # When an image is fetched, then it is with a new one
        (await fetch(url, of, sources)).close()
        assert host.sent("/a") == ["Bearer t1", "Bearer t1", "Bearer t2"]
        # And where that is refused too, once more only
        error = await refusal(url, of, sources)
    assert (isinstance(error, TryLater), error.reason) == (True, "content_refused")
    assert host.sent("/a")[3:] == ["Bearer t2", "Bearer t3"]


async def test_a_token_is_renewed_early_and_used_to_its_end_while_that_fails(hosts: tuple[Host, Host]) -> None:
    host, issuer = hosts
    issuer.at("/token", token("t1", expires_in="100"), (BUSY, b""), token("t2"))
    of = settings({f"http://{host.origin}": oauth(issuer)})
    (credential,) = of.credentials.values()
    clock = [1000.0]

    async def resolve(name: str, port: int, timeout_s: float) -> list[str]:
        return [name]

    tokens = AccessTokens(resolve, SourceBreakers(5, 30), ssl.create_default_context, lambda: clock[0])
    got = []
    for now_s in (1000.0, 1079.0, 1081.0, 1082.0):
        clock[0] = now_s
        got.append((await tokens.get(credential, of)).value)
    assert got == ["t1", "t1", "t1", "t2"]
    assert len(issuer.seen) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "reason", "words"),
    [
        ((BUSY, b""), SourceFailed, "token_unreachable", "it answered 503"),
        (("302 Found", b"", {"location": "/login"}), TryLater, "token_refused", "answered 302"),
        ((UNAUTHORIZED, b'{"error": "invalid_client"}'), TryLater, "token_refused", "401 (invalid_client)"),
        (("400 Bad", b'{"error": "<s3cret>"}'), TryLater, "token_refused", "answered 400: are"),
        ((OK, PAGE), TryLater, "token_garbled", "no `access_token`"),
        ((OK, b"[" * 3000), TryLater, "token_garbled", "no `access_token`"),
        ((OK, b"x" * 70_000), TryLater, "token_garbled", "too long"),
        (token("a b"), TryLater, "token_garbled", "no `access_token`"),
        (token("t", token_type="mac"), TryLater, "token_garbled", "not of the type Bearer"),
    ],
)
async def test_without_a_token_the_image_is_tried_later_and_why_is_named(
    hosts: tuple[Host, Host], answer: tuple[str, bytes], kind: type, reason: str, words: str
) -> None:
    host, issuer = hosts
    issuer.at("/token", answer)
    url = host.at("/a", (OK, IMAGE))

    error = await refusal(url, settings({f"http://{host.origin}": oauth(issuer)}))

    assert (isinstance(error, kind), error.reason) == (True, reason)
    assert words in str(error)
    assert host.seen == [], "nothing was sent without it"


async def test_an_endpoint_that_fails_is_left_alone_for_a_while(hosts: tuple[Host, Host]) -> None:
    host, issuer = hosts
    issuer.at("/token", (BUSY, b""))
    url, of = host.at("/a", (OK, IMAGE)), settings({f"http://{host.origin}": oauth(issuer)})
    async with Sources(4, failures=2) as sources:
        reasons = [(await refusal(url, of, sources)).reason for _ in range(3)]
    assert reasons == ["token_unreachable", "token_unreachable", "source_circuit_open"]
    assert len(issuer.seen) == 2


async def test_an_object_is_asked_for_with_a_signature(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    url = host.at("/bucket/a%20b.jpg", (OK, IMAGE))
    keys = {"kind": "sigv4", "access_key": "id", "secret_key": SECRET, "region": "eu-central-1"}

    (await fetch(url, settings({f"http://{host.origin}": keys}))).close()

    ((_, headers, _),) = host.seen
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=id/")
    assert (
        "/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date" in headers["authorization"]
    )
    assert SECRET not in str(headers)
