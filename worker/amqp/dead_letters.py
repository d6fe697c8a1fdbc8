"""Operations on the queue of dead letters: browse, show, replay, purge. Each opens a short-lived connection.

A scan gets the letters one by one without an ack and holds them to its end, so it meets each letter at most once, and
no more letters than there were at its start. Letters held by one scan are invisible to another. Nothing is lost when a
scan is aborted: RabbitMQ requeues what is not settled.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import pika
from pika import spec
from pydantic import Field, TypeAdapter, ValidationError

from worker.amqp.connection import Channel, Connection, connected, set_result
from worker.amqp.delivery import ATTEMPT_HEADER, attempt_of, text
from worker.amqp.mark import HeaderMark, own_headers, without_own
from worker.amqp.origin import ORIGIN_HEADER, Origin, carried_origin, origin_on_arrival
from worker.amqp.publisher import Publisher
from worker.amqp.republish import (
    ASSET_HEADER,
    CONNECTION_HEADER,
    FAILED_AT_HEADER,
    INSTANCE_HEADER,
    LANE_HEADER,
    LEFT_OUT_HEADER,
    MAXIMUM_MESSAGE_CHARACTERS,
    MESSAGE_HEADER,
    REASON_HEADER,
    is_probe,
    replay_properties,
)
from worker.amqp.result_topology import connect_exchange
from worker.amqp.topology import Lane, Topology
from worker.messages.fields import AssetId, InstanceName
from worker.settings import AmqpSettings

UNMARKED = "unmarked"
"""The reason of a letter whose headers are not believed, and that RabbitMQ has not set aside itself."""

_UNMARKED_MESSAGE = (
    "its headers do not carry this installation's mark and are ignored: they were written by another program, or by an "
    "Autotag of an earlier version or with another amqp.header_key or password"
)

_BROKER_MESSAGES = {
    "rejected": "set aside whole by RabbitMQ: it, or its answer, could not be published (see the worker's log)",
}

_ASSET: TypeAdapter[str] = TypeAdapter(AssetId)
_INSTANCE: TypeAdapter[str] = TypeAdapter(InstanceName)
_REASON: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")])
_CONNECTION: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")])
_TIME: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(pattern=r"^[0-9T:.+-]{1,40}$")])

MINIMUM_START_CHARACTERS = 4
"""Of a key that is given by its beginning: a shorter one, as of an empty variable, names a letter by accident."""

_REQUEUE_CHECKS = 40
_REQUEUE_CHECK_INTERVAL_S = 0.025

OnProgress = Callable[[int, int], None]
"""Called with the number of letters scanned, and the number of letters in the queue."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead-lettered event. `DeadLetters.browse` leaves `body` empty."""

    key: str
    """Its message id or, where the publisher set none, the first 16 hexadecimal digits of its body's SHA-256."""
    lane: Lane
    reason: str
    message: str
    asset: str | None
    instance: str | None
    failed_at: str | None
    """ISO 8601, UTC."""
    attempt: int
    left_out: str | None
    """What the event lacks here, since it was larger than RabbitMQ takes: size and SHA-256 of its whole body."""
    unmarked: bool
    """It has headers of ours without our mark: they are ignored, and what they say is only in `properties`."""
    origin: Origin
    """Where its event came from at its first delivery."""
    connection: str | None
    """Where the letter is a result that the target of a connection did not take: the connection."""
    size_bytes: int
    properties: pika.BasicProperties = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters an operation applies to: those that match every given field; at most `limit`, the oldest first."""

    key: str | None = None
    reason: str | None = None
    asset: str | None = None
    instance: str | None = None
    lane: Lane | None = None
    limit: int | None = None
    connection: str | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a letter is selected; `limit` is not considered."""
        return all(
            wanted is None or wanted == actual
            for wanted, actual in (
                (self.key, letter.key),
                (self.reason, letter.reason),
                (self.asset, letter.asset),
                (self.instance, letter.instance),
                (self.lane, letter.lane),
                (self.connection, letter.connection),
            )
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many letters were replayed, and the keys of those that could not be, as they lack their image."""

    number: int
    without_image: tuple[str, ...]


class DeadLetters:
    """The queue of dead letters. Every method raises Misconfigured or BrokerUnreachable when it cannot be read."""

    def __init__(self, settings: AmqpSettings, topology: Topology) -> None:
        self._settings = settings
        self._topology = topology
        self._mark = HeaderMark.of(settings)

    async def browse(self, selection: Selection, on_progress: OnProgress | None = None) -> list[DeadLetter]:
        """The selected letters, without their bodies, the oldest first. Changes nothing."""
        found: list[DeadLetter] = []
        async with self._scan(selection, on_progress) as scan:
            while (letter := await scan.next()) is not None:
                found.append(replace(letter, body=b""))
        return found

    async def meant_by(self, start: str, on_progress: OnProgress | None = None) -> list[DeadLetter]:
        """The letter with this key, or else one for each key that begins so, without bodies. Changes nothing."""
        found: dict[str, DeadLetter] = {}
        for letter in await self.browse(Selection(), on_progress):
            if letter.key == start or (len(start) >= MINIMUM_START_CHARACTERS and letter.key.startswith(start)):
                found.setdefault(letter.key, letter)
        return [found[start]] if start in found else list(found.values())

    async def show(self, key: str) -> DeadLetter | None:
        """The letter with this key, with its body, or None. Changes nothing."""
        async with self._scan(Selection(key=key, limit=1), None) as scan:
            return await scan.next()

    async def replay(self, selection: Selection, on_progress: OnProgress | None = None) -> Replayed:
        """Publish the selected letters' events to their lanes again, as if for the first time; results to their
        connection.

        A letter leaves the queue only once its new message is confirmed. Raises NotPublished when one is not; that
        letter and those after it stay. So do letters that were kept without their image.
        """
        replayed, without_image = 0, []
        async with self._scan(selection, on_progress) as scan:
            publisher = await Publisher.open(scan.connection, self._settings.confirm_timeout_s)
            while (letter := await scan.next()) is not None:
                if letter.left_out is not None:
                    without_image.append(letter.key)
                    continue
                origin = letter.origin.as_header(None)
                properties = replay_properties(letter.properties, letter.body, origin=origin, mark=self._mark)
                if letter.connection is None:
                    exchange, key = self._topology.images_exchange, letter.lane.value
                else:  # a result: to its connection alone
                    exchange, key = connect_exchange(self._topology), letter.connection
                await publisher.publish(exchange, key, letter.body, properties)
                scan.remove()
                replayed += 1
        return Replayed(replayed, tuple(without_image))

    async def purge(self, selection: Selection, on_progress: OnProgress | None = None) -> int:
        """Delete the selected letters; returns how many."""
        purged = 0
        async with self._scan(selection, on_progress) as scan:
            while await scan.next() is not None:
                scan.remove()
                purged += 1
        return purged

    @asynccontextmanager
    async def _scan(self, selection: Selection, on_progress: OnProgress | None) -> AsyncIterator[_Scan]:
        async with connected(self._settings, "autotag-dead-letters") as connection:
            channel = await connection.channel()
            queue = self._topology.dead_letters_queue
            scan = _Scan(connection, channel, queue, self._mark, selection, on_progress)
            yield scan
            await scan.requeue_held()


class _Scan:
    """One scan of the queue, from its oldest letter to its end or to the selection's limit."""

    def __init__(
        self,
        connection: Connection,
        channel: Channel,
        queue: str,
        mark: HeaderMark,
        selection: Selection,
        on_progress: OnProgress | None,
    ) -> None:
        self.connection = connection
        self._channel = channel
        self._queue = queue
        self._mark = mark
        self._selection = selection
        self._on_progress = on_progress
        self._total: int | None = None
        self._scanned = 0
        self._matched = 0
        self._delivery_tag = 0
        self._held = 0
        self._reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel.raw.add_callback(lambda _: set_result(self._reply, None), [spec.Basic.GetEmpty], one_shot=False)

    async def next(self) -> DeadLetter | None:
        """The next selected letter; None at the end."""
        if self._total is None:
            self._total = await self._count()
        while self._scanned < self._total and self._matched != self._selection.limit:
            message = await self._get()
            if message is None:
                break
            self._scanned += 1
            self._held += 1
            if self._on_progress is not None:
                self._on_progress(self._scanned, self._total)
            method, properties, body = message
            if is_probe(properties, body):
                self._delivery_tag = method.delivery_tag
                self.remove()  # a worker's, or of `autotag check`: no letter
                continue
            arrived_from = origin_on_arrival(properties, method.exchange, self.connection.broker.virtual_host)
            letter = _read(method.routing_key, properties, body, self._mark, arrived_from)
            if self._selection.matches(letter):
                self._matched += 1
                self._delivery_tag = method.delivery_tag
                return letter
        return None

    def remove(self) -> None:
        """Ack the letter that `next` returned last: RabbitMQ deletes it."""
        self._channel.raw.basic_ack(self._delivery_tag)
        self._held -= 1

    async def requeue_held(self) -> None:
        """Return the held letters to their places, and wait up to a second until the next scan can see them."""
        if self._held == 0:
            return
        expected = await self._count() + self._held
        self._channel.raw.basic_nack(0, multiple=True, requeue=True)
        for _ in range(_REQUEUE_CHECKS):
            if await self._count() >= expected:
                break
            await asyncio.sleep(_REQUEUE_CHECK_INTERVAL_S)

    async def _count(self) -> int:
        raw, action = self._channel.raw, f"looking at queue {self._queue}"
        frame = await self._channel.call(raw.queue_declare, queue=self._queue, passive=True, action=action)
        return int(frame.method.message_count)

    async def _get(self) -> tuple[Any, pika.BasicProperties, bytes] | None:
        action = f"taking letters out of queue {self._queue}"
        if not self._channel.is_open:
            raise self._channel.closed_error(action)
        reply = self._reply = asyncio.get_running_loop().create_future()
        self._channel.raw.basic_get(
            self._queue, lambda _, method, properties, body: set_result(reply, (method, properties, body))
        )
        message: tuple[Any, pika.BasicProperties, bytes] | None = await self._channel.wait(reply, action)
        return message


def _read(
    routing_key: str, properties: pika.BasicProperties, body: bytes, mark: HeaderMark, arrived_from: Origin
) -> DeadLetter:
    found = properties.headers or {}
    unmarked = any(own_headers(properties)) and not mark.is_on(properties, body)
    headers = without_own(found) if unmarked else found
    # RabbitMQ dead-letters too, after too many deliveries: the reason is in `x-death`, the lane is the routing key.
    broker_reason = _broker_reason(headers)
    if unmarked and broker_reason is None:
        reason, message = UNMARKED, _UNMARKED_MESSAGE
    else:
        reason = broker_reason or "unknown"
        message = _BROKER_MESSAGES.get(reason, f"set aside by RabbitMQ itself: {reason}")
    lane = text(headers.get(LANE_HEADER)) or routing_key
    return DeadLetter(
        key=text(properties.message_id) or hashlib.sha256(body).hexdigest()[:16],
        lane=Lane(lane) if lane in set(Lane) else Lane.LIVE,
        reason=_valid(_REASON, headers.get(REASON_HEADER)) or reason,
        message=(text(headers.get(MESSAGE_HEADER)) or message)[:MAXIMUM_MESSAGE_CHARACTERS],
        asset=_valid(_ASSET, headers.get(ASSET_HEADER)),
        instance=_valid(_INSTANCE, headers.get(INSTANCE_HEADER)),
        failed_at=_valid(_TIME, headers.get(FAILED_AT_HEADER)),
        attempt=attempt_of(headers.get(ATTEMPT_HEADER)),
        left_out=text(headers.get(LEFT_OUT_HEADER)),
        unmarked=unmarked,
        # What RabbitMQ has set aside has its publisher's user still, but came through the exchange for dead letters.
        origin=carried_origin(headers[ORIGIN_HEADER]) if ORIGIN_HEADER in headers else arrived_from,
        connection=_valid(_CONNECTION, headers.get(CONNECTION_HEADER)),
        size_bytes=len(body),
        properties=properties,
        body=body,
    )


def _broker_reason(headers: Mapping[str, Any]) -> str | None:
    """RabbitMQ's reason, from `x-death`, whose latest entry comes first (https://www.rabbitmq.com/docs/dlx#effects)."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return _valid(_REASON, latest.get("reason")) if isinstance(latest, dict) else None


def _valid(kind: TypeAdapter[str], value: object) -> str | None:
    """A header's value, if it is what we write there."""
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError:
        return None
