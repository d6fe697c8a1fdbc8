"""A worker whose model is disabled beside one whose model works: it leaves the events to the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledger import Ledger
from tests.support.polling import until
from tests.support.scene import QUICK
from tests.support.service import Dms, RunningService, running_service

# Another instance has a provider that could answer, so the worker as a whole is not out of work.
TENANTS = {
    "INSTANCES__CLOUD__TENSORFLOW__ENABLED": "false",
    "INSTANCES__CLOUD__GOOGLE_CLOUD_VISION__ENABLED": "true",
    "INSTANCES__CLOUD__GOOGLE_CLOUD_VISION__API_KEY": "a-key-that-is-never-used",
    # An event that had to wait for an operator would be away for longer than the test waits.
    "RETRY__DELAYS_S": "[1, 600]",
}


@pytest.fixture
def two(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> Iterator[tuple[RunningService, RunningService, Ledger]]:
    """A worker that the first crash of its model disables, and one that goes on; with the ledger of their events."""
    roots = json.dumps([str(photographs["coffee"].parent)])
    settings = QUICK | TENANTS | {"SOURCES__PATH_ROOTS": roots}
    once = settings | {"TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "0"}
    with (
        running_service(broker, queue_prefix, tmp_path / "sick", **once) as sick,
        running_service(broker, queue_prefix, tmp_path / "well", **settings) as well,
    ):
        sick.ready()
        well.ready()
        dms = Dms(broker, queue_prefix)
        yield sick, well, Ledger(dms)
        dms.close()
        assert sick.stop() == 0
        assert well.stop() == 0


def ended(service: RunningService) -> int:
    return service.logged().count('"event ended"')


def test_its_events_are_done_by_the_other_and_those_in_hand_go_back_at_once(
    two: tuple[RunningService, RunningService, Ledger], photographs: dict[str, Path]
) -> None:
    sick, well, ledger = two
    # Given both at work, when the model of one is disabled
    with sick.paused(), well.paused():
        ledger.publish(photographs["coffee"], 200)
    until(lambda: ended(sick) >= 5, "the one that will be sick has answered some")
    sick.crash_model(1)
    until(lambda: (sick.status() or {}).get("reason") == "left_to_others", "it leaves events to the other")
    # Then every event is answered, and none had to wait for an operator
    ledger.settle(within_s=60)
    assert ledger.statuses() == {"tagged"}
    # And the next ones are left to the other worker altogether
    before = ended(sick)
    ledger.publish(photographs["coffee"], 100)
    ledger.settle(within_s=60)
    assert ended(sick) == before
    status = sick.status() or {}
    assert not status["ready"]
    assert "left to other workers" in status["why_not"]
    (pause,) = status["broker"]["pauses"]
    assert pause["reason"] == "left_to_others"
    assert pause["for_s"] > 0


def test_when_the_other_has_gone_it_does_what_it_can(
    two: tuple[RunningService, RunningService, Ledger], photographs: dict[str, Path]
) -> None:
    sick, well, ledger = two
    sick.crash_model(1)
    until(lambda: (sick.status() or {}).get("reason") == "left_to_others", "it leaves events to the other")
    assert well.stop() == 0
    until(lambda: (sick.status() or {}).get("ready"), "it takes events again", within_s=40)
    # And what it cannot do waits, and is answered when an operator has mended it
    ledger.publish(photographs["coffee"], 3)
    until(lambda: ledger.dms.depth("images.live.retry.600s") == 3, "they wait in a retry queue")
    assert ledger.dms.depth("dead-letters") == 0
