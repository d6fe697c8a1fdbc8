"""The history of a real service: over a restart, damaged, and where it cannot be written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil

from tests.support.monitoring import fetch, http_url
from tests.support.polling import until
from tests.support.service import Dms, running_service


def tag_one(dms: Dms, photograph: Path, asset_id: str) -> None:
    event = dms.publish({"path": str(photograph)}, asset_id=asset_id)
    assert dms.results_of([event])[event][0].data["status"] == "tagged"


def day(url: str) -> str:
    """The page from its chart of the last 24 hours on."""
    return fetch(url).body.partition('id="day"')[2]


def test_it_outlives_restarts_and_damage_which_is_set_aside_with_a_word(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"SOURCES__PATH_ROOTS": json.dumps([str(photographs["coffee"].parent)])}
    history = tmp_path / "run" / "state" / "history.sqlite3"
    # Given a service that has tagged an image, and ended
    with running_service(broker, queue_prefix, tmp_path / "run", **settings) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        tag_one(dms, photographs["coffee"], "before the restart")
        assert service.stop() == 0
        # Then the command finds it without the service
        found = service.autotag("results", "--asset", "before the", "--json")
        assert json.loads(found.stdout)["asset_id"] == "before the restart"
    # And after a restart the page has it, and the day's sum counts both
    with running_service(broker, queue_prefix, tmp_path / "run2", **settings, STATE_DIR=str(history.parent)) as service:
        service.ready(within_s=120)
        tag_one(dms, photographs["coffee"], "after the restart")
        url = http_url(service)
        until(lambda: "after the restart" in fetch(f"{url}/results").body, "the page has the new one")
        assert "before the restart" in fetch(f"{url}/results?asset=restart").body
        until(lambda: "over 24 hours: 2 answered" in day(url), "the day's sum counts both")
        assert service.stop() == 0
    # When the file is damaged, by a disk or by hand
    with history.open("r+b") as raw:
        raw.write(os.urandom(history.stat().st_size))
    found = service.autotag("results")
    assert (found.returncode, "is damaged" in found.stderr) == (1, True)
    # Then the next start sets it aside, says so, and no event is lost
    with running_service(broker, queue_prefix, tmp_path / "run3", **settings, STATE_DIR=str(history.parent)) as service:
        service.ready(within_s=120)
        tag_one(dms, photographs["coffee"], "after the damage")
        url = http_url(service)
        until(lambda: "after the damage" in fetch(f"{url}/results").body, "another history is kept")
        assert "has been set aside as" in fetch(f"{url}/results").body
        until(lambda: "over 24 hours: 1 answered" in day(url), "the day's sum is that of the new history")
        assert history.with_name("history.damaged.sqlite3").exists()
        assert service.stop() == 0
    dms.close()


def test_where_it_cannot_be_written_only_history_is_lost(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    settings = {
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["coffee"].parent)]),
        "STATE_DIR": "/proc/no-directory-can-be-made-here",  # a mode alone does not stop root
    }
    with running_service(broker, queue_prefix, tmp_path / "run", **settings) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        tag_one(dms, photographs["coffee"], "the cup")
        url = http_url(service)
        until(
            lambda: "could not be kept" in fetch(f"{url}/results").body, "the page says that events could not be kept"
        )
        assert "Nothing else is affected" in fetch(f"{url}/results").body
        until(lambda: "autotag_history_lost_total 1.0" in fetch(f"{url}/metrics").body, "it is counted")
        said = [line for line in service.logged().splitlines() if "are not written into the history" in line]
        assert len(said) == 1
        dms.close()
        assert service.stop() == 0


def test_with_the_history_off_there_is_no_file_and_the_page_and_the_command_say_why(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    settings = {
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["coffee"].parent)]),
        "HISTORY__ENABLED": "false",
    }
    with running_service(broker, queue_prefix, tmp_path / "run", **settings) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        tag_one(dms, photographs["coffee"], "the cup")
        assert "<code>history.enabled</code> is false" in fetch(f"{http_url(service)}/results").body
        found = service.autotag("results")
        assert (found.returncode, "history.enabled" in found.stderr) == (1, True)
        assert not (tmp_path / "run" / "state" / "history.sqlite3").exists()
        dms.close()
        assert service.stop() == 0


def test_the_parent_stays_small_with_the_history(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"SOURCES__PATH_ROOTS": json.dumps([str(photographs["coffee"].parent)]), "HTTP__TOKEN": "t" * 32}
    bearer = {"Authorization": "Bearer " + "t" * 32}
    with running_service(broker, queue_prefix, tmp_path / "run", **settings) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        events = [dms.publish({"path": str(photographs["coffee"])}, asset_id=f"cup-{n}") for n in range(300)]
        dms.results_of(events)
        url = http_url(service)
        until(lambda: "cup-299" in fetch(f"{url}/results?asset=cup-299", bearer).body, "all are kept")
        for path in ("/", "/results", "/dead-letters", "/tenants", "/results?tag=coffee"):
            assert fetch(url + path, bearer).status == 200
        assert psutil.Process(service.process.pid).memory_info().rss < 88e6
        dms.close()
        assert service.stop() == 0
