"""The worst that a publisher can send, among good events: each is refused once, by its reason; nobody else waits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import Dms, RunningService, inline, running_service


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-unreadable-{os.getpid()}"


@pytest.fixture(scope="module")
def service(broker: str, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service(broker, prefix, tmp_path_factory.mktemp("unreadable")) as it:
        yield it.ready(within_s=120)
        assert it.stop() == 0


def test_the_worst_events_are_refused_at_once_and_good_ones_between_them_are_tagged(
    dms: Dms, service: RunningService, photographs: dict[str, Path]
) -> None:
    content = inline(photographs["chelsea"].read_bytes())

    def plain(asset_id: str, **fields: Any) -> bytes:
        return json.dumps({"asset_id": asset_id, "content": content} | fields).encode()

    # Given events that name their asset and cannot be read, or whose URL is none
    named = {
        "twice": plain("twice").replace(b'"content"', b'"content": 5, "content"'),
        "port": plain("port", content={"url": "http://127.0.0.1:99999/a.jpg"}),
        "bracket": plain("bracket", content={"url": "http://[::1"}),
        "idn": plain("idn", content={"url": "http://xn--\u00fc.example/"}),
    }
    # And bodies of which not even that can be read
    nameless = [
        b"[" * 100_000,
        b'{"asset_id":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"asset_id": NaN}',
        b'{"asset_id": "digits", "content": ' + b"9" * 5000 + b"}",
        b'{"asset_id": "\\ud800"}',
        b'{"asset_id": "one", "asset_id": "other"}',
    ]
    good = [f"good-{number}" for number in range(7)]
    # When they arrive among good ones
    for name, body in named.items():
        dms.publish_body(body, message_id=name)
    for number, body in enumerate(nameless):
        dms.publish_body(body, message_id=f"nameless-{number}")
        dms.publish_body(plain(good[number]), message_id=good[number])
    dms.publish_body(plain(good[-1]), message_id=good[-1])
    results = dms.results_of([*good, *named], within_s=60)
    # Then the good ones are tagged, and the others failed with a reason, once
    assert {name: results[name][0].data["status"] for name in good} == dict.fromkeys(good, "tagged")
    assert {name: [each.data["reason"] for each in results[name]] for name in named} == {
        "twice": ["event_invalid"],
        "port": ["url_invalid"],
        "bracket": ["url_invalid"],
        "idn": ["url_invalid"],
    }
    # And nothing was an error of our own
    assert "internal_error" not in service.logged()
