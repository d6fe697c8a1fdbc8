"""The relaunch rule as an operator meets it: five crashes are mended, the sixth disables, and work waits."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.polling import until
from tests.support.service import Dms, running_service


def test_the_sixth_crash_within_a_minute_disables_and_work_waits_for_the_operator(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    roots = json.dumps([str(photographs["coffee"].parent)])
    with running_service(broker, queue_prefix, tmp_path, SOURCES__PATH_ROOTS=roots) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        # Given five crashes, each answered by a relaunch
        service.crash_model(5)
        until(lambda: (service.status() or {})["model"]["relaunches_left"] == 0, "the fifth crash was counted")
        until(lambda: (service.status() or {})["model"]["ready"], "the model was relaunched a fifth time")
        assert (service.status() or {})["model"]["disabled"] is None
        # When the sixth comes
        service.crash_model(1)
        until(lambda: (service.status() or {})["model"]["disabled"], "the model was disabled")
        # Then the service says so and takes no events: they wait, and are not answered "no tags"
        until(lambda: not (service.status() or {})["ready"], "it was not ready any more")
        assert "crashed more than 5 times" in str(service.status())
        assert "autotag reset" in service.logged()
        events = [dms.publish({"path": str(photographs["coffee"])}) for _ in range(100)]
        until(lambda: dms.depth("images.live") == 100, "all events wait in their queue")
        assert service.children("model") == []
        # And when the operator resets it, all are answered
        assert service.autotag("reset").returncode == 0
        found = dms.results_of(events)
        assert {message.data["status"] for messages in found.values() for message in messages} == {"tagged"}
        assert dms.depth("dead-letters") == 0
        dms.close()
        assert service.stop() == 0
