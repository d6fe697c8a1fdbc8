"""The file of an image is deleted while its event waits to ask a provider again that was down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import google_table, key
from tests.support.fake_google import FakeGoogle
from tests.support.fake_service import CLOSE
from tests.support.polling import until
from tests.support.tenants import LOCAL, Tenancy, tenancy


def ended_attempts(it: Tenancy, event: str) -> list[int]:
    """The attempts at an event that have ended, according to the log."""
    lines = [json.loads(line) for line in it.service.logged().splitlines() if '"event ended"' in line]
    return [line["attempt"] for line in lines if line.get("event_id") == event]


def providers(data: dict[str, Any]) -> dict[str, str]:
    return {report["name"]: report["status"] for report in data["providers"]}


@pytest.mark.parametrize("attempts", [2, 3])
def test_an_image_that_is_gone_at_the_last_attempt_keeps_the_tags_of_the_attempts_before(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path], attempts: int
) -> None:
    image = tmp_path / "images" / "coffee.jpg"
    image.parent.mkdir()
    image.write_bytes(photographs["coffee"].read_bytes())
    with FakeGoogle(key("google")) as google:
        # Given a Google that is down, beside the local model
        google.always = CLOSE
        instance = {
            "tensorflow": LOCAL,
            "google_cloud_vision": google_table(google.url, key("google"), maximum_number_of_attempts=1),
        }
        with tenancy(
            broker,
            queue_prefix,
            tmp_path / "run",
            instances={"acme": instance},
            sources={"path_roots": [str(image.parent)]},
            retry={"delays_s": [1, 3, 5], "maximum_number_of_attempts": attempts},
        ) as it:
            event = it.dms.publish({"path": str(image)}, instance="acme")
            (partial,) = it.one_result(event)
            assert (partial["status"], partial["complete"]) == ("tagged", False)
            assert partial["tags"]
            # When the file is deleted before Google is asked again, and stays so to the last attempt
            image.unlink()
            assert ended_attempts(it, event) in ([], [1]), "it was deleted before the second attempt"
            (final,) = it.one_result(event)
            until(lambda: ended_attempts(it, event)[-1:] == [attempts], "the last attempt ended")
            # Then the tags that are there make the final result
            assert (final["status"], final["complete"]) == ("tagged", True), final
            assert final["tags"] == partial["tags"]
            assert providers(final)["tensorflow"] == "ok"
            assert providers(final)["google_cloud_vision"] in {"failed", "unavailable"}
            # And it is the only end
            assert (it.dms.take("results"), it.dms.depth("dead-letters")) == (None, 0)
