"""The client of a chaos run goes on whatever a broker answers that is being killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pika
import pytest

from worker.amqp.errors import BrokerUnreachable
from worker.amqp.mark import HeaderMark
from worker.amqp.republish import probe_properties
from worker.amqp.topology import topology
from worker.diagnostics.chaos import client as client_module
from worker.diagnostics.chaos.client import ChaosClient
from worker.diagnostics.chaos.ledger import Ledger
from worker.errors import AutotagError, Misconfigured
from worker.settings import AmqpSettings


def test_a_probe_that_it_gets_from_the_dead_letters_is_no_letter() -> None:
    ledger = Ledger([])
    client = ChaosClient(AmqpSettings(), topology("p", (1,)), [], ledger)
    client._on_dead_letter(probe_properties(HeaderMark(b"k" * 32)), b"")
    assert (ledger.dead_letters, ledger.strangers) == (0, [])
    client._on_dead_letter(pika.BasicProperties(message_id="of-nobody", headers={}), b"{}")
    assert (ledger.dead_letters, ledger.strangers) == (1, ["of-nobody"])


async def test_it_connects_again_after_a_refusal_that_looks_like_an_operators_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a broker that is gone, then does not speak AMQP yet, then lacks the queues that it has not loaded
    refusals: list[AutotagError] = [
        BrokerUnreachable("nothing listens there"),
        Misconfigured("what listens there does not speak AMQP", reason="not_amqp"),
        Misconfigured("no queue", reason="topology_missing"),
    ]
    connected_again = asyncio.Event()

    @asynccontextmanager
    async def connected(*_: Any) -> AsyncIterator[None]:
        if refusals:
            raise refusals.pop(0)
        connected_again.set()
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(client_module, "connected", connected)
    monkeypatch.setattr(client_module, "_RECONNECT_PAUSE_S", 0)
    running = asyncio.create_task(ChaosClient(AmqpSettings(), topology("p", (1,)), [], Ledger([])).run())
    # When it runs, then it gets through
    try:
        await asyncio.wait_for(connected_again.wait(), 10)
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
