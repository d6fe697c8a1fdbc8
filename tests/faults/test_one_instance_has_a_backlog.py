"""One instance has published thousands of events, and another publishes one."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from tests.support.monitoring import fetch, http_url, total
from tests.support.neighbours import small_image, watching
from tests.support.scene import Scene, scene

_log = logging.getLogger(__name__)

BACKLOG = int(os.environ.get("AUTOTAG_TEST_BACKLOG", "2000"))
DELAYS = {"RETRY__DELAYS_S": "[10, 60, 600]"}


def deferrals(it: Scene) -> float:
    """How often the service has deferred an event."""
    return total(fetch(f"{http_url(it.service)}/metrics").body, "autotag_events_deferred_total")


def test_a_backlog_of_one_instance_hardly_delays_anothers_events_and_is_worked_off_as_fast_as_alone(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    with scene(broker, queue_prefix, tmp_path, photographs, **DELAYS) as it, watching(broker, queue_prefix) as watch:
        small = {"path": str(small_image(tmp_path))}

        def backlog(number: int) -> set[str]:
            with it.dms.without_confirms():
                return {it.dms.publish(small, instance="busy") for _ in range(number)}

        # Given how fast a backlog is worked off while no other instance is known, without a detour for any event
        watch.all_of(backlog(20))
        began_s = time.monotonic()
        watch.all_of(backlog(BACKLOG // 3))
        alone_per_s = BACKLOG / 3 / (time.monotonic() - began_s)
        assert not it.logged("an instance is over its share; its further events wait in the retry queues")
        # And how long an event of another instance takes
        photograph = {"path": str(it.good)}
        watch.median_s(lambda: it.dms.publish(photograph, instance="quiet"), 5)
        usual_s = watch.median_s(lambda: it.dms.publish(photograph, instance="quiet"), 15)
        # When there is a backlog
        began_s = time.monotonic()
        events = backlog(BACKLOG)
        first_s = watch.took_s(lambda: it.dms.publish(photograph, instance="quiet"))
        took, rates = [], []
        while (done := watch.count(events)) < BACKLOG:
            assert time.monotonic() - began_s < 600, f"only {done} of {BACKLOG} were done"
            before_s = time.monotonic()
            took.append(watch.took_s(lambda: it.dms.publish(photograph, instance="quiet")))
            time.sleep(0.2)
            rates.append(round((watch.count(events) - done) / (time.monotonic() - before_s)))
        _log.warning("the first event of the other instance took %.3f s", first_s)
        assert took, "the first event of the other instance had its result before the whole backlog was done"
        beside_s = sorted(took)[len(took) // 2]
        per_s = BACKLOG / (time.monotonic() - began_s)
        deferred = deferrals(it)
        _log.warning(
            "usual %.3f s; beside %d: first %.3f s, median %.3f s, longest %.3f s; %.0f events/s alone, %.0f beside; "
            "deferred %.0f times; rates %s",
            *(usual_s, BACKLOG, first_s, beside_s, max(took), alone_per_s, per_s, deferred, rates),
        )
        # Then the other's events take hardly longer, and the backlog is worked off in not much more time
        assert beside_s < 3 * usual_s + 1.5
        assert first_s < BACKLOG / alone_per_s / 2, "it waited only while the backlog was looked through"
        assert per_s > alone_per_s / 2
        assert deferred < 3 * BACKLOG
        assert it.dms.depth("dead-letters") == 0
