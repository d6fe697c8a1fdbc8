"""The dead letters, for operators: look at them, send them again, throw them away. One short connection for each.

A pass takes letters out one by one and holds those it leaves until its end, so it meets each at most once, and no more
than were there when it began. What one pass holds, another does not see. Nothing is lost when a pass is called off
half-way: RabbitMQ takes back what was not settled.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pika
from pika import spec

from worker.amqp.connection import Channel, Connection, answer, connected
from worker.amqp.delivery import ATTEMPT_HEADER, text
from worker.amqp.publisher import Publisher
from worker.amqp.republish import (
    ASSET_HEADER,
    FAILED_AT_HEADER,
    INSTANCE_HEADER,
    LANE_HEADER,
    MESSAGE_HEADER,
    REASON_HEADER,
    to_replay,
)
from worker.amqp.topology import Lane, Topology
from worker.settings import AmqpSettings

_LOOKS = 40
_BETWEEN_LOOKS_S = 0.025

Progress = Callable[[int, int], None]
"""Called with how many letters have been looked at, and how many there are."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could not be done. In a list, `body` is left out."""

    key: str
    """Its message id or, where the publisher gave none, the first 16 hexadecimal digits of its body's SHA-256."""
    lane: Lane
    reason: str
    message: str
    asset: str | None
    instance: str | None
    failed_at: str | None
    """ISO 8601, UTC."""
    attempt: int
    size_bytes: int
    properties: pika.BasicProperties = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: those that fit all that is given; at most `limit` of them, the oldest."""

    key: str | None = None
    reason: str | None = None
    asset: str | None = None
    instance: str | None = None
    lane: Lane | None = None
    limit: int | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant."""
        return all(
            wanted is None or wanted == there
            for wanted, there in (
                (self.key, letter.key),
                (self.reason, letter.reason),
                (self.asset, letter.asset),
                (self.instance, letter.instance),
                (self.lane, letter.lane),
            )
        )


class DeadLetters:
    """The queue of dead letters. Every method raises Misconfigured or BrokerUnreachable when it cannot be had."""

    def __init__(self, settings: AmqpSettings, layout: Topology) -> None:
        self._settings = settings
        self._layout = layout

    async def browse(self, selection: Selection, progress: Progress | None = None) -> list[DeadLetter]:
        """The letters meant, without their bodies, the oldest first. Changes nothing."""
        found: list[DeadLetter] = []
        async with self._pass(selection, progress) as taking:
            while (letter := await taking.next()) is not None:
                found.append(replace(letter, body=b""))
        return found

    async def show(self, key: str) -> DeadLetter | None:
        """One letter with its body, or none. Changes nothing."""
        async with self._pass(Selection(key=key, limit=1), None) as taking:
            return await taking.next()

    async def replay(self, selection: Selection, progress: Progress | None = None) -> int:
        """Send the letters meant to their lanes again, as if for the first time; returns how many.

        Each leaves the dead letters only when its new message is confirmed. Raises NotPublished when one is not; it and
        those after it stay.
        """
        replayed = 0
        async with self._pass(selection, progress) as taking:
            publisher = await Publisher.open(taking.link, self._settings.confirm_timeout_s)
            while (letter := await taking.next()) is not None:
                exchange, properties = self._layout.images_exchange, to_replay(letter.properties)
                await publisher.publish(exchange, letter.lane.value, letter.body, properties)
                taking.remove()
                replayed += 1
        return replayed

    async def purge(self, selection: Selection, progress: Progress | None = None) -> int:
        """Throw the letters meant away for good; returns how many."""
        purged = 0
        async with self._pass(selection, progress) as taking:
            while await taking.next() is not None:
                taking.remove()
                purged += 1
        return purged

    @asynccontextmanager
    async def _pass(self, selection: Selection, progress: Progress | None) -> AsyncIterator[_Pass]:
        async with connected(self._settings, "autotag-dead-letters") as link:
            one_pass = _Pass(link, await link.channel(), self._layout.dead_letters_queue, selection, progress)
            yield one_pass
            await one_pass.give_back()


