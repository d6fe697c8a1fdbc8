"""Images and cloud services through a forward proxy: what leads there, and whose fault it is when nothing does."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr, ValidationError

from tests.support.cloud import google, image_of, picture, started
from tests.support.fake_google import FakeGoogle
from tests.support.forward_proxy import ForwardProxy, forward_proxy
from worker.diagnostics.preflight import CheckResult, check_service
from worker.errors import AutotagError, CannotBeDone, TryLater
from worker.messages import ContentRef, Event, EventData
from worker.providers.google_cloud_vision import GoogleCloudVision
from worker.settings import CloudCallsSettings, Settings, SourcesSettings
from worker.sources import Sources
from worker.sources import proxy as proxy_module
from worker.sources.breaker import SourceFailed
from worker.sources.proxy import Proxy, ProxyFailed

IMAGE = b"\xff\xd8\xff" + os.urandom(100_000)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(IMAGE) + IMAGE
HOST = "pictures.example"
PASSWORD = "p@ss word"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of an image host."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def on_loopback(_host: str, _port: int, _timeout_s: float) -> list[str]:
    return ["127.0.0.1"]


async def unknown(_host: str, _port: int, _timeout_s: float) -> list[str]:
    import socket

    raise socket.gaierror(-2, "Name or service not known")


async def fetched(
    url: str, proxy: ForwardProxy | str | None, *, resolve: Any = on_loopback, tls: Any = None, **settings: Any
) -> bytes:
    async with Sources(4, resolve=resolve, tls=tls) as sources:
        with await sources.open_content(naming(url), None, through(proxy, **settings)) as content:
            return content.read()


def through(proxy: ForwardProxy | str | None, **settings: Any) -> SourcesSettings:
    named = f"http://us%20er:p%40ss%20word@127.0.0.1:{proxy.port}" if isinstance(proxy, ForwardProxy) else proxy
    return SourcesSettings.model_validate(
        {
            "url_allowed_hosts": [f"{HOST}:*", "127.0.0.1:*", "169.254.169.254"],
            "url_allow_private_addresses": True,
            "proxy": named,
            "retries": 0,
            "connect_timeout_s": 10,
            **settings,
        }
    )


def naming(url: str) -> Event:
    return Event(
        specversion="1.0",
        id="1",
        source="test",
        type="dms.image.uploaded.v1",
        data=EventData(asset_id="a", content=ContentRef(url=url)),
    )


class TestImages:
    async def test_the_proxy_gets_the_address_that_was_checked_and_the_host_its_name(self, port: int) -> None:
        async with forward_proxy(PASSWORD) as proxy:
            assert await fetched(f"http://{HOST}:{port}/a.jpg", proxy) == IMAGE
        assert proxy.targets == [f"127.0.0.1:{port}"]

    async def test_tls_ends_at_the_host_and_the_proxy_may_speak_it_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        authority = trustme.CA()
        of_host, of_proxy = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(of_host)
        authority.issue_cert("127.0.0.1").configure_cert(of_proxy)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        monkeypatch.setattr(proxy_module, "_tls", lambda: trusting)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=of_host)
        url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}/a.jpg"
        async with server, forward_proxy(certificate=of_proxy) as proxy:
            assert await fetched(url, f"https://127.0.0.1:{proxy.port}", tls=trusting) == IMAGE
            assert len(proxy.targets) == 1

    async def test_an_address_that_events_may_not_reach_is_refused_before_the_proxy_is_asked(self, port: int) -> None:
        async with forward_proxy() as proxy:
            with pytest.raises(CannotBeDone) as caught:
                await fetched(f"http://{HOST}:{port}/a.jpg", proxy, url_allow_private_addresses=False)
            assert caught.value.reason == "url_address_refused"
            # Also where the proxy looks names up, if the event names the address itself
            with pytest.raises(CannotBeDone) as caught:
                await fetched("http://169.254.169.254/latest", proxy, proxy_resolves_names=True, resolve=on_metadata)
            assert caught.value.reason == "url_address_refused"
        assert proxy.targets == []

    async def test_a_name_that_only_the_proxy_can_look_up_needs_a_setting_that_the_error_names(self, port: int) -> None:
        async with forward_proxy() as proxy:
            proxy.names[HOST] = "127.0.0.1"
            url = f"http://{HOST}:{port}/a.jpg"
            with pytest.raises(SourceFailed, match=r"proxy_resolves_names"):
                await fetched(url, proxy, resolve=unknown)
            assert await fetched(url, proxy, resolve=unknown, proxy_resolves_names=True) == IMAGE
        assert proxy.targets == [f"{HOST}:{port}"]

    async def test_hosts_may_be_reached_without_it(self, port: int) -> None:
        async with forward_proxy() as proxy:
            assert await fetched(f"http://{HOST}:{port}/a.jpg", proxy, no_proxy=["*.example"]) == IMAGE
        assert proxy.targets == []

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "proxy_credentials_refused"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "proxy_refused"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n", "proxy_refused"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "proxy_garbled"),
            (b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER, "proxy_garbled"),
            (b"HTTP/1.1 200 " + b"x" * 100_000, "proxy_garbled"),
            (b"", "proxy_garbled"),
        ],
    )
    async def test_what_the_proxy_does_is_not_the_images_fault(self, port: int, sent: bytes, reason: str) -> None:
        async with forward_proxy() as proxy:
            proxy.answer = sent
            with pytest.raises(ProxyFailed) as caught:
                await fetched(f"http://{HOST}:{port}/a.jpg", proxy)
        assert (caught.value.reason, caught.value.counted) == (reason, False)
        assert f"127.0.0.1:{proxy.port}" in str(caught.value)
        assert "p%40ss" not in str(caught.value)
        assert PASSWORD not in str(caught.value)

    async def test_it_is_not_the_hosts_fault_either_and_one_that_cannot_be_reached_is_none_of_the_proxys(
        self, port: int
    ) -> None:
        # Given a proxy that is not there, and more failures than open a host's circuit
        for _ in range(2):
            with pytest.raises(ProxyFailed, match="cannot be reached") as caught:
                await fetched(f"http://{HOST}:{port}/a.jpg", "http://127.0.0.1:1", failures_to_open_circuit=1)
            assert caught.value.reason == "proxy_unreachable"
        async with forward_proxy() as proxy:
            with pytest.raises(SourceFailed, match=r"502: it could not reach 127\.0\.0\.1") as failed:
                await fetched(f"http://{HOST}:1/a.jpg", proxy)
        assert failed.value.counted

    @pytest.mark.parametrize("sent", [None, b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"])
    async def test_a_proxy_that_is_silent_or_refuses_opens_no_circuit_of_the_host(
        self, port: int, sent: bytes | None
    ) -> None:
        async with forward_proxy() as proxy, Sources(4, failures=1, resolve=on_loopback) as sources:
            patience = {"connect_timeout_s": 0.3} if sent is None else {}
            event, made = naming(f"http://{HOST}:{port}/a.jpg"), through(proxy, **patience)
            proxy.answer = sent
            for _ in range(2):
                with pytest.raises(ProxyFailed) as caught:
                    await sources.open_content(event, None, made)
                assert caught.value.reason == ("proxy_unreachable" if sent is None else "proxy_credentials_refused")
            proxy.answer = b"unset"
            with await sources.open_content(event, None, through(proxy)) as content:
                assert content.read() == IMAGE

    async def test_an_echo_of_the_request_is_not_quoted(self, port: int) -> None:
        async with forward_proxy() as proxy:
            proxy.answer = b"HTTP/1.1 200 OK\r\n: Proxy-Authorization: Basic c2VjcmV0\r\n\r\n"
            with pytest.raises(ProxyFailed) as caught:
                await fetched(f"http://{HOST}:{port}/a.jpg", proxy)
        assert caught.value.reason == "proxy_garbled"
        assert "c2VjcmV0" not in str(caught.value)

    async def test_a_proxy_that_refuses_one_address_of_a_host_is_asked_for_the_next(self, port: int) -> None:
        async def two(_host: str, _port: int, _timeout_s: float) -> list[str]:
            return ["2606:2800:220:1::1", "127.0.0.1"]

        async with forward_proxy() as proxy:
            proxy.refused = "[2606:2800:220:1::1]"
            assert await fetched(f"http://{HOST}:{port}/a.jpg", proxy, resolve=two) == IMAGE
        assert proxy.targets == [f"[2606:2800:220:1::1]:{port}", f"127.0.0.1:{port}"]

    @pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "169.254.43518"])
    async def test_odd_forms_of_an_address_are_checked_though_the_proxy_looks_names_up(self, host: str) -> None:
        async with forward_proxy() as proxy:
            with pytest.raises(CannotBeDone) as caught:
                await fetched(
                    f"http://{host}/latest",
                    proxy,
                    resolve=None,
                    url_allowed_hosts=[host],
                    url_allow_private_addresses=False,
                    proxy_resolves_names=True,
                )
        assert (caught.value.reason, proxy.targets) == ("url_address_refused", [])

    async def test_a_proxy_of_the_environment_is_not_used_and_the_error_says_so(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with forward_proxy() as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://us%20er:secret@127.0.0.1:{proxy.port}")
            assert await fetched(f"http://{HOST}:{port}/a.jpg", None) == IMAGE
            with pytest.raises(SourceFailed, match=r"HTTPS_PROXY is set and not used.*`sources\.proxy`") as caught:
                await fetched(f"http://{HOST}:1/a.jpg", None)
            assert "secret" not in str(caught.value)
        assert proxy.targets == []


async def on_metadata(_host: str, _port: int, _timeout_s: float) -> list[str]:
    return ["169.254.169.254"]


class TestCloudServices:
    async def test_a_call_goes_through_it_by_name(self, tmp_path: Path) -> None:
        with FakeGoogle("a-key") as service:
            async with forward_proxy(PASSWORD) as proxy:
                proxy.names["vision.invalid"] = "127.0.0.1"
                url = service.url.replace("127.0.0.1", "vision.invalid")
                named = f"http://us%20er:p%40ss%20word@127.0.0.1:{proxy.port}"
                async with started(GoogleCloudVision, tmp_path, proxy=named) as provider:
                    assert (await provider.tag(image_of(picture()), google(url, "a-key"))).suggestions
            assert proxy.targets == [url.removeprefix("http://")]
            assert len(service.calls) == 1

    async def test_without_a_way_out_no_call_is_booked_none_is_a_failure_and_the_event_waits(
        self, tmp_path: Path
    ) -> None:
        async with forward_proxy(PASSWORD) as proxy:
            instance = google("http://vision.invalid", calls_per_month=10)
            async with started(GoogleCloudVision, tmp_path, proxy=proxy.url, failures_to_open_circuit=1) as provider:
                for _ in range(3):
                    with pytest.raises(TryLater, match="asks for a user and a password") as caught:
                        await provider.tag(image_of(picture()), instance)
                    assert (caught.value.reason, caught.value.counted) == ("proxy_credentials_refused", False)
                assert await provider.calls_used("acme") == 0
                assert {state.value for state in provider.circuits().values()} == {"closed"}
        assert len(proxy.targets) == 3

    async def test_a_proxy_of_the_environment_is_not_used_and_the_error_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", "http://us%20er:secret@127.0.0.1:1")
        async with started(GoogleCloudVision, tmp_path) as provider:
            with pytest.raises(AutotagError, match=r"https_proxy is set and not used.*`cloud\.proxy`") as caught:
                await provider.tag(image_of(picture()), google("http://127.0.0.1:1", maximum_number_of_attempts=1))
        assert "secret" not in str(caught.value)


class TestTheCheck:
    async def result(self, **settings: Any) -> CheckResult:
        checks = check_service(Settings.model_validate(settings))
        return next(each for each in [result async for result in first(checks, 3)] if each.subject == "proxy")

    async def test_a_proxy_that_answers_is_named_without_its_password(self) -> None:
        async with forward_proxy(PASSWORD) as proxy:
            named = f"http://us%20er:p%40ss%20word@127.0.0.1:{proxy.port}"
            found = await self.result(sources={"proxy": named}, cloud={"proxy": named})
        assert found.status == "ok"
        assert found.message.count(f"the proxy {proxy.url}") == 2
        assert proxy.targets == ["autotag.invalid:443"]

    async def test_one_that_wants_a_password_or_is_not_there_is_a_failure(self) -> None:
        async with forward_proxy(PASSWORD) as proxy:
            found = await self.result(cloud={"proxy": proxy.url})
        assert (found.status, "asks for a user and a password" in found.message) == ("failed", True)
        found = await self.result(cloud={"proxy": "http://127.0.0.1:1"})
        assert (found.status, "cannot be reached" in found.message) == ("failed", True)

    async def test_one_of_the_environment_is_named_as_unused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "http://us%20er:secret@127.0.0.1:1")
        found = await self.result()
        assert "ALL_PROXY is set and not used" in found.message
        assert "secret" not in found.message


async def first(results: AsyncIterator[CheckResult], number: int) -> AsyncIterator[CheckResult]:
    """The first of them, so that what needs a broker is not looked at."""
    for _ in range(number):
        yield await anext(results)


@pytest.mark.parametrize(
    "url", ["proxy.example:3128", "socks5://proxy.example", "http://", "http://proxy.example/pac", "http://a:99999"]
)
@pytest.mark.parametrize("settings", [SourcesSettings, CloudCallsSettings])
def test_what_is_no_address_of_a_proxy_is_refused(settings: type[SourcesSettings], url: str) -> None:
    with pytest.raises(ValidationError, match=r"such as http://proxy\.example:3128"):
        settings.model_validate({"proxy": url})


def test_a_proxy_is_shown_without_its_password() -> None:
    proxy = Proxy.of(SecretStr("http://user:geheim@[2001:db8::1]:8080/"))
    assert str(proxy) == "the proxy http://[2001:db8::1]:8080"
    assert "geheim" not in repr(proxy)
    assert Proxy.of(SecretStr("https://proxy.example")).port == 443
