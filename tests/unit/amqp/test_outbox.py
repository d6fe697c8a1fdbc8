"""What the outbox holds, which message it tries again, and when it says that the way is free; on a fake session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pika
import pytest

from tests.support.polling import eventually
from worker.amqp import outbox as outbox_module
from worker.amqp.errors import NotConfirmed, PublishRefused, Unpublishable, Unroutable
from worker.amqp.outbox import BLOCKED, Message, Outbox, WayOut
from worker.amqp.session import PublishingSession
from worker.amqp.topology import topology
from worker.errors import Misconfigured

LAYOUT = topology("test", (1, 2))


class FakePublisher:
    """Takes or refuses each message as the session's `verdict` says, and records the attempts."""

    is_open = True

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self.maximum_bytes: int | None = None
        self.besides: dict[str, object] = {}

    async def publish(self, exchange: str, key: str, body: bytes, properties: Any) -> None:
        self._session.attempts.append((exchange, key, body))
        await asyncio.sleep(0)
        if (error := self._session.verdict(key, body)) is not None:
            raise error


class FakeSession:
    """A publishing session; `read` is set once RabbitMQ reads the connection."""

    def __init__(self) -> None:
        lost: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.connection = SimpleNamespace(lost=lost, blocked=None)
        self.attempts: list[tuple[str, str, bytes]] = []
        self.verdict: Callable[[str, bytes], Exception | None] = lambda _key, _body: None
        self.refusal: Misconfigured | None = None
        self.topology_fault: Misconfigured | None = None
        self.read = asyncio.Event()
        self.read.set()

    async def is_read(self) -> bool:
        await self.read.wait()
        return not self.connection.lost.done()

    async def open_way(self, _name: str, _part: object) -> FakePublisher:
        if self.topology_fault is not None:
            raise self.topology_fault
        return FakePublisher(self)

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.attempts]


class Setup:
    """An outbox on a session, and tasks that publish."""

    def __init__(self) -> None:
        self.outbox = Outbox(LAYOUT, lambda: None, lambda key: message(b"probe", key))
        self.session = FakeSession()
        self.connect(self.session)

    def connect(self, session: FakeSession) -> None:
        self.session = session
        self.outbox.on_session(cast("PublishingSession", session))

    async def open(self) -> None:
        await eventually(lambda: self.outbox.open, "every way is free")

    def publish(self, body: bytes, key: str = "acme.tagged", way: WayOut = WayOut.RESULTS) -> asyncio.Task[None]:
        late = way is WayOut.RESULTS and not key.endswith(".failed")
        return asyncio.create_task(self.outbox.publish(way, message(body, key, late=late)))

    async def shut(self, way: WayOut = WayOut.RESULTS) -> None:
        await eventually(lambda: way.pause in self.outbox.pauses, "the way is shut")


def message(body: bytes, key: str = "acme.tagged", *, late: bool = False) -> Message:
    return Message(key, body, pika.BasicProperties(), publishable_late=late)


def refused(_key: str, _body: bytes) -> Exception:
    return PublishRefused("a queue is full")