class _Pass:
    """One way through the queue."""

    def __init__(
        self, link: Connection, channel: Channel, queue: str, selection: Selection, progress: Progress | None
    ) -> None:
        self.link = link
        self._channel = channel
        self._queue = queue
        self._selection = selection
        self._progress = progress
        self._there: int | None = None
        self._looked_at = 0
        self._met = 0
        self._tag = 0
        self._held = 0
        self._got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel.raw.add_callback(lambda _: answer(self._got, None), [spec.Basic.GetEmpty], one_shot=False)

    async def next(self) -> DeadLetter | None:
        """The next letter that is meant; none at the end."""
        if self._there is None:
            self._there = await self._count()
        while self._looked_at < self._there and self._met != self._selection.limit:
            got = await self._get()
            if got is None:
                break
            self._looked_at += 1
            self._held += 1
            if self._progress is not None:
                self._progress(self._looked_at, self._there)
            method, properties, body = got
            letter = _read(method.routing_key, properties, body)
            if self._selection.fits(letter):
                self._met += 1
                self._tag = method.delivery_tag
                return letter
        return None

    def remove(self) -> None:
        """Take the letter that `next` returned last out of the queue for good."""
        self._channel.raw.basic_ack(self._tag)
        self._held -= 1

    async def give_back(self) -> None:
        """Return what is held to where it was, and wait a moment for it to be there, for whoever looks next."""
        if self._held == 0:
            return
        expected = await self._count() + self._held
        self._channel.raw.basic_nack(0, multiple=True, requeue=True)
        for _ in range(_LOOKS):
            if await self._count() >= expected:
                break
            await asyncio.sleep(_BETWEEN_LOOKS_S)

    async def _count(self) -> int:
        raw, doing = self._channel.raw, f"looking at queue {self._queue}"
        frame = await self._channel.call(raw.queue_declare, queue=self._queue, passive=True, doing=doing)
        return int(frame.method.message_count)

    async def _get(self) -> tuple[Any, pika.BasicProperties, bytes] | None:
        doing = f"taking letters out of queue {self._queue}"
        if not self._channel.is_open:
            raise self._channel.refusal(doing)
        got = self._got = asyncio.get_running_loop().create_future()
        self._channel.raw.basic_get(
            self._queue, lambda _, method, properties, body: answer(got, (method, properties, body))
        )
        letter: tuple[Any, pika.BasicProperties, bytes] | None = await self._channel.wait(got, doing)
        return letter


def _read(routing_key: str, properties: pika.BasicProperties, body: bytes) -> DeadLetter:
    headers = properties.headers or {}
    # RabbitMQ sets letters aside too, after too many deliveries; then it says why, and the routing key is the lane's.
    reason = text(headers.get(REASON_HEADER)) or _reason_of_the_broker(headers)
    lane = text(headers.get(LANE_HEADER)) or routing_key
    attempt = headers.get(ATTEMPT_HEADER)
    return DeadLetter(
        key=text(properties.message_id) or hashlib.sha256(body).hexdigest()[:16],
        lane=Lane(lane) if lane in set(Lane) else Lane.LIVE,
        reason=reason,
        message=text(headers.get(MESSAGE_HEADER)) or f"set aside by RabbitMQ itself: {reason}",
        asset=text(headers.get(ASSET_HEADER)),
        instance=text(headers.get(INSTANCE_HEADER)),
        failed_at=text(headers.get(FAILED_AT_HEADER)),
        attempt=int(attempt) if isinstance(attempt, int) else 1,
        size_bytes=len(body),
        properties=properties,
        body=body,
    )


def _reason_of_the_broker(headers: Mapping[str, Any]) -> str:
    """Out of `x-death`, whose latest entry comes first (https://www.rabbitmq.com/docs/dlx#effects)."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return str(latest.get("reason", "unknown")) if isinstance(latest, dict) else "unknown"
