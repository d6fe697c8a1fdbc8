"""The exchanges, queues and bindings that Autotag uses, as data. Owns every name and every argument.

    {p}.images   direct ── live, bulk ──► {p}.images.live, {p}.images.bulk          events
    {p}.retry    direct ── live.10s … ──► {p}.images.live.retry.10s …               events that wait, then go back
    {p}.results  topic  ── queues of others                                         results
    {p}.results.unclaimed  fanout ──────► {p}.results                               results that none of those takes
    {p}.results.copies     topic  ── queues of those who only look on               a copy of each result
    {p}.dead     fanout ────────────────► {p}.dead-letters                          events that could not be done

An installation of before `{p}.results.unclaimed` has neither that nor the copies: `{p}.results` (the queue) is bound to
`{p}.results` (the exchange) with `#`, and gets all of them. It stays so until `autotag topology migrate`.

All queues are quorum queues. Messages that expire or were delivered too often are dead-lettered at-least-once, which
RabbitMQ does only together with `reject-publish`
(https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

DELIVERY_LIMIT = 20
"""Safety net below our own count of attempts, for a message that ends the worker or its connection each time."""

NO_DELIVERY_LIMIT = 2**31 - 1
"""RabbitMQ 4 drops a message after 20 returns by default. Its value for "never", `-1`, is refused by 3.10."""


ALL_RESULTS = "#"
"""The key with which the results queue was bound once."""


class Lane(StrEnum):
    """The two queues for events: users wait for those in `live`; `bulk` is for back-fills."""

    LIVE = "live"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue and its arguments (`x-…`)."""

    name: str
    arguments: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue's binding to an exchange."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything declared on the broker. Built by `topology`. `delays_s` are the delays of the retry queues."""

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
    def unclaimed_exchange(self) -> str:
        """Where a result is published that `results_exchange` has no queue for."""
        return f"{self.prefix}.results.unclaimed"

    @property
    def copies_exchange(self) -> str:
        """Where a copy of each result is published, for those who look on and take nothing away."""
        return f"{self.prefix}.results.copies"

    @property
    def results_queue(self) -> str:
        """Where results that nobody else takes are kept until the DMS consumes them."""
        return f"{self.prefix}.results"

    @property
    def dead_exchange(self) -> str:
        """Where dead letters are published, with the lane as routing key."""
        return f"{self.prefix}.dead"

    @property
    def dead_letters_queue(self) -> str:
        """Where dead letters are kept for operators."""
        return f"{self.prefix}.dead-letters"

    def of_lane(self, lane: Lane) -> Topology:
        """What a lane is consumed through: the exchange for events, the lane's queue, its binding."""
        return self._part({self.images_exchange}, {self.lane_queue(lane)})

    @property
    def of_results(self) -> Topology:
        """What results go through."""
        return self._part({self.results_exchange, self.unclaimed_exchange}, {self.results_queue})

    @property
    def of_copies(self) -> Topology:
        """What copies of results go through."""
        return self._part({self.copies_exchange}, set())

    @property
    def shares_results(self) -> bool:
        """Whether its results queue gets only what no other queue takes."""
        return any(each.name == self.unclaimed_exchange for each in self.exchanges)

    @property
    def with_all_results(self) -> Topology:
        """The same where the results queue gets all results, as it did once."""
        every = Binding(self.results_exchange, self.results_queue, ALL_RESULTS)
        later = {self.unclaimed_exchange, self.copies_exchange}
        return replace(
            self,
            exchanges=tuple(each for each in self.exchanges if each.name not in later),
            bindings=tuple(every if each.exchange == self.unclaimed_exchange else each for each in self.bindings),
        )

    @property
    def of_dead_letters(self) -> Topology:
        """What dead letters go through."""
        return self._part({self.dead_exchange}, {self.dead_letters_queue})

    @property
    def of_retries(self) -> Topology:
        """What events that wait go through."""
        queues = {self.retry_queue(lane, delay_s) for lane in Lane for delay_s in self.delays_s}
        return self._part({self.images_exchange, self.retry_exchange}, queues)

    def _part(self, exchanges: set[str], queues: set[str]) -> Topology:
        return replace(
            self,
            exchanges=tuple(each for each in self.exchanges if each.name in exchanges),
            queues=tuple(each for each in self.queues if each.name in queues),
            bindings=tuple(each for each in self.bindings if each.queue in queues),
        )

    def lane_queue(self, lane: Lane) -> str:
        """The queue that a lane is consumed from."""
        return f"{self.prefix}.images.{lane}"

    def retry_queue(self, lane: Lane, delay_s: float) -> str:
        """The queue in which a lane's events wait `delay_s`."""
        return f"{self.prefix}.images.{lane}.retry.{delay_label(delay_s)}"

    def retry_key(self, lane: Lane, delay_s: float) -> str:
        """The routing key that leads to `retry_queue`."""
        return f"{lane}.{delay_label(delay_s)}"

    def retry_delay_s(self, attempt: int, at_least_s: float = 0.0) -> float:
        """How long an event waits after its `attempt`-th attempt (from 1) failed.

        The delays are used in turn, then the last one for all further attempts. Delays shorter than `at_least_s` are
        skipped, but no wait is longer than the longest delay.
        """
        usual_s = self.delays_s[min(attempt, len(self.delays_s)) - 1]
        long_enough = [delay_s for delay_s in self.delays_s if delay_s >= max(usual_s, at_least_s)]
        return min(long_enough, default=max(self.delays_s))