@pytest.fixture
async def it(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    monkeypatch.setattr(outbox_module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outbox_module, "_LONGEST_PAUSE_S", 0.02)
    setup = Setup()
    yield setup
    await setup.outbox.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_a_way_that_is_free_takes_every_message_at_once(it: Setup) -> None:
    await it.open()
    await asyncio.gather(*(it.publish(b"%d" % number) for number in range(5)))
    assert len(it.session.attempts) == 5
    assert it.outbox.pauses == {}


async def test_one_message_is_tried_again_and_the_others_wait_for_it(it: Setup) -> None:
    await it.open()
    it.session.verdict = refused
    first = it.publish(b"first")
    await it.shut()
    others = [it.publish(b"%d" % number) for number in range(5)]
    await eventually(lambda: it.session.bodies.count(b"first") > 3, "it is tried again")
    assert set(it.session.bodies) == {b"first"}
    assert not it.outbox.open
    it.session.verdict = lambda _key, _body: None
    await asyncio.wait_for(asyncio.gather(first, *others), 5)
    assert it.outbox.open
    assert it.outbox.pauses == {}
    assert it.outbox.held == 0


async def test_a_way_that_is_shut_leaves_the_others_free_but_the_whole_is_not_open(it: Setup) -> None:
    await it.open()
    it.session.verdict = lambda key, _body: PublishRefused("full") if key == "live.1s" else None
    retry = it.publish(b"event", "live.1s", WayOut.RETRIES)
    await it.shut(WayOut.RETRIES)
    await asyncio.wait_for(it.publish(b"result"), 5)
    assert not it.outbox.open
    assert "full" in it.outbox.pauses["retries_cannot_be_published"].message
    retry.cancel()


async def test_a_result_whose_caller_is_gone_stays_the_probe_and_a_retry_does_not(it: Setup) -> None:
    await it.open()
    it.session.verdict = refused
    result, retry = it.publish(b"result"), it.publish(b"event", "live.1s", WayOut.RETRIES)
    await it.shut()
    await it.shut(WayOut.RETRIES)
    for task in (result, retry):
        task.cancel()
    await asyncio.gather(result, retry, return_exceptions=True)
    it.session.attempts.clear()
    await eventually(lambda: {b"result", b"probe"} <= set(it.session.bodies), "both ways are probed")
    assert b"event" not in it.session.bodies
    it.session.verdict = lambda _key, _body: None
    await it.open()


async def test_a_way_is_not_free_for_that_a_caller_is_called_off_just_before_its_message_is_tried(it: Setup) -> None:
    it.session.verdict = refused
    caller = it.publish(b"a")
    await it.shut()
    opened = it.session.open_way

    async def called_off_meanwhile(name: str, part: object) -> FakePublisher:
        caller.cancel()
        return await opened(name, part)

    it.session.open_way = called_off_meanwhile  # type: ignore[method-assign, assignment]
    tried = len(it.session.attempts)
    await eventually(lambda: caller.cancelled() and len(it.session.attempts) > tried + 2, "it is tried again")
    assert WayOut.RESULTS.pause in it.outbox.pauses


async def test_the_last_message_that_is_given_up_need_not_be_the_one_that_stays_the_probe(it: Setup) -> None:
    await it.open()
    it.session.verdict = refused
    results = [it.publish(b"tagged"), it.publish(b"failed", "acme.failed")]
    await eventually(lambda: it.outbox.held == 2, "both are held")
    for task in results:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    it.session.attempts.clear()
    await eventually(lambda: it.session.bodies.count(b"tagged") > 3, "it is tried again")
    assert b"failed" not in it.session.bodies
    assert not it.outbox.open


async def test_dead_letters_are_free_again_only_once_one_or_a_probe_was_confirmed(it: Setup) -> None:
    await it.open()
    it.session.verdict = lambda key, _body: PublishRefused("full") if key == "live" else None
    letter = it.publish(b"letter", "live", WayOut.DEAD_LETTERS)
    await it.shut(WayOut.DEAD_LETTERS)
    letter.cancel()
    await asyncio.gather(letter, return_exceptions=True)
    it.session.attempts.clear()
    await eventually(lambda: it.session.bodies.count(b"probe") > 3, "it is probed")
    assert not it.outbox.open
    assert b"letter" not in it.session.bodies
    it.session.verdict = lambda _key, _body: None
    await it.open()


async def test_while_blocked_nothing_is_sent_and_all_go_on_when_it_ends(it: Setup) -> None:
    await it.open()
    it.outbox.on_blocked("low on memory")
    tasks = [it.publish(b"%d" % number) for number in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert it.session.attempts == []
    assert "low on memory" in it.outbox.pauses[BLOCKED].message
    it.outbox.on_blocked(None)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert it.outbox.open


async def test_a_block_outlasts_its_connection_until_the_next_one_is_known_to_be_read(it: Setup) -> None:
    await it.open()
    it.outbox.on_blocked("low on memory")
    since_s = it.outbox.pauses[BLOCKED].since_s
    it.session.connection.lost.set_result(None)
    it.outbox.on_session(None)
    fresh = FakeSession()
    fresh.read.clear()
    it.connect(fresh)
    it.outbox.on_blocked(None)  # not blocked yet, as far as RabbitMQ says
    assert it.outbox.pauses[BLOCKED].since_s == since_s
    assert not it.outbox.open
    fresh.read.set()
    await it.open()
    assert it.outbox.pauses == {}


async def test_after_a_new_connection_what_is_held_is_tried_at_once(it: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(outbox_module, "_LONGEST_PAUSE_S", 3600.0)
    await it.open()
    it.session.verdict = lambda _key, _body: NotConfirmed("lost")
    held = it.publish(b"held")
    await eventually(lambda: it.outbox.held == 1, "it is held")
    it.outbox.on_session(None)
    it.connect(FakeSession())
    await asyncio.wait_for(held, 5)


async def test_a_key_that_never_had_a_queue_fails_alone_and_one_that_had_shuts_the_way(it: Setup) -> None:
    await it.open()
    await it.publish(b"1", "acme.tagged")
    it.session.verdict = lambda key, _body: Unroutable("no queue") if key == "other.tagged" else None
    with pytest.raises(Unroutable):
        await asyncio.wait_for(it.publish(b"2", "other.tagged"), 5)
    assert it.outbox.open
    it.session.verdict = lambda _key, _body: Unroutable("no queue")
    held = it.publish(b"3", "acme.tagged")
    await it.shut()
    held.cancel()


async def test_a_tenants_binding_that_is_removed_stops_nobody_else_and_a_way_that_is_broken_is_found(it: Setup) -> None:
    await it.open()
    for key in ("acme.tagged", "other.tagged", "third.tagged"):
        await it.publish(b"1", key)
    it.session.verdict = lambda key, _body: Unroutable("no queue") if key == "acme.tagged" else None
    for _ in range(2):
        with pytest.raises(Unroutable):
            await asyncio.wait_for(it.publish(b"2", "acme.tagged"), 5)
    assert it.outbox.open
    it.session.verdict = lambda _key, _body: Unroutable("no queue")
    with pytest.raises(Unroutable):
        await asyncio.wait_for(it.publish(b"3", "other.tagged"), 5)
    held = it.publish(b"4", "third.tagged")
    await it.shut()
    held.cancel()


async def test_a_key_that_had_a_queue_is_not_alone_at_fault_where_the_others_were_confirmed_before_it(
    it: Setup,
) -> None:
    await it.open()
    await it.publish(b"1", "other.tagged")
    await it.publish(b"2", "acme.tagged")
    it.session.verdict = lambda _key, _body: Unroutable("no queue")
    held = it.publish(b"3", "acme.tagged")
    await it.shut()
    held.cancel()


async def test_a_message_that_is_too_large_is_its_callers_and_the_next_probe_goes_on(it: Setup) -> None:
    await it.open()
    it.session.verdict = refused
    large = it.publish(b"large")
    await it.shut()
    small = it.publish(b"small")
    it.session.verdict = lambda _key, body: (
        Unpublishable("too large", reason="message_too_large") if body == b"large" else None
    )
    with pytest.raises(Unpublishable):
        await asyncio.wait_for(large, 5)
    await asyncio.wait_for(small, 5)
    await it.open()


async def test_what_is_missing_on_the_broker_shuts_a_way_before_anything_is_published(it: Setup) -> None:
    fresh = FakeSession()
    fresh.topology_fault = Misconfigured("no queue test.results")
    it.connect(fresh)
    await it.shut()
    assert "no queue test.results" in it.outbox.pauses["results_cannot_be_published"].message
    fresh.topology_fault = None
    await it.open()


async def test_a_worker_that_may_not_publish_is_shut_before_it_has_published_anything(it: Setup) -> None:
    fresh = FakeSession()
    fresh.refusal = Misconfigured("no right", reason="permission_refused")
    fresh.verdict = lambda key, _body: NotConfirmed("no right") if key == "live.1s" else None
    it.connect(fresh)
    await eventually(lambda: fresh.bodies.count(b"probe") > 3, "it is probed", within_s=10)
    assert not it.outbox.open
    assert set(it.outbox.pauses) == {"retries_cannot_be_published"}
    fresh.verdict = lambda _key, _body: None
    await it.open()
    assert it.outbox.pauses == {}


async def test_a_refused_probe_in_an_alarm_does_not_end_the_block(it: Setup) -> None:
    it.outbox.on_session(None)
    fresh = FakeSession()
    fresh.connection.blocked = "low on memory"  # refused for want of a right, and blocked by the same message
    it.connect(fresh)
    it.outbox.on_blocked("low on memory")
    for _ in range(20):
        await asyncio.sleep(0)
    assert not it.outbox.open
    it.outbox.on_blocked(None)
    await it.open()
