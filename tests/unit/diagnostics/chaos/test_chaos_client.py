"""The client of a chaos run goes on whatever a broker that is killed looks like from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.polling import eventually
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.topology import topology
from worker.diagnostics.chaos import client as module
from worker.diagnostics.chaos.client import ChaosClient
from worker.diagnostics.chaos.ledger import Ledger
from worker.errors import AutotagError, Misconfigured
from worker.settings import AmqpSettings

ENDS = [BrokerUnreachable("killed"), Misconfigured("does not speak AMQP: killed before its first frame")]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
async def test_it_connects_again(end: AutotagError, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    @asynccontextmanager
    async def refused(*arguments: Any) -> AsyncIterator[None]:
        attempts.append(arguments)
        raise end
        yield

    monkeypatch.setattr(module, "connected", refused)
    monkeypatch.setattr(module, "_RECONNECT_PAUSE_S", 0.0)
    client = asyncio.create_task(ChaosClient(AmqpSettings(), topology("chaos", (1,)), [], Ledger([])).run())
    await eventually(lambda: len(attempts) > 1, "another attempt")
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