def topology(prefix: str, delays_s: Sequence[float]) -> Topology:
    """The exchanges, queues and bindings for a queue prefix and the delays of the retry queues, in seconds."""
    names = Topology(prefix, tuple(delays_s), (), (), ())
    dead_lettering: dict[str, str | int] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
    }
    kept_for_good: dict[str, str | int] = {"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT}
    exchanges = [
        Exchange(names.dead_exchange, "fanout"),
        Exchange(names.images_exchange, "direct"),
        Exchange(names.retry_exchange, "direct"),
        # Before the queue: where that is there and this is not, the installation is an older one.
        Exchange(names.unclaimed_exchange, "fanout"),
        Exchange(names.copies_exchange, "topic"),
        Exchange(names.results_exchange, "topic"),
    ]
    queues = [Queue(names.dead_letters_queue, kept_for_good), Queue(names.results_queue, kept_for_good)]
    bindings = [
        Binding(names.dead_exchange, names.dead_letters_queue, ""),
        Binding(names.unclaimed_exchange, names.results_queue, ""),
    ]
    for lane in Lane:
        lane_arguments: dict[str, str | int] = {
            "x-dead-letter-exchange": names.dead_exchange,
            "x-delivery-limit": DELIVERY_LIMIT,
        }
        queues.append(Queue(names.lane_queue(lane), dead_lettering | lane_arguments))
        bindings.append(Binding(names.images_exchange, names.lane_queue(lane), lane.value))
        for delay_s in dict.fromkeys(names.delays_s):
            retry_arguments: dict[str, str | int] = {
                "x-dead-letter-exchange": names.images_exchange,
                "x-dead-letter-routing-key": lane.value,
                "x-message-ttl": round(delay_s * 1000),
            }
            name = names.retry_queue(lane, delay_s)
            queues.append(Queue(name, dead_lettering | retry_arguments))
            bindings.append(Binding(names.retry_exchange, name, names.retry_key(lane, delay_s)))
    return Topology(prefix, names.delays_s, tuple(exchanges), tuple(queues), tuple(bindings))


def delay_label(delay_s: float) -> str:
    """A delay as queue names spell it: `10s`, or `250ms` where it is no whole number of seconds."""
    milliseconds = round(delay_s * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def definitions(topology: Topology, virtual_host: str = "/") -> dict[str, list[dict[str, object]]]:
    """The topology as a RabbitMQ definitions file, for operators who import it and set `amqp.declare = false`."""
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
            for exchange in topology.exchanges
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": virtual_host,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(queue.arguments),
            }
            for queue in topology.queues
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
            for binding in topology.bindings
        ],
    }
