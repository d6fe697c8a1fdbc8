"""A candidate runs beside the real model: what would change is reported, and nothing else changes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil

from tests.support.monitoring import fetch, http_url, total
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service

SETTINGS = {
    "TENSORFLOW__MODEL": "efficientnet-lite2",
    "TENSORFLOW__SHADOW": "efficientnet-lite0",
    "TENSORFLOW__SHADOW_SHARE": "1.0",
    "HTTP__THUMBNAILS": "true",
}


def report_of(service: RunningService) -> dict[str, Any]:
    done = service.autotag("shadow", "report", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wait_for_candidate(service: RunningService) -> None:
    until(lambda: report_of(service)["state"] == "ready", "the candidate was ready", within_s=60)


def shadow_child(service: RunningService) -> psutil.Process | None:
    for child in (service.status() or {})["children"]:
        if child["name"].startswith("shadow") and child["pid"]:
            return psutil.Process(child["pid"])
    return None


def test_a_report_says_what_would_change_and_nothing_is_published(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    roots = json.dumps([str(photographs["chelsea"].parent)])
    with running_service(broker, queue_prefix, tmp_path, SOURCES__PATH_ROOTS=roots, **SETTINGS) as service:
        service.ready(within_s=120)
        wait_for_candidate(service)
        child = shadow_child(service)
        assert child is not None
        assert child.nice() >= 15
        dms = Dms(broker, queue_prefix)
        # When photographs have been tagged, a few at a time
        for name, file in photographs.items():
            for turn in range(2):
                before = report_of(service)["compared"]
                events = [dms.publish({"path": str(file)}, asset_id=f"{name}-{turn}")]
                [result] = dms.results_of(events)[events[0]]
                assert {each["model"].partition("@")[0] for each in result.data["providers"]} == {"efficientnet-lite2"}
                until(lambda seen=before: report_of(service)["compared"] > seen, "it was compared too")  # type: ignore[misc]
        # Then the report has all of them, and some of them would have other tags
        report = report_of(service)
        assert report["compared"] == 2 * len(photographs)
        assert report["compared"] - report["alike"] > 0
        assert report["added"] or report["removed"]
        assert report["examples"][0]["asset_id"].rpartition("-")[0] in photographs
        assert report["candidate_cpu_ms"] is None or report["candidate_cpu_ms"] > 0
        # And there is one result an event, and one reply of the model
        assert dms.depth("results") == 0
        text = fetch(f"{http_url(service)}/metrics").body
        assert total(text, "autotag_results_total") == 2 * len(photographs)
        assert total(text, "autotag_provider_replies_total") == 2 * len(photographs)
        assert total(text, "autotag_shadow_images_total") == 2 * len(photographs)
        # And people can read it, and see the images on the page
        assert "would be" in service.autotag("shadow", "report").stdout

        def page_has_thumbnail() -> bool:
            section = fetch(http_url(service)).body.partition('id="shadow"')[2].partition("</section>")[0]
            assert "A candidate model" in section
            return "thumbnail?n=" in section

        until(page_has_thumbnail, "the page shows an image whose tags would change")
        dms.close()
        assert service.stop() == 0


def test_a_candidate_that_is_killed_or_stands_still_delays_no_event_and_disables_nothing_else(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    roots = json.dumps([str(photographs["chelsea"].parent)])
    with running_service(broker, queue_prefix, tmp_path, SOURCES__PATH_ROOTS=roots, **SETTINGS) as service:
        service.ready(within_s=120)
        wait_for_candidate(service)
        dms = Dms(broker, queue_prefix)
        path = {"path": str(photographs["chelsea"])}
        # Given a candidate that stands still: a few images are held for it, and others are skipped
        child = shadow_child(service)
        assert child is not None
        child.send_signal(signal.SIGSTOP)
        dms.results_of([dms.publish(path) for _ in range(30)])
        until(lambda: report_of(service)["skipped"].get("busy", 0) >= 20, "the others were skipped")
        child.kill()
        # When it is killed until it is disabled
        killed = {child.pid}
        for _ in range(8):
            if report_of(service)["state"].startswith("disabled"):
                break
            found = until(
                lambda: (
                    report_of(service)["state"].startswith("disabled")
                    or ((one := shadow_child(service)) is not None and one.pid not in killed and one)
                ),
                "there was another child, or it was disabled",
                within_s=60,
            )
            if isinstance(found, psutil.Process):
                killed.add(found.pid)
                found.kill()
        until(lambda: report_of(service)["state"].startswith("disabled"), "it was disabled", within_s=30)
        # Then events go on, and the real model has lost none of its relaunches
        results = dms.results_of([dms.publish(path) for _ in range(10)])
        assert {message.data["status"] for each in results.values() for message in each} == {"tagged"}
        status = service.status() or {}
        assert status["ready"]
        assert (status["model"]["disabled"], status["model"]["relaunches_left"]) == (None, 5)
        dms.close()
        assert service.stop() == 0


def test_a_candidate_that_is_not_there_changes_nothing_and_the_report_says_why(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    with running_service(broker, queue_prefix, tmp_path, TENSORFLOW__SHADOW="/nowhere") as service:
        service.ready(within_s=120)
        until(lambda: "there is no model '/nowhere'" in report_of(service)["state"], "the report says why")
        assert service.stop() == 0


def test_without_a_candidate_there_is_no_report(broker: str, queue_prefix: str, tmp_path: Path) -> None:
    with running_service(broker, queue_prefix, tmp_path) as service:
        service.ready(within_s=120)
        done = service.autotag("shadow", "report")
        assert done.returncode == 1
        assert "tensorflow.shadow" in done.stderr
        assert service.stop() == 0
