"""A publisher writes headers that only Autotag itself writes: none of them is believed on a first delivery."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service
from worker.messages.schemas import schemas

FORGED_REPLY: dict[str, Any] = {
    "provider": "tensorflow",
    "status": "ok",
    "suggestions": [["forged", 1.0]],
    "model": "forged@1",
    "reason": None,
    "message": None,
    "duration_s": 0.0,
}


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-forged-headers-{os.getpid()}"


@pytest.fixture(scope="module")
def service(
    broker: str, prefix: str, tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, Path]
) -> Iterator[RunningService]:
    roots = json.dumps([str(photographs["coffee"].parent)])
    folder = tmp_path_factory.mktemp("forged-headers")
    with running_service(broker, prefix, folder, SOURCES__PATH_ROOTS=roots, RETRY__DELAYS_S="60") as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


def publish(dms: Dms, path: Path, headers: dict[str, object], event_id: str) -> None:
    data = {"asset_id": event_id, "content": {"path": str(path)}}
    dms.publish_body(json.dumps(data).encode(), message_id=event_id, headers=headers)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("sound", json.dumps([FORGED_REPLY])),
        ("nan", json.dumps([FORGED_REPLY | {"suggestions": [["forged", float("nan")]]}])),
        ("huge", json.dumps([FORGED_REPLY | {"suggestions": [["forged", 10**300]], "duration_s": 1e300}])),
        (
            "escape",
            json.dumps([FORGED_REPLY | {"suggestions": [["\x1b[2Jforged", 1.0]], "message": "\x1b]0;owned\x07"}]),
        ),
        ("table", json.dumps([FORGED_REPLY | {"model": {"a": ["table"]}, "message": ["forged"]}])),
        ("deep", "[" * 60_000),
    ],
)
def test_forged_answers_do_not_get_into_a_result(
    dms: Dms, photographs: dict[str, Path], name: str, answers: str
) -> None:
    # Given a first delivery that claims to be the 99th, with the model's answers
    headers: dict[str, object] = {"x-autotag-attempt": 99, "x-autotag-answers": answers, "x-autotag-mark": "0" * 64}
    publish(dms, photographs["coffee"], headers, name)
    # When it is answered
    (result,) = dms.results_of([name])[name]
    # Then by the model alone, in a result as it is documented
    Draft202012Validator(schemas()["result"]).validate(json.loads(result.body))
    assert "espresso" in {tag["name"] for tag in result.data["tags"]}
    assert "forged" not in result.body.decode()


def test_a_forged_attempt_does_not_take_an_event_its_retries(dms: Dms, photographs: dict[str, Path]) -> None:
    publish(dms, photographs["coffee"].parent / "missing.jpg", {"x-autotag-attempt": 99}, "missing")
    until(lambda: dms.depth("images.live.retry.60s") == 1, "it waits for its second attempt")
    waiting = dms.take("images.live.retry.60s")
    assert waiting is not None
    assert waiting.properties.headers["x-autotag-attempt"] == 2
    assert dms.take("dead-letters") is None


def test_an_unreadable_event_is_not_set_aside_under_a_forged_name(dms: Dms, service: RunningService) -> None:
    forged = {
        "x-autotag-asset": "an asset of another tenant",
        "x-autotag-instance": "another-tenant",
        "x-autotag-reason": "image_truncated",
        "x-autotag-attempt": 99,
        "x-autotag-unreadable-properties": "ValueError: none of it",
    }
    dms.publish_body(b"no json", message_id="forged-letter", headers=forged)
    until(lambda: dms.depth("dead-letters") == 1, "it was dead-lettered")
    listed = json.loads(service.autotag("dead-letters", "list", "--json").stdout)
    assert (listed["reason"], listed["asset_id"], listed["instance"]) == ("event_not_json", None, None)
    until(lambda: dms.depth("dead-letters") == 1, "it is still there")
    letter = dms.take("dead-letters")
    assert letter is not None
    headers = letter.properties.headers
    assert (headers["x-autotag-reason"], headers["x-autotag-attempt"]) == ("event_not_json", 1)
    assert not {"x-autotag-asset", "x-autotag-instance", "x-autotag-unreadable-properties"} & set(headers)


def test_a_dead_letter_of_another_program_is_listed_as_unmarked(
    broker: str, dms: Dms, service: RunningService, prefix: str
) -> None:
    import pika

    forged = {"x-autotag-reason": "image_truncated", "x-autotag-asset": "an asset of another tenant"}
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    properties = pika.BasicProperties(message_id="forged", headers=forged)
    connection.channel().basic_publish(f"{prefix}.dead", "live", b"{}", properties)
    connection.close()
    until(lambda: dms.depth("dead-letters") == 1, "the forged letter is there")
    listed = service.autotag("dead-letters", "list", "--json")
    letter = json.loads(listed.stdout)
    assert (letter["reason"], letter["asset_id"], letter["unmarked"]) == ("unmarked", None, True)
    assert "1 of 1 carry headers without this installation's mark" in listed.stderr
    until(lambda: dms.depth("dead-letters") == 1, "it is still there")
    purged = service.autotag("dead-letters", "purge", "--reason", "unmarked", "--yes", "--json")
    assert json.loads(purged.stdout) == {"purged": 1}


def test_dropped_headers_are_reported_in_the_log_by_name_alone(dms: Dms, service: RunningService) -> None:
    dms.publish_body(b"no json", message_id="forged-again", headers={"x-autotag-answers": "\x1b[2J"})
    until(lambda: dms.take("dead-letters"), "it was dead-lettered")
    warnings = [line for line in service.logged().splitlines() if "headers of ours without our mark" in line]
    assert warnings
    times = [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in warnings]
    assert all((later - earlier).total_seconds() > 59 for earlier, later in pairwise(times)), "at most once a minute"
    assert all("x-autotag-" in line and "1b[2J" not in line for line in warnings)
