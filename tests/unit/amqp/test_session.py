"""Lanes are consumed side by side: one that hangs leaves the other to itself; on fake channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.polling import eventually
from tests.unit.amqp.test_consumer import MARK, FakeChannel, FakeReceiver
from worker.amqp import session as session_module
from worker.amqp.mark import HeaderCheck
from worker.amqp.parameters import addresses
from worker.amqp.session import ConsumingSession
from worker.amqp.topology import Lane, topology
from worker.amqp.upkeep import Upkeep
from worker.settings import AmqpSettings


class FakeConnection:
    """A connection whose channels answer everything at once."""

    broker = "fake"

    def __init__(self) -> None:
        self.lost: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.channels: list[FakeChannel] = []

    async def channel(self) -> FakeChannel:
        self.channels.append(FakeChannel())
        return self.channels[-1]

    async def close(self) -> None:
        """Nothing is to be closed."""


class Setup:
    """A session that is kept up, with `declaring` to hold a lane up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connection = FakeConnection()
        self.receiver = FakeReceiver()
        self.declaring = {lane: asyncio.Event() for lane in Lane}
        layout = topology("test", (1,))

        async def prepare(_connection: object, _settings: object, part: Any) -> None:
            (lane,) = (each for each in Lane if part == layout.of_lane(each))
            await self.declaring[lane].wait()

        monkeypatch.setattr(session_module, "_prepare", prepare)
        settings = AmqpSettings()

        async def open_session(_address: object) -> ConsumingSession:
            return self.session

        self.upkeep: Upkeep[ConsumingSession] = Upkeep(
            "consuming", open_session, addresses(settings), reconnect_max_s=1, on_change=lambda: None
        )
        self.session = ConsumingSession(
            self.connection,  # type: ignore[arg-type]
            settings,
            layout,
            {Lane.LIVE: 4, Lane.BULK: 1},
            HeaderCheck(MARK),
            self.receiver,
            gives_back=lambda: False,
            on_change=self.upkeep.wake,
            on_reconciled=lambda: None,
        )

    def arrive(self, tag: int) -> None:
        method = SimpleNamespace(delivery_tag=tag, redelivered=False, exchange="")
        consumer = next(each for each in self.session.consumers if each.lane is Lane.LIVE)
        consumer._receive(method, SimpleNamespace(headers=None, user_id=None), b"body")


@pytest.fixture
async def it(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    setup = Setup(monkeypatch)
    yield setup
    await setup.upkeep.close()


async def test_a_lane_that_hangs_leaves_the_other_to_be_consumed_paused_and_resumed(it: Setup) -> None:
    it.declaring[Lane.LIVE].set()
    it.upkeep.start()
    await eventually(lambda: it.session.lanes == {Lane.LIVE}, "live is consumed")
    assert it.session.declared == {Lane.LIVE}
    assert it.upkeep.session is it.session
    assert not it.session.looked_at
    it.receiver.is_paused = True
    it.upkeep.wake()
    await eventually(lambda: it.session.lanes == frozenset(), "live is not consumed in the pause")
    it.receiver.is_paused = False
    it.upkeep.wake()
    await eventually(lambda: it.session.lanes == {Lane.LIVE}, "live is consumed again")
    it.declaring[Lane.BULK].set()
    await eventually(lambda: it.session.lanes == {Lane.LIVE, Lane.BULK}, "bulk is consumed")
    assert it.session.looked_at


async def test_a_change_while_a_lane_is_at_it_is_seen_to_afterwards(it: Setup) -> None:
    it.declaring[Lane.LIVE].set()
    it.upkeep.start()
    await eventually(lambda: it.session.lanes == {Lane.LIVE}, "live is consumed")
    it.receiver.is_paused = True
    it.declaring[Lane.BULK].set()
    await it.session.settle(10)
    assert it.session.lanes == frozenset()
    it.receiver.is_paused = False
    await it.session.settle(10)
    assert it.session.lanes == {Lane.LIVE, Lane.BULK}


async def test_after_a_pause_a_lane_is_consumed_at_once_with_what_is_left_of_its_prefetch_and_later_with_all(
    it: Setup,
) -> None:
    for event in it.declaring.values():
        event.set()
    it.upkeep.start()
    await eventually(lambda: it.session.looked_at, "both lanes are consumed")
    live = next(each for each in it.session.consumers if each.lane is Lane.LIVE)
    for tag in range(1, 4):
        it.arrive(tag)
    it.receiver.is_paused = True
    await it.session.settle(10)
    it.receiver.is_paused = False
    await it.session.settle(10)
    assert it.session.lanes == {Lane.LIVE, Lane.BULK}
    assert live.prefetch == 1
    it.receiver.deliveries[0].ack()
    await eventually(lambda: live.consuming and live.prefetch == 4, "it may have all")
    assert it.session.lanes == {Lane.LIVE, Lane.BULK}
    for delivery in it.receiver.deliveries[1:]:
        delivery.ack()
    await it.session.settle(10)
    prefetches = [channel.prefetches for channel in it.connection.channels]
    assert sorted(prefetches) == [[1, 1], [4, 1, 4]]
