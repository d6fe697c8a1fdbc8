"""How the publisher handles confirms, returns and missing confirms, on a fake channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions, spec

from worker.amqp.errors import NotConfirmed, PublishRefused, Unpublishable, Unroutable
from worker.amqp.publisher import Publisher


class FakeChannel:
    """A channel that records what is published; confirms and returns come from the test."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.is_open = True
        self.sent: list[tuple[str, str]] = []
        self.raw = self
        self.silent_s = 0.0
        self.connection = SimpleNamespace(silent_for_s=lambda _: self.silent_s, broker="a broker")

    def add_on_return_callback(self, callback: Any) -> None:
        self.on_return = callback

    def basic_publish(self, exchange: str, key: str, body: bytes, properties: Any, *, mandatory: bool) -> None:
        assert mandatory
        self.sent.append((exchange, key))

    async def end(self, error: BaseException) -> None:
        self.is_open = False
        self.closed.set_result(error)
        await asyncio.sleep(0)


class Setup:
    """A publisher on a fake channel, with `count` messages in flight; message ids are their numbers."""

    def __init__(self, count: int = 0) -> None:
        self.channel = FakeChannel()
        self.publisher = Publisher(self.channel, confirm_timeout_s=5)  # type: ignore[arg-type]
        self.sent = [self.send(str(number)) for number in range(1, count + 1)]

    def send(self, message_id: str, body: bytes = b"body") -> asyncio.Task[None]:
        properties = pika.BasicProperties(message_id=message_id)
        return asyncio.ensure_future(self.publisher.publish("exchange", "key", body, properties))

    def ack(self, number: int, *, multiple: bool = False) -> None:
        self.publisher._on_confirm(SimpleNamespace(method=spec.Basic.Ack(number, multiple)))

    def nack(self, number: int, *, multiple: bool = False) -> None:
        self.publisher._on_confirm(SimpleNamespace(method=spec.Basic.Nack(number, multiple)))

    def return_unroutable(self, message_id: str) -> None:
        method = spec.Basic.Return(312, "NO_ROUTE", "exchange", "key")
        self.channel.on_return(self.channel, method, pika.BasicProperties(message_id=message_id), b"")

    async def outcomes(self) -> list[type[BaseException] | None]:
        """For each message that is no longer in flight: the class of the error raised, or None."""
        for _ in range(3):
            await asyncio.sleep(0)
        settled = [task for task in self.sent if task.done()]
        return [None if (error := task.exception()) is None else type(error) for task in settled]


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_one_confirm_may_stand_for_all_before_it() -> None:
    setup = Setup(5)
    await asyncio.sleep(0)
    setup.ack(2)
    setup.ack(4, multiple=True)
    assert await setup.outcomes() == [None] * 4
    assert setup.publisher.in_flight == 1
    setup.ack(5, multiple=True)
    assert setup.publisher.in_flight == 0


async def test_confirms_may_come_in_any_order() -> None:
    setup = Setup(3)
    await asyncio.sleep(0)
    setup.ack(3)
    setup.ack(1)
    assert [task.done() for task in setup.sent] == [False] * 3
    await setup.outcomes()
    assert [task.done() for task in setup.sent] == [True, False, True]
    setup.nack(2)
    assert await setup.outcomes() == [None, PublishRefused, None]


async def test_one_refusal_may_stand_for_all_before_it() -> None:
    setup = Setup(3)
    await asyncio.sleep(0)
    setup.ack(1)
    setup.nack(3, multiple=True)
    assert await setup.outcomes() == [None, PublishRefused, PublishRefused]


async def test_only_the_message_that_came_back_is_unroutable() -> None:
    setup = Setup(3)
    await asyncio.sleep(0)
    setup.return_unroutable("2")
    setup.ack(3, multiple=True)
    assert await setup.outcomes() == [None, Unroutable, None]


async def test_of_two_equal_messages_both_come_back() -> None:
    setup = Setup()
    setup.sent = [setup.send("same"), setup.send("same")]
    await asyncio.sleep(0)
    setup.return_unroutable("same")
    setup.return_unroutable("same")
    setup.ack(2, multiple=True)
    assert await setup.outcomes() == [Unroutable, Unroutable]


async def test_what_is_in_flight_when_the_channel_ends_is_not_confirmed() -> None:
    setup = Setup(3)
    await asyncio.sleep(0)
    setup.ack(1)
    await setup.channel.end(exceptions.StreamLostError("gone"))
    assert await setup.outcomes() == [None, NotConfirmed, NotConfirmed]
    setup.sent.append(setup.send("too late"))
    assert (await setup.outcomes())[-1] is NotConfirmed


