"""A real service without a token behind a real nginx: it shows nothing of assets to those whom the proxy lets in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.monitoring import fetch, http_url
from tests.support.nginx import nginx
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service

ASSET = "secret-plans.png"
PATHS = ("/", "/live", "/status.json", "/thumbnail?n=1", "/results", "/dead-letters", "/settings.json", "/tenants")
REFUSED = {
    # nginx as it comes: HTTP/1.0, and the address as Host
    "/bare/": "",
    "/usual/": "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "/quiet/": "proxy_http_version 1.1; proxy_set_header Via nginx;",
    "/standard/": 'proxy_http_version 1.1; proxy_set_header Forwarded "for=unknown";',
    "/posing/": "proxy_set_header Host localhost; proxy_set_header X-Real-IP 127.0.0.1;",
}
SHOWN_WITHOUT_ASSETS = {"/outside/": "proxy_http_version 1.1; proxy_set_header Host 192.0.2.7;"}
"""Nothing says that a proxy passes it on, but that this machine asks for another."""


@pytest.fixture(scope="module")
def service(
    broker: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    prefix = f"test-forwarded-{os.getpid()}"
    settings = {"SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent)]), "HTTP__THUMBNAILS": "true"}
    with running_service(broker, prefix, tmp_path_factory.mktemp("forwarded"), **settings) as service:
        service.ready(within_s=120)
        dms = Dms(broker, prefix)
        dms.results_of([dms.publish({"path": str(photographs["chelsea"])}, asset_id=ASSET)])
        dms.close()
        page = http_url(service)
        until(lambda: ASSET in fetch(page).body, "the page shows it, which is done after its result")
        yield service
        assert service.stop() == 0


@pytest.fixture(scope="module")
def proxied(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    direct = http_url(service)
    locations = {
        path: f"proxy_pass {direct}/; {directives}" for path, directives in (REFUSED | SHOWN_WITHOUT_ASSETS).items()
    }
    with nginx(tmp_path_factory.mktemp("nginx"), locations) as url:
        yield url


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False) as client:  # noqa: S501 - a certificate made for this test
        yield client


def test_on_the_machine_itself_the_asset_is_shown(service: RunningService) -> None:
    direct = http_url(service)
    assert ASSET in httpx.get(f"{direct}/").text
    assert ASSET in httpx.get(f"http://localhost:{urlsplit(direct).port}/").text


@pytest.mark.parametrize("location", REFUSED)
def test_what_a_proxy_passes_on_is_refused_with_what_to_set(client: httpx.Client, proxied: str, location: str) -> None:
    for path in PATHS:
        answer = client.get(f"{proxied}{location.rstrip('/')}{path}")
        assert answer.status_code == 403, path
        assert "http.token" in answer.text
        assert "secret" not in answer.text
    tried = client.post(f"{proxied}{location}try", content=b"x", headers={"X-Autotag-File": "x"})
    assert tried.status_code == 403
    # What watches it by way of the proxy goes on doing so.
    assert client.get(f"{proxied}{location}readyz").status_code == 200


@pytest.mark.parametrize("location", SHOWN_WITHOUT_ASSETS)
def test_what_seems_to_come_from_the_machine_for_another_one_shows_no_asset(
    client: httpx.Client, proxied: str, location: str
) -> None:
    for path in PATHS:
        answer = client.get(f"{proxied}{location.rstrip('/')}{path}")
        assert "secret" not in answer.text, path
        assert answer.headers.get("content-type") != "image/jpeg"
    tried = client.post(f"{proxied}{location}try", content=b"x", headers={"X-Autotag-File": "x"})
    assert tried.status_code == 403
