"""A proxy that ends a consumer as RabbitMQ 4.3 does at a consumer timeout, in front of a RabbitMQ of any version.

Up to 4.2 RabbitMQ closes the channel. From 4.3 on it cancels the consumer with `basic.cancel`, returns what the
consumer held to the queue, leaves the channel open, and ignores later answers to what it has returned
(https://github.com/rabbitmq/rabbitmq-server/discussions/18207).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from pika import frame as frames
from pika import spec

from tests.support.polling import until
from tests.support.proxy import Proxy, Relay

_ANSWERS = (spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Reject)


@dataclass
class _Direction:
    """One direction of a connection: bytes that are not yet a whole frame, and the contents that are under way."""

    rest: bytes = b""
    missing_bytes: dict[int, int | None] = field(default_factory=dict)
    """By channel: how much of a message's body is still to come; None before its header."""

    def split(self, data: bytes) -> Iterator[tuple[frames.Frame | frames.ProtocolHeader, bytes]]:
        """The whole frames that these bytes complete, decoded and as they were."""
        self.rest += data
        while True:
            length, frame = frames.decode_frame(self.rest)
            if frame is None:
                return
            raw, self.rest = self.rest[:length], self.rest[length:]
            self._count(frame)
            yield frame, raw

    def _count(self, frame: frames.Frame | frames.ProtocolHeader) -> None:
        if isinstance(frame, frames.Method) and spec.has_content(frame.method.INDEX):
            self.missing_bytes[frame.channel_number] = None
        elif isinstance(frame, frames.Header):
            self._still_missing(frame.channel_number, frame.body_size)
        elif isinstance(frame, frames.Body):
            self._still_missing(
                frame.channel_number, (self.missing_bytes[frame.channel_number] or 0) - len(frame.fragment)
            )

    def _still_missing(self, channel: int, size: int) -> None:
        self.missing_bytes[channel] = size
        if size == 0:
            del self.missing_bytes[channel]


@dataclass
class _Connection:
    """What the proxy knows of one client's connection."""

    broker: _Direction = field(default_factory=_Direction)
    client: _Direction = field(default_factory=_Direction)
    consumers: dict[str, int] = field(default_factory=dict)
    """The channel of each consumer that the broker has confirmed, by consumer tag."""
    held: dict[tuple[int, int], str] = field(default_factory=dict)
    """The consumer of each delivery that is not answered, by channel and delivery tag."""
    ended: set[str] = field(default_factory=set)
    """Consumers that were timed out."""
    returned: set[tuple[int, int]] = field(default_factory=set)
    """Deliveries that were returned at a timeout."""
    dropping: set[int] = field(default_factory=set)
    """Channels on which the message under way came for a consumer that has ended."""


class ConsumerTimeoutProxy(Proxy):
    """A proxy whose `time_out` ends consumers. Its modes (slow, cut, …) are not to be mixed with that."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__(upstream_port)
        self._known: dict[Relay, _Connection] = defaultdict(_Connection)
        self.cancels: list[bytes] = []
        """Every `basic.cancel` frame that clients received: RabbitMQ's own and ours."""
        self.late_answers = 0
        """Answers to returned deliveries, which were kept from the broker, as 4.3 ignores them."""

    def time_out(self, beginning: str) -> int:
        """End the consumers whose tags begin so, and return what they hold; gives the number of deliveries returned."""
        return until(lambda: self._call(lambda: self._time_out(beginning)), f"a consumer {beginning}… can be ended")[0]

    # ── proxy thread ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _time_out(self, beginning: str) -> tuple[int] | None:
        """None while there is no such consumer, or a message under way on its channel."""
        found = [
            (relay, known, tag, channel)
            for relay, known in self._known.items()
            for tag, channel in known.consumers.items()
            if relay in self._relays and tag.startswith(beginning)
        ]
        busy = [
            channel
            for _, known, _, channel in found
            if channel in known.broker.missing_bytes or channel in known.client.missing_bytes
        ]
        if busy or not found:
            return None
        return (sum(self._end_consumer(*each) for each in found),)

    def _end_consumer(self, relay: Relay, known: _Connection, tag: str, channel: int) -> int:
        notice = frames.Method(channel, spec.Basic.Cancel(consumer_tag=tag, nowait=True)).marshal()
        del known.consumers[tag]
        known.ended.add(tag)
        relay.broker.write(notice)  # here a request, there a notification: the frame is the same
        returned = [key for key, consumer in known.held.items() if consumer == tag]
        for key in returned:
            self._return(relay, known, *key)
        relay.client.write(notice)
        self.cancels.append(notice)
        return len(returned)

    def _return(self, relay: Relay, known: _Connection, channel: int, delivery_tag: int) -> None:
        known.held.pop((channel, delivery_tag), None)
        known.returned.add((channel, delivery_tag))
        relay.broker.write(frames.Method(channel, spec.Basic.Nack(delivery_tag, requeue=True)).marshal())

    def _passed(self, relay: Relay, data: bytes, *, from_broker: bool) -> bytes:
        known = self._known[relay]
        direction = known.broker if from_broker else known.client
        wanted = self._from_broker if from_broker else self._from_client
        return b"".join(raw for frame, raw in direction.split(data) if wanted(relay, known, frame, raw))

    def _from_broker(self, relay: Relay, known: _Connection, frame: object, raw: bytes) -> bool:
        """Whether the client gets this frame."""
        if isinstance(frame, frames.Header | frames.Body):
            channel = frame.channel_number
            passes = channel not in known.dropping
            if channel not in known.broker.missing_bytes:  # the last of its message
                known.dropping.discard(channel)
            return passes
        if isinstance(frame, frames.Method):
            channel, method = frame.channel_number, frame.method
            match method:
                case spec.Basic.ConsumeOk():
                    known.consumers[method.consumer_tag] = channel
                case spec.Basic.CancelOk():
                    known.consumers.pop(method.consumer_tag, None)
                case spec.Basic.Cancel():
                    known.consumers.pop(method.consumer_tag, None)
                    self.cancels.append(raw)
                case spec.Basic.Deliver() if method.consumer_tag in known.ended:
                    self._return(relay, known, channel, method.delivery_tag)  # it was on its way already
                    known.dropping.add(channel)
                    return False
                case spec.Basic.Deliver():
                    known.held[channel, method.delivery_tag] = method.consumer_tag
        return True

    def _from_client(self, _relay: Relay, known: _Connection, frame: object, _raw: bytes) -> bool:
        """Whether the broker gets this frame."""
        if not isinstance(frame, frames.Method) or not isinstance(frame.method, _ANSWERS):
            return True
        key = (frame.channel_number, frame.method.delivery_tag)
        known.held.pop(key, None)
        self.late_answers += key in known.returned
        return key not in known.returned
