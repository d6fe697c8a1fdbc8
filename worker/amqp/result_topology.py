"""The queue of one connection's results, and those in which its results wait, as data.

    {p}.results  topic   ── <instance>.# ──► {p}.connect.NAME                     results, for `autotag connect`
    {p}.connect  direct  ── NAME.10s … ────► {p}.connect.NAME.retry.10s …         results that wait, then go back
    {p}.connect  direct  ── NAME ──────────► {p}.connect.NAME                     from there, and replayed dead letters

A single active consumer takes them, so that two connectors never write to one asset at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.amqp.topology import NO_DELIVERY_LIMIT, Binding, Exchange, Queue, Topology, delay_label, topology
from worker.messages.results import routing_word

CONNECT = "connect"


@dataclass(frozen=True, slots=True)
class ResultTopology:
    """What the results of one connection go through. `delays_s` are sorted. Built by `result_topology`."""

    name: str
    delays_s: tuple[float, ...]
    declared: Topology
    """All exchanges, queues and bindings, those of dead letters included."""

    @property
    def exchange(self) -> str:
        """Where results are published that wait or are replayed."""
        return connect_exchange(self.declared)

    @property
    def queue(self) -> str:
        """Where results arrive."""
        return connection_queue(self.declared, self.name)

    def retry_key(self, at_least_s: float) -> str:
        """The routing key of the shortest wait that is long enough, else of the longest."""
        delay_s = next((each for each in self.delays_s if each >= at_least_s), self.delays_s[-1])
        return f"{self.name}.{delay_label(delay_s)}"


def connect_exchange(names: Topology) -> str:
    """The exchange of all connections."""
    return f"{names.prefix}.{CONNECT}"


def connection_queue(names: Topology, name: str) -> str:
    """The queue of a connection."""
    return f"{names.prefix}.{CONNECT}.{name}"


def result_topology(prefix: str, name: str, instance: str, delays_s: Sequence[float]) -> ResultTopology:
    """The queues of a connection that gets the results of an instance."""
    service = topology(prefix, delays_s)
    dead = service.of_dead_letters
    made = ResultTopology(name, tuple(sorted(set(delays_s))), service)
    exchange, queue = made.exchange, made.queue
    queues = [
        Queue(
            queue,
            {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": NO_DELIVERY_LIMIT},
        )
    ]
    bindings = [
        Binding(service.results_exchange, queue, f"{routing_word(instance)}.#"),
        Binding(exchange, queue, name),
    ]
    for delay_s in made.delays_s:
        arguments: dict[str, str | int] = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once",
            "x-dead-letter-exchange": exchange,
            "x-dead-letter-routing-key": name,
            "x-message-ttl": round(delay_s * 1000),
        }
        waiting = f"{queue}.retry.{delay_label(delay_s)}"
        queues.append(Queue(waiting, arguments))
        bindings.append(Binding(exchange, waiting, f"{name}.{delay_label(delay_s)}"))
    results = tuple(each for each in service.exchanges if each.name == service.results_exchange)
    declared = Topology(
        prefix,
        made.delays_s,
        (*dead.exchanges, *results, Exchange(exchange, "direct")),
        (*dead.queues, *queues),
        (*dead.bindings, *bindings),
    )
    return ResultTopology(name, made.delays_s, declared)
