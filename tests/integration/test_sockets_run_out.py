"""No descriptor is left for a connection: to an image host, to a name server, to a cloud service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tests.support.processes import all_descriptors_taken
from worker.errors import ResourceExhausted
from worker.providers.cloud.http_client import HttpClient, KeyHeader
from worker.settings import CloudCallsSettings, SourcesSettings
from worker.sources.blocking import BlockingCalls
from worker.sources.network import CheckedNetwork, system_resolver
from worker.sources.url import UrlFetcher

SETTINGS = SourcesSettings(url_allowed_hosts=("127.0.0.1:*",), url_allow_private_addresses=True)


async def one_address(_host: str, _port: int, _timeout_s: float) -> list[str]:
    return ["127.0.0.1"]


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"http://{host}:{port}/a.jpg"
    server.close()


async def test_an_image_that_could_not_be_fetched_for_that_is_not_called_unreachable(address: str) -> None:
    fetcher = UrlFetcher(one_address)
    assert fetcher.tls  # reads the certificates, once for all fetches
    with all_descriptors_taken(), pytest.raises(ResourceExhausted, match="Too many open files"):
        await fetcher.open_url(address, SETTINGS)


async def test_a_cloud_service_that_could_not_be_called_for_that_has_not_failed(address: str) -> None:
    client = HttpClient("A service", CloudCallsSettings(allow_private_endpoints=True))
    key = KeyHeader("x-key", SecretStr("secret"))
    with all_descriptors_taken(), pytest.raises(ResourceExhausted, match="Too many open files"):
        await client.post(address, key, b"", content_type="text/plain", timeout_s=5)
    await client.close()


async def test_a_name_that_could_not_be_looked_up_for_that_is_not_unknown() -> None:
    network = CheckedNetwork(system_resolver(BlockingCalls(1)), allow_private=True)
    with all_descriptors_taken(freed_too=True), pytest.raises(ResourceExhausted, match="Too many open files"):
        await network.connect_tcp("no-such-host.invalid", 80, 5.0)