async def test_a_cancelled_caller_affects_no_other() -> None:
    setup = Setup(3)
    await asyncio.sleep(0)
    setup.sent[0].cancel()
    await asyncio.sleep(0)
    setup.ack(3, multiple=True)
    await asyncio.sleep(0)
    assert setup.sent[0].cancelled()
    assert [task.exception() for task in setup.sent[1:]] == [None, None]


async def test_a_confirm_that_comes_too_late_is_ignored() -> None:
    setup = Setup(2)
    await asyncio.sleep(0)
    setup.channel.silent_s = 4
    setup.publisher._fail_overdue()
    assert await setup.outcomes() == []
    setup.channel.silent_s = 6
    setup.publisher._fail_overdue()
    assert await setup.outcomes() == [NotConfirmed, NotConfirmed]
    setup.ack(2, multiple=True)
    setup.sent.append(setup.send("3"))
    await asyncio.sleep(0)
    setup.ack(3)
    assert (await setup.outcomes())[-1] is None


@pytest.mark.parametrize(
    "text",
    [
        "PRECONDITION_FAILED - message size 101 is larger than max size 100",
        "PRECONDITION_FAILED - message size 101 is larger than configured max size 100",
    ],
)
async def test_only_the_message_that_was_too_large_is_unpublishable(text: str) -> None:
    setup = Setup()
    setup.sent = [setup.send("small"), setup.send("large", b"x" * 101), setup.send("other")]
    await asyncio.sleep(0)
    await setup.channel.end(exceptions.ChannelClosedByBroker(406, text))
    assert await setup.outcomes() == [NotConfirmed, Unpublishable, NotConfirmed]
    assert setup.publisher.maximum_bytes == 100


@pytest.mark.parametrize(
    ("text", "size_bytes", "kinds", "limit"),
    [
        ("PRECONDITION_FAILED - message size exceeds the limit", 2 << 20, [Unpublishable, NotConfirmed], (2 << 20) - 1),
        ("PRECONDITION_FAILED - message size exceeds the limit", 1 << 20, [NotConfirmed, NotConfirmed], None),
        ("PRECONDITION_FAILED - unknown delivery tag 3", 2 << 20, [NotConfirmed, NotConfirmed], None),
    ],
)
async def test_a_refusal_for_size_without_numbers_is_the_largest_messages(
    text: str, size_bytes: int, kinds: list[type[Exception]], limit: int | None
) -> None:
    setup = Setup()
    setup.sent = [setup.send("large", bytes(size_bytes)), setup.send("other")]
    await asyncio.sleep(0)
    await setup.channel.end(exceptions.ChannelClosedByBroker(406, text))
    assert await setup.outcomes() == kinds
    assert setup.publisher.maximum_bytes == limit


async def test_after_ten_million_single_confirms_one_for_several_costs_only_those_in_flight() -> None:
    setup = Setup(2)
    await asyncio.sleep(0)
    number = 10_000_000
    setup.publisher._last_number = number
    setup.sent.append(setup.send("last"))
    await asyncio.sleep(0)
    setup.ack(1)
    visited = setup.publisher._in_flight_up_to(number + 1)
    assert visited == [2, number + 1]
    setup.ack(number + 1, multiple=True)
    assert await setup.outcomes() == [None] * 3


async def test_whatever_pikas_encoder_raises_makes_the_message_unpublishable(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()

    def basic_publish(*_: object, **__: object) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(setup.channel, "basic_publish", basic_publish)
    setup.sent = [setup.send("deep")]
    assert await setup.outcomes() == [Unpublishable]
    assert setup.publisher.in_flight == 0


@given(data=st.data())
def test_every_message_gets_its_own_confirm(data: st.DataObject) -> None:
    """Random confirms, single and multiple, against the rule that the first one to cover a number counts."""
    count = data.draw(st.integers(1, 12))
    confirms = data.draw(st.lists(st.tuples(st.integers(1, count), st.booleans(), st.booleans()), max_size=12))
    expected: dict[int, bool] = {}
    for number, multiple, refused in confirms:
        for each in range(1, number + 1) if multiple else (number,):
            expected.setdefault(each, refused)

    async def play() -> dict[int, bool]:
        setup = Setup(count)
        await asyncio.sleep(0)
        for number, multiple, refused in confirms:
            (setup.nack if refused else setup.ack)(number, multiple=multiple)
        await setup.outcomes()
        got = {n: task.exception() is not None for n, task in enumerate(setup.sent, 1) if task.done()}
        for task in setup.sent:
            task.cancel()
        await asyncio.gather(*setup.sent, return_exceptions=True)
        return got

    assert asyncio.run(play()) == expected
