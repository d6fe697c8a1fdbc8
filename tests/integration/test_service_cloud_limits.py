"""Events wait for limits of our own: a rate, an open circuit. That costs no attempt, no fetch and no decode."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cloud import key, microsoft_table, picture
from tests.support.fake_microsoft import FakeMicrosoft, nested
from tests.support.fake_service import Fault
from tests.support.monitoring import fetch, http_url, total
from tests.support.polling import until
from tests.support.service import inline
from tests.support.tenants import Tenancy, tenancy

CALLS_PER_SECOND = 2
EVENTS = 40
DOWN = Fault(nested(503, "503", "The service is unavailable."))


@pytest.fixture(scope="module")
def limited() -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(key("limited")) as service:
        yield service


@pytest.fixture(scope="module")
def down() -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(key("down")) as service:
        yield service


@pytest.fixture(scope="module")
def it(
    broker: str, limited: FakeMicrosoft, down: FakeMicrosoft, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tenancy]:
    instances: dict[str, dict[str, Any]] = {
        # An image may take six turns, as with 0.1 calls a second and a `retry_total_s` of 60
        "limited": {
            "microsoft_vision": microsoft_table(
                limited.url, key("limited"), calls_per_second=CALLS_PER_SECOND, retry_total_s=3
            )
        },
        "down": {"microsoft_vision": microsoft_table(down.url, key("down"), maximum_number_of_attempts=1)},
    }
    with tenancy(
        broker,
        f"test-cloud-limits-{os.getpid()}",
        tmp_path_factory.mktemp("limits"),
        instances=instances,
        cloud={"turn_maximum_wait_s": 1, "circuit_open_s": 8, "failures_to_open_circuit": 3},
        retry={"delays_s": [1, 3, 5], "maximum_number_of_attempts": 3},
    ) as tenants:
        yield tenants


def decodes(it: Tenancy) -> float:
    text = fetch(f"{http_url(it.service)}/metrics").body
    return total(text, "autotag_stage_duration_seconds_count", stage="decode")


def put_off(it: Tenancy, reason: str) -> float:
    text = fetch(f"{http_url(it.service)}/metrics").body
    return total(text, "autotag_provider_put_off_total", dms_instance="down", reason=reason)


def test_with_a_healthy_service_every_event_is_answered_at_the_full_rate_however_low_it_is(
    it: Tenancy, limited: FakeMicrosoft
) -> None:
    # Given many more events than the rate serves while their attempts would last
    before = decodes(it)
    began_s = time.monotonic()
    events = [it.dms.publish(inline(picture(seed)), instance="limited") for seed in range(EVENTS)]
    # When they are all answered
    answers = it.one_result(*events, within_s=150)
    took_s = time.monotonic() - began_s
    # Then none has failed, each was asked about once, and the rate was kept and used
    assert {data["status"] for data in answers} == {"tagged"}
    assert len(limited.calls) == EVENTS
    ideal_s = EVENTS / CALLS_PER_SECOND
    assert 0.9 * (ideal_s - 1) <= took_s <= 1.5 * ideal_s + 5
    # And an image was fetched and decoded only when its turn was near
    assert decodes(it) - before <= 1.2 * EVENTS


def test_events_that_wait_for_a_service_that_is_down_are_not_decoded_and_lose_no_attempt(
    it: Tenancy, down: FakeMicrosoft
) -> None:
    # Given a service that is down, and its open circuit
    down.always = DOWN
    events = [it.dms.publish(inline(picture(seed)), instance="down") for seed in range(4)]
    until(lambda: put_off(it, "circuit_open") >= len(events), "the circuit is open")
    # When many events wait for it, longer than all of their attempts would last
    before, calls = decodes(it), len(down.calls)
    events += [it.dms.publish(inline(picture(seed)), instance="down") for seed in range(4, 40)]
    until(lambda: len(down.calls) >= calls + 2, "it was probed twice", within_s=90)
    # Then next to none was decoded
    assert decodes(it) - before <= 10
    # And when it is back, all but those that have really failed are answered
    down.always = None
    answers = it.one_result(*events, within_s=150)
    assert sum(data["status"] == "tagged" for data in answers) >= 38
