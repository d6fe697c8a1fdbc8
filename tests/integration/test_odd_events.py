"""Events as other systems write them: what only informs is ignored and counted, and the image is tagged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.monitoring import fetch, http_url
from tests.support.service import Dms, RunningService, inline, running_service
from worker.messages import EVENT_TYPE


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-odd-events-{os.getpid()}"


@pytest.fixture(scope="module")
def service(broker: str, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service(broker, prefix, tmp_path_factory.mktemp("odd")) as it:
        yield it.ready(within_s=120)
        assert it.stop() == 0


def metrics(service: RunningService) -> dict[str, float]:
    lines = fetch(f"{http_url(service)}/metrics").body.splitlines()
    return {name: float(value) for name, value in (each.rsplit(" ", 1) for each in lines if not each.startswith("#"))}


def test_every_odd_event_is_tagged_and_counted_and_no_wait_is_poisoned(
    dms: Dms, service: RunningService, photographs: dict[str, Path]
) -> None:
    # Given events of systems that fill fields with nothing, with numbers, and with times that are none
    content = inline(photographs["chelsea"].read_bytes())
    now = datetime.now(UTC)
    odd_data: dict[str, dict[str, Any]] = {
        "empty": dict.fromkeys(("file_name", "mime_type", "locale", "site", "existing_tags", "instance"), ""),
        "line-feed": {"file_name": "a\nb.jpg", "site": "\x1b[2J"},
        "long": {"file_name": "x" * 5000},
        "unused": {"content": content | {"url": "", "path": None}},
    }
    odd_times = ["", "0001-01-01T00:00:00Z", "2026-01-15T09:29:58", (now + timedelta(days=9000)).isoformat(), 5]
    for name, changes in odd_data.items():
        body = {"asset_id": name, "content": content} | changes
        dms.publish_body(json.dumps(body).encode(), message_id=name)
    for number, time in enumerate(odd_times):
        attributes = {"specversion": "1.0", "id": number, "source": "/dms", "type": EVENT_TYPE, "time": time}
        body = attributes | {"data": {"asset_id": 4711 + number, "content": content}}
        dms.publish_body(json.dumps(body).encode(), content_type="application/cloudevents+json")
    latin = json.dumps({"asset_id": "latin", "file_name": "Pr?fung.jpg", "content": content}).encode()
    dms.publish_body(latin.replace(b"?", b"\xfc"), message_id="latin", timestamp=int(now.timestamp() * 1000))
    dms.publish_body(b"\xef\xbb\xbf" + latin, message_id="bom", timestamp=1)
    # When they are answered
    names = [*odd_data, *map(str, range(len(odd_times))), "latin", "bom"]
    results = dms.results_of(names, within_s=60)
    # Then each is tagged
    assert {name: results[name][0].data["status"] for name in names} == dict.fromkeys(names, "tagged")
    assert {results[str(number)][0].data["asset_id"] for number in range(len(odd_times))} == {
        str(4711 + number) for number in range(len(odd_times))
    }
    assert dms.take("dead-letters") is None
    # And what was ignored is counted
    seen = metrics(service)
    for field, why in (
        ("file_name", "empty"),
        ("file_name", "unusable"),
        ("site", "unusable"),
        ("url", "empty"),
        ("asset_id", "number"),
        ("time", "empty"),
        ("time", "implausible"),
        ("timestamp", "implausible"),
        ("body", "byte_order_mark"),
    ):
        assert seen[f'autotag_odd_event_fields_total{{field="{field}",why="{why}"}}'] >= 1, (field, why)
    # And no wait in the queue is one of years, or of minus years
    assert seen['autotag_stage_duration_seconds_sum{stage="queue_wait"}'] < 120
