"""Confirms, returns and silence, as the publisher reads them, on a channel that is a stand-in."""

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
    """A channel that notes what is published and says nothing until told to."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.is_open = True
        self.sent: list[tuple[str, str]] = []
        self.raw = self
        self.silent_s = 0.0
        self.link = SimpleNamespace(silent_for_s=lambda _: self.silent_s, broker="a broker")

    def add_on_return_callback(self, callback: Any) -> None:
        self.on_return = callback

    def basic_publish(self, exchange: str, key: str, body: bytes, properties: Any, *, mandatory: bool) -> None:
        assert mandatory
        self.sent.append((exchange, key))

    async def end(self, error: BaseException) -> None:
        self.is_open = False
        self.closed.set_result(error)
        await asyncio.sleep(0)


class Bench:
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

    def give_back(self, message_id: str) -> None:
        method = spec.Basic.Return(312, "NO_ROUTE", "exchange", "key")
        self.channel.on_return(self.channel, method, pika.BasicProperties(message_id=message_id), b"")

    async def outcomes(self) -> list[type[BaseException] | None]:
        """Of the messages answered so far: what was raised, or None; those in flight are left out."""
        for _ in range(3):
            await asyncio.sleep(0)
        answered = [task for task in self.sent if task.done()]
        return [None if (error := task.exception()) is None else type(error) for task in answered]


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_one_confirm_may_stand_for_all_before_it() -> None:
    bench = Bench(5)
    await asyncio.sleep(0)
    bench.ack(2)
    bench.ack(4, multiple=True)
    assert await bench.outcomes() == [None] * 4
    assert bench.publisher.in_flight == 1
    bench.ack(5, multiple=True)
    assert bench.publisher.in_flight == 0


async def test_confirms_may_come_in_any_order() -> None:
    bench = Bench(3)
    await asyncio.sleep(0)
    bench.ack(3)
    bench.ack(1)
    assert [task.done() for task in bench.sent] == [False] * 3
    await bench.outcomes()
    assert [task.done() for task in bench.sent] == [True, False, True]
    bench.nack(2)
    assert await bench.outcomes() == [None, PublishRefused, None]


async def test_one_refusal_may_stand_for_all_before_it() -> None:
    bench = Bench(3)
    await asyncio.sleep(0)
    bench.ack(1)
    bench.nack(3, multiple=True)
    assert await bench.outcomes() == [None, PublishRefused, PublishRefused]


async def test_only_the_message_that_came_back_is_unroutable() -> None:
    bench = Bench(3)
    await asyncio.sleep(0)
    bench.give_back("2")
    bench.ack(3, multiple=True)
    assert await bench.outcomes() == [None, Unroutable, None]


async def test_of_two_equal_messages_both_come_back() -> None:
    bench = Bench()
    bench.sent = [bench.send("same"), bench.send("same")]
    await asyncio.sleep(0)
    bench.give_back("same")
    bench.give_back("same")
    bench.ack(2, multiple=True)
    assert await bench.outcomes() == [Unroutable, Unroutable]


async def test_what_is_in_flight_when_the_channel_ends_is_not_confirmed() -> None:
    bench = Bench(3)
    await asyncio.sleep(0)
    bench.ack(1)
    await bench.channel.end(exceptions.StreamLostError("gone"))
    assert await bench.outcomes() == [None, NotConfirmed, NotConfirmed]
    bench.sent.append(bench.send("too late"))
    assert (await bench.outcomes())[-1] is NotConfirmed


async def test_a_caller_that_gave_up_takes_nobody_with_it() -> None:
    bench = Bench(3)
    await asyncio.sleep(0)
    bench.sent[0].cancel()
    await asyncio.sleep(0)
    bench.ack(3, multiple=True)
    await asyncio.sleep(0)
    assert bench.sent[0].cancelled()
    assert [task.exception() for task in bench.sent[1:]] == [None, None]


async def test_a_confirm_that_comes_too_late_is_nobodys() -> None:
    bench = Bench(2)
    await asyncio.sleep(0)
    bench.channel.silent_s = 4
    bench.publisher._look_for_the_forgotten()
    assert await bench.outcomes() == []
    bench.channel.silent_s = 6
    bench.publisher._look_for_the_forgotten()
    assert await bench.outcomes() == [NotConfirmed, NotConfirmed]
    bench.ack(2, multiple=True)
    bench.sent.append(bench.send("3"))
    await asyncio.sleep(0)
    bench.ack(3)
    assert (await bench.outcomes())[-1] is None


@pytest.mark.parametrize(
    "text",
    [
        "PRECONDITION_FAILED - message size 101 is larger than max size 100",
        "PRECONDITION_FAILED - message size 101 is larger than configured max size 100",
    ],
)
async def test_only_the_message_that_was_too_large_is_told_so(text: str) -> None:
    bench = Bench()
    bench.sent = [bench.send("small"), bench.send("large", b"x" * 101), bench.send("other")]
    await asyncio.sleep(0)
    await bench.channel.end(exceptions.ChannelClosedByBroker(406, text))
    assert await bench.outcomes() == [NotConfirmed, Unpublishable, NotConfirmed]
    assert bench.publisher.maximum_bytes == 100


@given(data=st.data())
def test_every_message_gets_the_answer_meant_for_it(data: st.DataObject) -> None:
    """Random answers, single and for many, against the plain rule: the first answer that covers a number is its own."""
    count = data.draw(st.integers(1, 12))
    answers = data.draw(st.lists(st.tuples(st.integers(1, count), st.booleans(), st.booleans()), max_size=12))
    expected: dict[int, bool] = {}
    for number, multiple, refused in answers:
        for each in range(1, number + 1) if multiple else (number,):
            expected.setdefault(each, refused)

    async def play() -> dict[int, bool]:
        bench = Bench(count)
        await asyncio.sleep(0)
        for number, multiple, refused in answers:
            (bench.nack if refused else bench.ack)(number, multiple=multiple)
        await bench.outcomes()
        got = {n: task.exception() is not None for n, task in enumerate(bench.sent, 1) if task.done()}
        for task in bench.sent:
            task.cancel()
        await asyncio.gather(*bench.sent, return_exceptions=True)
        return got

    assert asyncio.run(play()) == expected
