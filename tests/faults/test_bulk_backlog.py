"""A whole library is being tagged in the bulk lane, and users go on uploading."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tests.support.neighbours import small_image, watching
from tests.support.scene import scene

_log = logging.getLogger(__name__)

BACKLOG = int(os.environ.get("AUTOTAG_TEST_BACKLOG", "3000"))


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
        beside_s = watch.median_s(lambda: it.dms.publish(live), 40, pause_s=0.05)
        done = watch.count(bulk)
        _log.warning(f"live median alone {alone_s * 1e3:.0f} ms, beside {BACKLOG} bulk events {beside_s * 1e3:.0f} ms")
        # Then they wait hardly longer, and the backlog has gone on meanwhile
        assert 0 < done < BACKLOG, "the backlog was being worked off all the time"
        assert beside_s < 1.5 * alone_s + 0.02
        # And without live events it goes on fast
        assert it.dms.depth("images.bulk") > 0
