"""The HTTP inlet beside a real RabbitMQ: taken is what is confirmed, all else is answered with its reason."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from rabbitmq_node import PrivateBroker

from tests.support.connector import INLET_TOKEN, RunningConnector, running_connector
from tests.support.polling import until
from tests.support.service import Dms
from worker.cli.exit_codes import ExitCode
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
INLET_OF_NEW = f'[connect.new.inlet]\ntoken = "{INLET_TOKEN}"\n'
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


@pytest.fixture(scope="module")
def refusing(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningConnector, Dms]]:
    """A connector that is only ever sent what it refuses, and its queues, in which nothing ever is."""
    prefix = f"test-refusing-{os.getpid()}"
    with running_connector(broker, prefix, tmp_path_factory.mktemp("refusing"), CONFIGURATION) as running:
        queues = Dms(broker, prefix)
        yield running, queues
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
    return [json.loads(message.body) for message in dms.waiting("images.live")]


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
    refusing: tuple[RunningConnector, Dms], said: bytes, status: int, names: str
) -> None:
    connector, dms = refusing
    answer = connector.post("photos", said)
    assert answer.status_code == status
    assert names in answer.text
    assert events(dms) == []


def test_a_batch_with_one_wrong_event_publishes_none_of_it(refusing: tuple[RunningConnector, Dms]) -> None:
    connector, dms = refusing
    body = json.dumps([own(1), own(2, content={}), own(3)]).encode()
    assert connector.post("photos", body, **{"content-type": BATCH}).status_code == 400
    assert events(dms) == []


def test_without_the_token_nothing_is_taken(connector: RunningConnector, dms: Dms) -> None:
    for given in (
        None,
        b"",
        b"Bearer",
        b"Bearer wrong",
        INLET_TOKEN.encode(),
        b"Basic " + INLET_TOKEN.encode(),
        b"\xfc",
    ):
        headers = [] if given is None else [(b"authorization", given)]
        answer = httpx.post(connector.inlet("photos"), json=asset(1), headers=headers)
        assert answer.status_code == 401
        assert "Authorization: Bearer TOKEN" in answer.json()["error"]
    assert connector.post("files", asset(1)).status_code == 401, "the token belongs into another header there"
    assert connector.post("no-such", asset(1)).status_code == 404
    refused = httpx.get(connector.inlet("photos"))
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert events(dms) == []
    assert INLET_TOKEN not in connector.logged()
    # Names of schemes are written in any letters
    assert connector.post("photos", asset(1), Authorization=f"bearer {INLET_TOKEN}").status_code == 202


def refused_in_time(connector: RunningConnector, said: Any, **headers: str) -> None:
    """The sender is asked to come again within four seconds, and what a busy machine takes for the request itself."""
    answer = connector.post("photos", said, **headers)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.elapsed.total_seconds() < 4.5


def test_without_a_confirm_the_sender_is_asked_to_come_again_within_four_seconds(
    node: PrivateBroker, queue_prefix: str, tmp_path: Path
) -> None:
    batch = json.dumps([own(number) for number in range(1000)]).encode()
    with running_connector(node.url, queue_prefix, tmp_path, CONFIGURATION) as connector:
        assert connector.post("photos", asset(1)).status_code == 202
        node.pause()
        refused_in_time(connector, asset(2))
        refused_in_time(connector, batch, **{"content-type": BATCH})
        node.resume()
        until(lambda: connector.post("photos", asset(2)).status_code == 202, "it is taken when it comes again")
        until(lambda: connector.post("photos", batch, **{"content-type": BATCH}).status_code == 202, "so is the batch")
        dms = Dms(node.url, queue_prefix)
        found = events(dms)
        dms.close()
        expected = {"asset-1", "asset-2"} | {f"own-{number}" for number in range(1000)}
        assert {event["data"]["asset_id"] for event in found} == expected
        assert len({event["id"] for event in found}) == len(expected), "what came twice is one event"


@pytest.mark.parametrize("alarm", ["memory", "disk"])
def test_while_the_broker_takes_no_messages_senders_are_asked_to_come_again(
    node: PrivateBroker, queue_prefix: str, tmp_path: Path, alarm: str
) -> None:
    raise_alarm = node.set_memory_alarm if alarm == "memory" else node.set_disk_alarm
    with running_connector(node.url, queue_prefix, tmp_path, CONFIGURATION) as connector:
        assert connector.post("photos", asset(1)).status_code == 202
        raise_alarm(True)
        refused_in_time(connector, asset(2))
        until(lambda: not connector.is_ready(), "it is not ready")
        refused_in_time(connector, asset(3))
        raise_alarm(False)
        until(connector.is_ready, "it is ready again")
        for number in (2, 3):
            assert connector.post("photos", asset(number)).status_code == 202
        dms = Dms(node.url, queue_prefix)
        assert {event["data"]["asset_id"] for event in events(dms)} == {"asset-1", "asset-2", "asset-3"}
        dms.close()


def test_when_the_broker_is_killed_what_was_taken_is_there_and_the_rest_is_sent_again(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path
) -> None:
    node = private_broker()
    taken: set[str] = set()

    with running_connector(node.url, "connect", tmp_path, CONFIGURATION) as connector:

        def send(number: int) -> bool:
            status = connector.post("photos", asset(number)).status_code
            assert status in (202, 503)
            if status == 202:
                taken.add(f"asset-{number}")
            return status == 202

        for number in range(20):
            assert send(number)
        node.flush_metadata()
        node.kill()
        refused_in_time(connector, asset(20))
        node.start()
        until(lambda: send(20), "it is taken once RabbitMQ is back", within_s=60)
        dms = Dms(node.url, "connect")
        assert taken <= {event["data"]["asset_id"] for event in events(dms)}
        dms.close()


def test_slow_and_idle_senders_keep_nobody_else_out(connector: RunningConnector, dms: Dms) -> None:
    host, port = connector.url.removeprefix("http://").split(":")
    head = f"POST /in/photos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {INLET_TOKEN}\r\nContent-Length: 100\r\n\r\n"
    with ExitStack() as open_ones:
        for number in range(400):
            sender = open_ones.enter_context(closing(socket.create_connection((host, int(port)), timeout=10)))
            with suppress(OSError):  # closed to make room
                sender.sendall((b"", b"POST /in", head.encode() + b"{")[number % 3])
        assert connector.post("photos", asset(1)).status_code == 202
        assert connector.is_ready()
    assert len(events(dms)) == 1


def test_a_reload_starts_and_stops_connections_and_a_broken_one_changes_nothing(
    connector: RunningConnector, tmp_path: Path
) -> None:
    def reload(configuration: str) -> None:
        (tmp_path / "connect.toml").write_text(configuration)
        connector.process.send_signal(signal.SIGHUP)

    reload(CONFIGURATION.replace("[connect.files", "[connect.moved"))
    until(lambda: set(connector.status()["connections"]) == {"photos", "moved"}, "the settings are reloaded")
    # When the settings are wrong, or a connection can't be made of them
    reload(CONFIGURATION.replace('preset = "immich"', 'preset = "no-such"'))
    until(lambda: "must be one of" in connector.logged(), "it says what is wrong")
    unusable = '[connect.new]\nurl = "https://x.example"\nca_file = "/no/such.pem"\npreset = "immich"\n'
    reload(CONFIGURATION.replace('instance = "acme"', 'instance = "globex"') + unusable + INLET_OF_NEW)
    until(lambda: "connect.new.ca_file" in connector.logged(), "it says what is wrong")
    # Then all is as it was
    assert set(connector.status()["connections"]) == {"photos", "moved"}
    assert connector.post("photos", asset(3)).status_code == 202
    assert connector.status()["connections"]["photos"]["instance"] == "acme"


def test_connections_that_cannot_work_are_refused_at_the_start(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "connect.toml"
    file.write_text(CONFIGURATION.replace("token_header", 'asset_id = "nosuch(id)"\ntoken_header'))
    file.chmod(0o600)
    command = [sys.executable, "-m", "worker", "--config", str(file), "connect"]
    environment = {**os.environ, "AUTOTAG_AMQP__URL": broker}
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert refused.returncode == ExitCode.USAGE
    assert "connect.files.inlet.asset_id" in refused.stderr
    assert "there is no function nosuch()" in refused.stderr
