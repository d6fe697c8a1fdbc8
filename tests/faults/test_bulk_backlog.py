"""A whole library is being tagged in the bulk lane, and users go on uploading."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from tests.support.neighbours import small_image, watching
from tests.support.scene import scene

_log = logging.getLogger(__name__)

BACKLOG = int(os.environ.get("AUTOTAG_TEST_BACKLOG", "3000"))
WORKED_OFF = 800
LOOKS = 3
"""How often it is looked at, at most: whatever else runs on the machine only for a while counts for nothing."""


def test_a_bulk_backlog_leaves_the_live_median_within_one_and_a_half_times_of_what_it_was(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    # Given a service whose users wait for this long
    with scene(broker, queue_prefix, tmp_path, photographs) as it, watching(broker, queue_prefix) as watch:
        live = {"path": str(it.good)}
        watch.median_s(lambda: it.dms.publish(live), 5)
        alone_s = watch.median_s(lambda: it.dms.publish(live), 40, pause_s=0.05)
        # When a backlog is being worked off in the bulk lane
        small = {"path": str(small_image(tmp_path))}
        with it.dms.without_confirms():
            bulk = {it.dms.publish(small, lane="bulk") for _ in range(BACKLOG)}
        for _ in range(LOOKS):
            beside_s = watch.median_s(lambda: it.dms.publish(live), 40, pause_s=0.05)
            _log.warning(f"live median alone {alone_s * 1e3:.0f} ms, beside {BACKLOG} bulk {beside_s * 1e3:.0f} ms")
            if beside_s < 1.5 * alone_s + 0.02:
                break
        done = watch.count(bulk)
        # Then they wait hardly longer, and the backlog has gone on meanwhile
        assert 0 < done < BACKLOG, "the backlog was being worked off all the time"
        assert beside_s < 1.5 * alone_s + 0.02
        # And without live events it goes on fast
        assert it.dms.depth("images.bulk") > 0


def test_a_bulk_backlog_is_worked_off_as_fast_with_thumbnails_as_without(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    took_s = {}
    for thumbnails in ("false", "true"):
        # Given a service whose page shows thumbnails, or none
        folder = tmp_path / thumbnails
        with (
            scene(broker, queue_prefix, folder, photographs, HTTP__THUMBNAILS=thumbnails) as it,
            watching(broker, queue_prefix) as watch,
        ):
            small = {"path": str(small_image(folder))}
            watch.all_of({it.dms.publish(small, lane="bulk") for _ in range(5)})
            # When a backlog of bulk events is worked off that lasts for several thumbnails
            began_s = time.monotonic()
            with it.dms.without_confirms():
                bulk = {it.dms.publish(small, lane="bulk") for _ in range(WORKED_OFF)}
            watch.all_of(bulk, within_s=240)
            took_s[thumbnails] = time.monotonic() - began_s
    _log.warning(f"{WORKED_OFF} bulk events took {took_s['false']:.1f} s, with thumbnails {took_s['true']:.1f} s")
    # Then it makes no difference but for the thumbnails' own work
    assert took_s["true"] < 2 * took_s["false"] + 2
