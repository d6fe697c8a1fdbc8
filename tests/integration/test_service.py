"""The spine: events go into a real broker, real children look at real photographs, results come out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import psutil
import pytest

from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service
from worker.messages import comparable
from worker.messages.schemas import schemas


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-service-{os.getpid()}"


@pytest.fixture(scope="module")
def service(
    broker: str, prefix: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    roots = json.dumps([str(photographs["chelsea"].parent), str(folder)])
    with running_service(broker, prefix, folder, SOURCES__PATH_ROOTS=roots) as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


def test_each_photograph_is_tagged_with_what_it_shows(dms: Dms, photographs: dict[str, Path]) -> None:
    # Given an event for each photograph
    events = {dms.publish({"path": str(file)}, asset_id=name): name for name, file in photographs.items()}
    # When their results have come
    found = dms.results_of(events)
    # Then there is one for each, valid under the schema, with the asset's id and the right tags
    names: dict[str, set[str]] = {}
    for key, name in events.items():
        (message,) = found[key]
        jsonschema.validate(json.loads(message.body), schemas()["result"])
        assert message.data["asset_id"] == name
        assert message.routing_key == f"default.{message.data['status']}"
        assert message.properties.message_id == json.loads(message.body)["id"]
        names[name] = {tag["name"] for tag in message.data["tags"]}
    assert names["chelsea"] == {"cat", "animal"}, "it is no Egyptian cat"
    assert "espresso" in names["coffee"]
    assert "motorcycle" in names["motorcycle_left"]


def test_a_redelivered_event_gives_the_same_result_under_the_same_id(dms: Dms, photographs: dict[str, Path]) -> None:
    # Given one event that is published twice, as a DMS does that had no answer the first time
    body = json.dumps(
        {
            "specversion": "1.0",
            "id": "published-twice",
            "source": "/dms",
            "type": "dms.image.uploaded.v1",
            "data": {"asset_id": "cat", "content": {"path": str(photographs["chelsea"])}},
        }
    ).encode()
    for _ in range(2):
        dms.publish_body(body, content_type="application/cloudevents+json")
    # When both results have come
    first, second = dms.results(2)
    # Then they can be recognised as the same, and are
    assert first.properties.message_id == second.properties.message_id
    assert comparable(first.body) == comparable(second.body)


def test_a_hundred_events_give_a_hundred_results(dms: Dms, photographs: dict[str, Path]) -> None:
    events = [dms.publish({"path": str(file)}) for file in photographs.values() for _ in range(20)]

    found = dms.results_of(events)

    assert sorted(found) == sorted(events)
    assert {len(messages) for messages in found.values()} == {1}
    assert dms.depth("images.live") == 0


def test_the_body_of_the_message_may_be_the_image_itself(dms: Dms, photographs: dict[str, Path]) -> None:
    headers = {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": "image-as-body",
        "cloudEvents:source": "/dms",
        "cloudEvents:type": "dms.image.uploaded.v1",
        "cloudEvents:subject": "espresso.jpg",
    }
    dms.publish_body(photographs["coffee"].read_bytes(), content_type="image/jpeg", headers=headers)

    (message,) = dms.results(1)

    assert message.data["asset_id"] == "espresso.jpg"
    assert "espresso" in {tag["name"] for tag in message.data["tags"]}


def test_the_parent_stays_small_and_loads_neither_tensorflow_nor_numpy_nor_pillow(
    dms: Dms, service: RunningService, photographs: dict[str, Path]
) -> None:
    dms.results_of([dms.publish({"path": str(photographs["rocket"])}) for _ in range(20)])

    parent = psutil.Process(service.process.pid)

    loaded = {Path(mapping.path).name for mapping in parent.memory_maps()}
    assert not [name for name in loaded if any(word in name for word in ("tensorflow", "_multiarray", "_imaging"))]
    assert parent.memory_info().rss < 88_000_000


def test_a_user_of_tags_is_left_alone_and_so_is_a_temporary_file(dms: Dms, photographs: dict[str, Path]) -> None:
    path = {"path": str(photographs["rocket"])}
    tagged, temporary = dms.publish(path, existing_tags=["mine"]), dms.publish(path, temporary=True)

    found = dms.results_of([tagged, temporary])

    assert (found[tagged][0].data["status"], found[tagged][0].data["reason"]) == ("skipped", "has_tags")
    assert (found[temporary][0].data["status"], found[temporary][0].data["reason"]) == ("skipped", "temporary")


def test_the_model_child_is_relaunched_when_it_is_killed_under_load(
    dms: Dms, service: RunningService, photographs: dict[str, Path]
) -> None:
    # Given events in the queue and the model at work
    events = [dms.publish({"path": str(photographs["chelsea"])}) for _ in range(100)]
    (child,) = until(lambda: service.children("model"), "there is a model child")
    # When the model child is killed
    child.kill()
    # Then every event has its result, and another child has taken over
    found = dms.results_of(events)
    assert {message.data["status"] for messages in found.values() for message in messages} == {"tagged"}
    (successor,) = until(lambda: service.children("model"), "the model child was relaunched")
    assert successor.pid != child.pid
    assert "SIGKILL" in service.logged()
