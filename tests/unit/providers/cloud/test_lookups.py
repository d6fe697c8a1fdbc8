"""Names of endpoints are looked up in threads: that all of them are taken is no failure of the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.support.polling import eventually
from worker.providers.cloud.errors import CallNotMade
from worker.providers.cloud.http_client import _patient_resolver
from worker.sources.blocking import BlockingCalls


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name server that answers once the event is set."""
    answers = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        answers.wait(20)
        return [(2, 1, 6, "", ("93.184.216.34", 443))]

    monkeypatch.setattr("worker.sources.network.socket.getaddrinfo", getaddrinfo)
    yield answers
    answers.set()


async def test_a_lookup_waits_for_its_hosts_share_of_the_threads(name_server: threading.Event) -> None:
    calls = BlockingCalls(4)
    resolve = _patient_resolver(calls)
    # Given more lookups of one name than it may have threads, and another name that is known
    lookups = [asyncio.ensure_future(resolve(host, 443, 20)) for host in ["other.example"] + ["vision.example"] * 8]
    await eventually(lambda: calls.is_full_for("vision.example"), "its share is taken")
    await asyncio.sleep(0)
    assert not any(lookup.done() for lookup in lookups)
    name_server.set()
    assert await asyncio.gather(*lookups) == [["93.184.216.34"]] * 9


@pytest.mark.usefixtures("name_server")
async def test_one_that_found_no_thread_in_time_is_a_call_that_was_not_made() -> None:
    resolve = _patient_resolver(BlockingCalls(2))
    lookups = [asyncio.ensure_future(resolve("vision.example", 443, 0.6)) for _ in range(4)]
    outcomes = await asyncio.gather(*lookups, return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == [CallNotMade.__name__] * 2 + ["TimeoutError"] * 2
