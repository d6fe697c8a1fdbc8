"""`autotag dead-letters`: list what could not be done, remove the cause, replay it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.polling import until
from tests.support.service import Dms, running_service


def test_an_operator_lists_mends_and_replays_what_could_not_be_done(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "cup.jpg").write_bytes(b"not an image yet")
    roots = json.dumps([str(images)])
    with running_service(broker, queue_prefix, tmp_path / "run", SOURCES__PATH_ROOTS=roots) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        # Given two events that could not be done: a file that is no image, and no event at all
        event = dms.publish({"path": "cup.jpg"}, asset_id="the cup")
        dms.publish_body(b"no json")
        until(lambda: dms.depth("dead-letters") == 2, "both were dead-lettered")
        dms.results_of([event])
        # When they are listed, each has its reason, and nothing changes
        listed = service.autotag("dead-letters", "list", "--json")
        letters = {letter["reason"]: letter for letter in map(json.loads, listed.stdout.splitlines())}
        assert set(letters) == {"image_unrecognised", "event_not_json"}
        assert letters["image_unrecognised"]["asset_id"] == "the cup"
        shown = json.loads(service.autotag("dead-letters", "show", letters["image_unrecognised"]["id"]).stdout)
        assert json.loads(shown["event"])["data"]["content"] == {"path": "cup.jpg"}
        # RabbitMQ requeues asynchronously what a command has only browsed
        until(lambda: dms.depth("dead-letters") == 2, "both are still there")
        assert service.autotag("dead-letters", "show", "no such id").returncode == 1
        # And when the cause is removed and the letter with that reason replayed, it is tagged
        (images / "cup.jpg").write_bytes(photographs["coffee"].read_bytes())
        replayed = service.autotag("dead-letters", "replay", "--reason", "image_unrecognised", "--json")
        assert json.loads(replayed.stdout) == {"replayed": 1}
        found = dms.results_of([event])[event][0].data
        assert "espresso" in {tag["name"] for tag in found["tags"]}
        # And the other is purged, but only with --yes
        assert service.autotag("dead-letters", "purge", "--reason", "event_not_json").returncode != 0
        until(lambda: dms.depth("dead-letters") == 1, "the other is still there")
        assert service.autotag("dead-letters", "purge", "--reason", "event_not_json", "--yes").returncode == 0
        assert dms.depth("dead-letters") == 0
        dms.close()
        assert service.stop() == 0
