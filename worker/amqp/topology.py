"""The exchanges, queues and bindings that Autotag uses, as data: every name and every argument is decided here.

    {p}.images   direct ── live, bulk ──► {p}.images.live, {p}.images.bulk          events
    {p}.retry    direct ── live.10s … ──► {p}.images.live.retry.10s …               events that wait, then go back
    {p}.results  topic  ── # ───────────► {p}.results                               results
    {p}.dead     fanout ────────────────► {p}.dead-letters                          events that could not be done

All queues are quorum queues. What a queue gives away when a message expires, or was delivered too often, is handed on
at-least-once, which RabbitMQ does only together with `reject-publish`
(https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

DELIVERY_LIMIT = 20
"""Last net below our own count of attempts, for a message that takes the worker or its connection down each time."""

NO_DELIVERY_LIMIT = 2**31 - 1
"""RabbitMQ 4 drops a message after 20 returns unless told otherwise; `-1`, its word for "never", is refused by 3.10."""


class Lane(StrEnum):
    """The two ways for events: a user waits for `live`, nobody for `bulk`."""

    LIVE = "live"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue and its arguments."""

    name: str
    arguments: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue's place behind an exchange."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything declared on the broker. Build one with `topology`."""

    prefix: str
    delays_s: tuple[float, ...]
    exchanges: tuple[Exchange, ...] = field(repr=False)
    queues: tuple[Queue, ...] = field(repr=False)
    bindings: tuple[Binding, ...] = field(repr=False)

    @property
    def images_exchange(self) -> str:
        """Where events are published, with the lane as routing key."""
        return f"{self.prefix}.images"

    @property
    def retry_exchange(self) -> str:
        """Where events wait for another attempt; see `retry_key`."""
        return f"{self.prefix}.retry"

    @property
    def results_exchange(self) -> str:
        """Where results are published, with `<instance>.<status>` as routing key."""
        return f"{self.prefix}.results"

    @property
    def results_queue(self) -> str:
        """Where every result is kept until the DMS has taken it."""
        return f"{self.prefix}.results"

    @property
    def dead_exchange(self) -> str:
        """Where events go that could not be done, with the lane as routing key."""
        return f"{self.prefix}.dead"

    @property
    def dead_letters_queue(self) -> str:
        """Where events that could not be done are kept for people."""
        return f"{self.prefix}.dead-letters"

    def lane_queue(self, lane: Lane) -> str:
        """The queue that a lane is consumed from."""
        return f"{self.prefix}.images.{lane}"

    def retry_queue(self, lane: Lane, delay_s: float) -> str:
        """The queue in which a lane's events wait `delay_s`."""
        return f"{self.prefix}.images.{lane}.retry.{in_words(delay_s)}"

    def retry_key(self, lane: Lane, delay_s: float) -> str:
        """The routing key that leads to `retry_queue`."""
        return f"{lane}.{in_words(delay_s)}"

    def retry_delay_s(self, attempt: int, at_least_s: float = 0.0) -> float:
        """How long an event waits after its `attempt`-th attempt (from 1) failed.

        The delays are used in turn and the last one from then on; one shorter than `at_least_s` is passed over. No wait
        is longer than the longest delay.
        """
        usual_s = self.delays_s[min(attempt, len(self.delays_s)) - 1]
        long_enough = [delay_s for delay_s in self.delays_s if delay_s >= max(usual_s, at_least_s)]
        return min(long_enough, default=max(self.delays_s))


def topology(prefix: str, delays_s: Sequence[float]) -> Topology:
    """The exchanges, queues and bindings for a queue prefix and the delays of the retry lanes."""
    names = Topology(prefix, tuple(delays_s), (), (), ())
    set_aside: dict[str, str | int] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
    }
    kept: dict[str, str | int] = {"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT}
    exchanges = [
        Exchange(names.dead_exchange, "fanout"),
        Exchange(names.images_exchange, "direct"),
        Exchange(names.retry_exchange, "direct"),
        Exchange(names.results_exchange, "topic"),
    ]
    queues = [Queue(names.dead_letters_queue, kept), Queue(names.results_queue, kept)]
    bindings = [
        Binding(names.dead_exchange, names.dead_letters_queue, ""),
        Binding(names.results_exchange, names.results_queue, "#"),
    ]
    for lane in Lane:
        in_lane: dict[str, str | int] = {
            "x-dead-letter-exchange": names.dead_exchange,
            "x-delivery-limit": DELIVERY_LIMIT,
        }
        queues.append(Queue(names.lane_queue(lane), set_aside | in_lane))
        bindings.append(Binding(names.images_exchange, names.lane_queue(lane), lane.value))
        for delay_s in dict.fromkeys(names.delays_s):
            waiting: dict[str, str | int] = {
                "x-dead-letter-exchange": names.images_exchange,
                "x-dead-letter-routing-key": lane.value,
                "x-message-ttl": round(delay_s * 1000),
            }
            name = names.retry_queue(lane, delay_s)
            queues.append(Queue(name, set_aside | waiting))
            bindings.append(Binding(names.retry_exchange, name, names.retry_key(lane, delay_s)))
    return Topology(prefix, names.delays_s, tuple(exchanges), tuple(queues), tuple(bindings))


def in_words(delay_s: float) -> str:
    """A delay as it stands in names: `10s`, or `250ms` where it is no whole number of seconds."""
    milliseconds = round(delay_s * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def definitions(layout: Topology, virtual_host: str = "/") -> dict[str, list[dict[str, object]]]:
    """The same as a RabbitMQ definitions file, for operators who import it and set `declare = false`."""
    return {
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": virtual_host,
                "type": exchange.type,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for exchange in layout.exchanges
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": virtual_host,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(queue.arguments),
            }
            for queue in layout.queues
        ],
        "bindings": [
            {
                "source": binding.exchange,
                "vhost": virtual_host,
                "destination": binding.queue,
                "destination_type": "queue",
                "routing_key": binding.routing_key,
                "arguments": {},
            }
            for binding in layout.bindings
        ],
    }
