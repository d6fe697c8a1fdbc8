"""Certificates that are not trusted: the error names what is wrong and what to do, a peer's or our own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr
from structlog.testing import capture_logs

from worker.diagnostics.preflight import CheckResult, check_service
from worker.errors import AutotagError, Misconfigured
from worker.models import download
from worker.operations.certificates import own_trouble
from worker.providers.cloud.budget import unusable
from worker.providers.cloud.errors import ServiceFailed
from worker.providers.cloud.http_client import HttpClient, KeyHeader
from worker.settings import CloudCallsSettings, Settings, SourcesSettings
from worker.sources import proxy as proxy_module
from worker.sources.breaker import SourceFailed
from worker.sources.url import UrlFetcher

NOW = datetime.now(UTC)
EXPIRED: dict[str, Any] = {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=2)}
NOT_YET: dict[str, Any] = {"not_before": NOW + timedelta(days=2), "not_after": NOW + timedelta(days=9)}
WRONG = [
    ("localhost", EXPIRED, True, "expired; renew the certificate, or set this machine's clock right"),
    ("localhost", NOT_YET, True, "not yet valid; it holds from a later time on: set this machine's clock"),
    ("other.example", {}, True, "must use a host name that the certificate names"),
    ("localhost", {}, False, "must hold the authority that signed it"),
]


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(name: str, times: dict[str, Any]) -> Iterator[tuple[str, trustme.CA]]:
    """The address of an HTTPS server with a certificate, and the authority that made it."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **times).configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"https://localhost:{server.server_address[1]}", authority
        finally:
            server.shutdown()
            thread.join()


async def on_loopback(_host: str, _port: int, _timeout_s: float) -> list[str]:
    return ["127.0.0.1"]


def trusting(authority: trustme.CA | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority is not None:
        authority.configure_trust(context)
    return context


@pytest.mark.parametrize(("name", "times", "known", "advice"), WRONG)
class TestAPeers:
    async def test_an_image_host(self, name: str, times: dict[str, Any], known: bool, advice: str) -> None:
        settings = SourcesSettings(url_allowed_hosts=("localhost:*",), url_allow_private_addresses=True, retries=0)
        with served(name, times) as (url, authority):
            fetcher = UrlFetcher(on_loopback, tls=trusting(authority if known else None))
            with pytest.raises(SourceFailed, match="its certificate is not trusted") as caught:
                await fetcher.open_url(f"{url}/a.jpg", settings)
        assert advice in str(caught.value)

    async def test_a_cloud_service(
        self, name: str, times: dict[str, Any], known: bool, advice: str, tmp_path: Path
    ) -> None:
        with served(name, times) as (url, authority):
            file = tmp_path / "authority.pem"
            authority.cert_pem.write_to_path(str(file))
            settings = CloudCallsSettings(allow_private_endpoints=True, ca_file=file if known else None)
            client = HttpClient("A service", settings)
            key = KeyHeader("x-key", SecretStr("secret"))
            with pytest.raises(ServiceFailed, match="its certificate is not trusted") as caught:
                await client.post(url, key, b"", content_type="text/plain", timeout_s=5)
            await client.close()
        assert advice in str(caught.value)
        assert known or "`cloud.ca_file`" in str(caught.value)

    async def test_a_proxy(
        self, name: str, times: dict[str, Any], known: bool, advice: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with served(name, times) as (url, authority):
            monkeypatch.setattr(proxy_module, "_tls", lambda: trusting(authority if known else None))
            with pytest.raises(AutotagError, match="its certificate is not trusted") as caught:
                await proxy_module.Proxy.of(SecretStr(url)).check(5)
        assert advice in str(caught.value)

    def test_a_server_with_models(
        self,
        name: str,
        times: dict[str, Any],
        known: bool,
        advice: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(download, "PAUSES_S", (0,))
        with served(name, times) as (url, authority):
            file = tmp_path / "authority.pem"
            authority.cert_pem.write_to_path(str(file))
            if known:
                monkeypatch.setenv("SSL_CERT_FILE", str(file))
            with pytest.raises(Misconfigured, match="its certificate is not trusted") as caught:
                download.fetch(f"{url}/model.zip", tmp_path / "model.zip", lambda _progress: None)
        assert advice in str(caught.value)


def test_a_redis_server_whose_library_has_words_of_its_own() -> None:
    error = ConnectionError("Error 1 connecting")
    error.__context__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.__context__.verify_code, error.__context__.verify_message = 10, "certificate has expired"
    with capture_logs() as logs:
        assert unusable("Redis", error).reason == "budget_unusable"
    assert "certificate has expired; renew the certificate" in logs[0]["error"]


class TestOurOwn:
    def written(self, tmp_path: Path, times: dict[str, Any]) -> tuple[Path, Path]:
        made = trustme.CA().issue_cert("autotag.example", **times)
        certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        certificate.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key

    @pytest.mark.parametrize(
        ("times", "trouble"), [({}, None), (EXPIRED, "certificate has expired"), (NOT_YET, "not yet valid")]
    )
    def test_only_its_time_is_looked_at(self, tmp_path: Path, times: dict[str, Any], trouble: str | None) -> None:
        found = own_trouble(*self.written(tmp_path, times))
        assert (found is None) if trouble is None else (found is not None and trouble in found)

    async def test_the_check_warns_of_it(self, tmp_path: Path) -> None:
        certificate, key = self.written(tmp_path, EXPIRED)
        http = {"certificate_file": str(certificate), "key_file": str(key)}
        result = await self.http_check(http)
        assert (result.status, "certificate has expired" in result.message) == ("warning", True)
        assert (await self.http_check(http | {"key_file": str(certificate)})).status == "failed"

    async def http_check(self, http: dict[str, str]) -> CheckResult:
        async for result in check_service(Settings.model_validate({"http": http})):
            if result.subject == "http":
                return result
        raise AssertionError("nothing was said of it")
