"""The declared exchanges and queues, and what follows from their names."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.amqp.topology import DELIVERY_LIMIT, NO_DELIVERY_LIMIT, Binding, Lane, definitions, delay_label, topology

TOPOLOGY = topology("autotag", (10, 60, 600))


def arguments_of(name: str) -> dict[str, str | int]:
    return next(queue.arguments for queue in TOPOLOGY.queues if queue.name == name)


def test_every_queue_is_a_quorum_queue() -> None:
    assert {queue.arguments["x-queue-type"] for queue in TOPOLOGY.queues} == {"quorum"}


def test_whatever_is_dead_lettered_is_dead_lettered_at_least_once() -> None:
    dead_lettering = [queue.arguments for queue in TOPOLOGY.queues if "x-dead-letter-exchange" in queue.arguments]
    assert len(dead_lettering) == 8  # two lanes, and three delays for each
    for arguments in dead_lettering:
        # RabbitMQ falls back to at-most-once, without a warning, when one of the two is missing.
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"


def test_a_waiting_event_comes_back_to_its_own_lane() -> None:
    assert arguments_of("autotag.images.bulk.retry.60s") == {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "autotag.images",
        "x-dead-letter-routing-key": "bulk",
        "x-message-ttl": 60_000,
    }


def test_a_lane_drops_a_message_only_at_the_delivery_limit() -> None:
    assert arguments_of("autotag.images.live")["x-delivery-limit"] == DELIVERY_LIMIT
    assert arguments_of("autotag.images.live")["x-dead-letter-exchange"] == "autotag.dead"


@pytest.mark.parametrize("name", ["autotag.results", "autotag.dead-letters"])
def test_results_and_dead_letters_are_never_dropped_for_being_browsed_often(name: str) -> None:
    assert arguments_of(name)["x-delivery-limit"] == NO_DELIVERY_LIMIT


def test_every_queue_is_bound_to_an_exchange_that_is_declared() -> None:
    assert {binding.queue for binding in TOPOLOGY.bindings} == {queue.name for queue in TOPOLOGY.queues}
    for_others = {TOPOLOGY.results_exchange, TOPOLOGY.copies_exchange}
    assert {binding.exchange for binding in TOPOLOGY.bindings} | for_others == {
        each.name for each in TOPOLOGY.exchanges
    }


@pytest.mark.parametrize("lane", list(Lane))
@pytest.mark.parametrize("delay_s", [10, 60, 600])
def test_the_retry_key_leads_to_the_retry_queue(lane: Lane, delay_s: float) -> None:
    bound = {(b.exchange, b.routing_key): b.queue for b in TOPOLOGY.bindings}
    assert bound[TOPOLOGY.retry_exchange, TOPOLOGY.retry_key(lane, delay_s)] == TOPOLOGY.retry_queue(lane, delay_s)


@pytest.mark.parametrize(
    ("attempt", "at_least_s", "delay_s"),
    [
        (1, 0, 10),
        (2, 0, 60),
        (3, 0, 600),
        (4, 0, 600),
        (99, 0, 600),
        (1, 10, 10),
        (1, 11, 60),
        (1, 61, 600),
        (2, 5, 60),
        (1, 3600, 600),  # longer than any delay: the longest is used
    ],
)
def test_delays_are_used_in_turn_and_none_shorter_than_asked(attempt: int, at_least_s: float, delay_s: float) -> None:
    assert TOPOLOGY.retry_delay_s(attempt, at_least_s) == delay_s


@given(
    delays=st.lists(st.sampled_from([1.0, 2.0, 10.0, 60.0]), min_size=1, max_size=6),
    attempt=st.integers(1, 20),
    at_least_s=st.floats(0, 100),
)
def test_the_delay_is_always_one_that_has_a_queue(delays: list[float], attempt: int, at_least_s: float) -> None:
    built = topology("p", delays)
    delay_s = built.retry_delay_s(attempt, at_least_s)
    names = {queue.name for queue in built.queues}
    assert built.retry_queue(Lane.LIVE, delay_s) in names
    assert delay_s >= min(at_least_s, max(delays))


@pytest.mark.parametrize(("delay_s", "words"), [(10, "10s"), (600.0, "600s"), (0.25, "250ms"), (1.5, "1500ms")])
def test_delays_are_whole_numbers_in_names(delay_s: float, words: str) -> None:
    assert delay_label(delay_s) == words


def test_a_delay_given_twice_is_one_queue() -> None:
    names = [queue.name for queue in topology("p", (10, 60, 60)).queues]
    assert len(names) == len(set(names))


def test_definitions_hold_everything_for_a_virtual_host() -> None:
    made = json.loads(json.dumps(definitions(TOPOLOGY, "photos")))
    assert [len(made[kind]) for kind in ("exchanges", "queues", "bindings")] == [6, 10, 10]
    assert {entry["vhost"] for entries in made.values() for entry in entries} == {"photos"}
    assert all(entry["durable"] for kind in ("exchanges", "queues") for entry in made[kind])


def test_the_topology_of_before_has_all_results_in_their_queue() -> None:
    before = TOPOLOGY.with_all_results
    assert (TOPOLOGY.shares_results, before.shares_results) == (True, False)
    assert {each.name for each in TOPOLOGY.exchanges} - {each.name for each in before.exchanges} == {
        "autotag.results.unclaimed",
        "autotag.results.copies",
    }
    assert [each for each in before.bindings if each.queue == "autotag.results"] == [
        Binding("autotag.results", "autotag.results", "#")
    ]
    assert before.of_results.bindings == before.with_all_results.of_results.bindings
    assert before.queues == TOPOLOGY.queues
