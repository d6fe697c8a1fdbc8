"""The HTTP inlet beside a real RabbitMQ: taken is what is confirmed, all else is answered with its reason."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rabbitmq_node import PrivateBroker

from tests.support.connector import INLET_TOKEN, RunningConnector, running_connector
from tests.support.polling import until
from tests.support.service import Dms
from worker.messages import EVENT_TYPE

CONFIGURATION = f"""
[connect.photos]
preset = "immich"
url = "https://photos.example"
instance = "acme"
target.enabled = false
[connect.photos.inlet]
token = "{INLET_TOKEN}"

[connect.files]
preset = "nextcloud"
url = "https://files.example"
target.enabled = false
[connect.files.inlet]
token = "{INLET_TOKEN}"
token_header = "X-Key"
"""
BATCH = "application/cloudevents-batch+json"


@pytest.fixture
def connector(broker: str, queue_prefix: str, tmp_path: Path) -> Iterator[RunningConnector]:
    with running_connector(broker, queue_prefix, tmp_path, CONFIGURATION) as running:
        yield running


@pytest.fixture
def dms(broker: str, queue_prefix: str) -> Iterator[Dms]:
    queues = Dms(broker, queue_prefix)
    yield queues
    queues.close()


def asset(number: int, **changes: Any) -> dict[str, Any]:
    """What Immich says of an upload."""
    found = {"id": f"asset-{number}", "type": "IMAGE", "checksum": f"sum-{number}", "originalFileName": "a.jpg"}
    return {"type": "AssetV1", "trigger": "AssetCreate", "data": {"asset": {**found, **changes}}}


def own(number: int, **data: Any) -> dict[str, Any]:
    """An event as programs that know us send it."""
    content = {"asset_id": f"own-{number}", "content": {"url": "https://dms.example/a.jpg"}}
    return {"specversion": "1.0", "id": f"e{number}", "source": "/dms", "type": EVENT_TYPE, "data": content | data}


def events(dms: Dms) -> list[dict[str, Any]]:
    """All that waits in the queue for live events."""
    found: list[dict[str, Any]] = []
    if not dms.exists("images.live"):  # the connector declares it with the first event
        return found
    while (message := dms.take("images.live")) is not None:
        found.append(json.loads(message.body))
    return found


def test_what_a_system_posts_is_an_event_and_the_same_again_is_none(connector: RunningConnector, dms: Dms) -> None:
    answers = [connector.post("photos", asset(1)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert [answer.json()["published"] for answer in answers] == [1, 0, 0]
    changed = connector.post("photos", asset(1, checksum="another"))
    assert changed.json()["published"] == 1
    found = events(dms)
    assert [event["data"]["asset_id"] for event in found] == ["asset-1", "asset-1"]
    assert {event["data"]["instance"] for event in found} == {"acme"}
    assert found[0]["data"]["content"] == {"url": "https://photos.example/api/assets/asset-1/original"}
    assert found[0]["id"] != found[1]["id"]
    assert connector.post("photos", asset(2, type="VIDEO")).json()["passed_over"] == 1
    assert connector.counted("autotag_connect_uploads_total", connection="photos", outcome="seen") == 2
    assert connector.stop() == 0


def test_nextcloud_sends_no_content_type_and_its_token_in_a_header_of_any_name(
    connector: RunningConnector, dms: Dms
) -> None:
    said = {
        "event": {"class": "OCP\\Files\\Events\\Node\\NodeCreatedEvent", "node": {"id": 4, "path": "/a/files/x y.jpg"}},
        "user": None,
        "time": 1_700_100_000,
    }
    body = json.dumps(said).encode()
    request = httpx.Request("POST", connector.inlet("files"), content=body, headers={"x-key": INLET_TOKEN})
    assert "content-type" not in request.headers
    with httpx.Client() as client:
        assert client.send(request).status_code == 202
    (event,) = events(dms)
    assert event["data"]["content"]["url"] == "https://files.example/remote.php/dav/files/a/x%20y.jpg"
    assert event["time"].startswith("2023-11-16T")


@pytest.mark.parametrize("mode", ["structured", "binary", "batch"])
def test_cloudevents_of_ours_are_taken_in_every_mode(connector: RunningConnector, dms: Dms, mode: str) -> None:
    if mode == "structured":
        answer = connector.post("photos", own(1), **{"content-type": "application/cloudevents+json"})
    elif mode == "batch":
        answer = connector.post("photos", json.dumps([own(1), own(2)]).encode(), **{"content-type": BATCH})
    else:
        event = own(1)
        headers = {f"ce-{name}": event[name] for name in ("specversion", "id", "source", "type")}
        answer = connector.post("photos", event["data"], **headers)
    assert answer.status_code == 202, answer.text
    found = events(dms)
    assert [event["id"] for event in found] == (["e1", "e2"] if mode == "batch" else ["e1"])
    assert {event["data"]["context"]["connect"] for event in found} == {"photos"}


@pytest.mark.parametrize(
    ("said", "status", "names"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"<html>", 400, "no JSON"),
        (b"null", 400, "asset_id"),
        (b"{}", 400, "connect.photos.inlet.asset_id"),
        (json.dumps(asset(1, id="..")).encode(), 400, "content_url"),
        (json.dumps(asset(1, id=["a"])).encode(), 400, "asset_id"),
        (json.dumps(own(1, instance="globex")).encode(), 400, "acme"),
        (json.dumps(own(1, content={})).encode(), 400, "content"),
        (b" " * 10_000_000, 413, "1,048,576"),
    ],
)
def test_what_is_no_upload_is_refused_with_its_reason_and_publishes_nothing(
    connector: RunningConnector, dms: Dms, said: bytes, status: int, names: str
) -> None:
    answer = connector.post("photos", said)
    assert answer.status_code == status
    assert names in answer.text
    assert events(dms) == []


def test_a_batch_with_one_wrong_event_publishes_none_of_it(connector: RunningConnector, dms: Dms) -> None:
    body = json.dumps([own(1), own(2, content={}), own(3)]).encode()
    assert connector.post("photos", body, **{"content-type": BATCH}).status_code == 400
    assert events(dms) == []


def test_without_the_token_nothing_is_taken_and_no_name_is_learned(connector: RunningConnector, dms: Dms) -> None:
    tokens = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": INLET_TOKEN}, {"Authorization": "Bearer ü"}]
    for name in ("photos", "no-such"):
        for headers in tokens:
            encoded = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
            answer = httpx.post(connector.inlet(name), json=asset(1), headers=encoded)
            assert (answer.status_code, answer.json()) == (401, {"error": "no such inlet, or not its token"})
    assert httpx.get(connector.inlet("photos")).status_code == 405
    assert events(dms) == []
    assert INLET_TOKEN not in connector.logged()


def test_without_a_confirm_the_sender_is_asked_to_come_again_within_four_seconds(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path
) -> None:
    node = private_broker()
    with running_connector(node.url, "connect", tmp_path, CONFIGURATION) as connector:
        assert connector.post("photos", asset(1)).status_code == 202
        # When RabbitMQ stands still, or takes no messages, or is gone
        node.pause()
        began_s = time.monotonic()
        answer = connector.post("photos", asset(2))
        took_s = time.monotonic() - began_s
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert took_s < 4.5  # 4, and what a busy machine takes for the request itself
        node.resume()
        # Then the same message, sent again, is taken, and nothing was lost
        until(lambda: connector.post("photos", asset(2)).status_code == 202, "it is taken")
        dms = Dms(node.url, "connect")
        assets = {event["data"]["asset_id"] for event in events(dms)}
        dms.close()
        assert assets == {"asset-1", "asset-2"}


def test_a_reload_starts_and_stops_connections_and_a_broken_file_changes_nothing(
    connector: RunningConnector, tmp_path: Path
) -> None:
    file = tmp_path / "connect.toml"
    file.write_text(CONFIGURATION.replace("[connect.files", "[connect.moved"))
    connector.process.send_signal(signal.SIGHUP)
    until(lambda: set(connector.status()["connections"]) == {"photos", "moved"}, "the settings are reloaded")
    file.write_text(CONFIGURATION.replace('preset = "immich"', 'preset = "no-such"'))
    connector.process.send_signal(signal.SIGHUP)
    until(lambda: "must be one of" in connector.logged(), "it says what is wrong")
    assert set(connector.status()["connections"]) == {"photos", "moved"}
    assert connector.post("photos", asset(3)).status_code == 202
