"""The cloud services as the DMS sees them: together with TensorFlow, busy, temporarily down, late, and on a budget."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_google
from tests.support.cloud import google_table, key, microsoft_table, picture
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.fake_service import CLOSE, Fault
from tests.support.monitoring import fetch, http_url, total
from tests.support.polling import until
from tests.support.service import inline
from tests.support.tenants import LOCAL, Tenancy, tenancy


class Clouds:
    """The fake services: each instance has its own."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.googles: dict[str, FakeGoogle] = {}
        self.microsofts: dict[str, FakeMicrosoft] = {}

    def google(self, instance: str, **more: Any) -> dict[str, Any]:
        """Start a Google for an instance; returns the settings that enable it."""
        service = self._stack.enter_context(FakeGoogle(key(instance)))
        self.googles[instance] = service
        return google_table(service.url, key(instance), **more)

    def microsoft(self, instance: str, path: str = "", **more: Any) -> dict[str, Any]:
        """The same for Microsoft."""
        service = self._stack.enter_context(FakeMicrosoft(key(instance)))
        self.microsofts[instance] = service
        return microsoft_table(service.url + path, key(instance), **more)


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with ExitStack() as stack:
        yield Clouds(stack)


@pytest.fixture(scope="module")
def it(
    broker: str, clouds: Clouds, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tenancy]:
    instances: dict[str, dict[str, Any]] = {
        "three": {
            "tensorflow": LOCAL,
            "google_cloud_vision": clouds.google("three"),
            "microsoft_vision": clouds.microsoft("three", "/vision/v3.2"),
        },
        "busy": {"google_cloud_vision": clouds.google("busy")},
        "down": {
            "tensorflow": LOCAL,
            "google_cloud_vision": clouds.google("down", maximum_number_of_attempts=2),
            "microsoft_vision": clouds.microsoft("down"),
        },
        "slow": {"provider_wait_s": 0.5, "tensorflow": LOCAL, "google_cloud_vision": clouds.google("slow")},
        "gone": {
            "tensorflow": LOCAL,
            "google_cloud_vision": clouds.google("gone", maximum_number_of_attempts=1),
        },
        "refused": {"google_cloud_vision": clouds.google("refused")},
        "partial": {"google_cloud_vision": clouds.google("partial")},
        "exhausted": {"google_cloud_vision": clouds.google("exhausted", calls_per_month=1)},
        "exhausted-with-model": {
            "tensorflow": LOCAL,
            "google_cloud_vision": clouds.google("exhausted-with-model", calls_per_month=0),
        },
    }
    folder = tmp_path_factory.mktemp("cloud")
    sources = {"path_roots": [str(photographs["coffee"].parent), str(folder)]}
    prefix = f"test-cloud-{os.getpid()}"
    with tenancy(broker, prefix, folder, instances=instances, sources=sources) as tenants:
        yield tenants


def reports(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {report["name"]: report for report in data["providers"]}


def statuses(data: dict[str, Any]) -> dict[str, str]:
    return {name: report["status"] for name, report in reports(data).items()}


def providers_of_tags(data: dict[str, Any]) -> set[str]:
    return {tag["provider"] for tag in data["tags"]}


def model_images(it: Tenancy) -> int:
    """Images that the model child has processed."""
    children = (it.service.status() or {})["children"]
    return sum(child["images_done"] for child in children if child["name"].startswith("model"))


def test_three_providers_give_one_result_with_all_their_tags_merged_and_ordered(
    it: Tenancy, clouds: Clouds, photographs: dict[str, Path]
) -> None:
    # Given an instance with all three providers enabled
    # When an image of a cat is published
    event = it.dms.publish({"path": str(photographs["chelsea"])}, instance="three")
    (data,) = it.one_result(event)
    # Then there is one result, with tags of all three, best first, and no name twice
    assert (data["status"], data["complete"]) == ("tagged", True)
    assert providers_of_tags(data) == {"tensorflow", "google_cloud_vision", "microsoft_vision"}
    tags = data["tags"]
    assert tags == sorted(tags, key=lambda tag: (-tag["confidence"], tag["name"].casefold()))
    names = [tag["name"].casefold() for tag in tags]
    assert len(names) == len(set(names))
    # And where two services suggest the same name, the higher confidence is kept
    (both,) = [tag for tag in tags if tag["name"].startswith("image ")]
    assert (both["provider"], both["confidence"]) == ("microsoft_vision", 0.999)
    # And it reports what each provider answered, and how long that took
    for report in data["providers"]:
        assert report["status"] == "ok"
        assert 0 < report["duration_s"] < 30
        assert report["model"]
    assert [len(clouds.googles["three"].calls), len(clouds.microsofts["three"].calls)] == [1, 1]


def test_a_google_that_asks_for_two_seconds_three_times_gets_them_and_there_is_one_result(
    it: Tenancy, clouds: Clouds
) -> None:
    # Given a Google that answers 429 with Retry-After: 2 three times
    google = clouds.googles["busy"]
    google.next(*[fake_google.too_many("2")] * 3)
    # When an image is published
    event = it.dms.publish(inline(picture(1)), instance="busy")
    (data,) = it.one_result(event)
    # Then the fourth call was answered, each call at least two seconds after the one before
    assert [call.status for call in google.calls] == [429, 429, 429, 200]
    assert min(google.gaps_s) >= 2
    assert (data["status"], data["complete"], statuses(data)) == ("tagged", True, {"google_cloud_vision": "ok"})
    assert it.dms.take("results") is None


def test_while_google_is_down_the_other_tags_go_out_at_once_and_googles_follow(
    it: Tenancy, clouds: Clouds, photographs: dict[str, Path]
) -> None:
    # Given a Google that closes every connection
    google = clouds.googles["down"]
    google.always = CLOSE
    seen_before, images_before = len(it.dms.seen), model_images(it)
    # When images are published
    started_s = time.monotonic()
    events = [
        it.dms.publish({"path": str(photographs[name])}, instance="down", context={"of": name})
        for name in ("chelsea", "coffee")
    ]
    first = it.dms.results_of(events)
    took_s = time.monotonic() - started_s
    # Then the tags of the other two are published at once, in an incomplete result
    assert took_s < 10
    for event in events:
        (message,) = first[event]
        assert (message.data["status"], message.data["complete"]) == ("tagged", False)
        assert providers_of_tags(message.data) == {"tensorflow", "microsoft_vision"}
        assert reports(message.data)["google_cloud_vision"]["status"] == "unavailable"
        assert reports(message.data)["google_cloud_vision"]["reason"] in {"connection_lost", "circuit_open"}
    # And when Google recovers after several attempts, the tags of all three follow
    until(lambda: len(google.calls) >= 4 and time.monotonic() - started_s > 8, "it was asked again while it was down")
    google.always = None
    second = it.dms.results_of(events)
    for event in events:
        (before,), (after,) = first[event], second[event]
        assert (after.data["status"], after.data["complete"]) == ("tagged", True)
        assert providers_of_tags(after.data) == {"tensorflow", "google_cloud_vision", "microsoft_vision"}
        assert set(statuses(after.data).values()) == {"ok"}
        # And no provider but Google was asked a second time
        for other in ("tensorflow", "microsoft_vision"):
            assert reports(after.data)[other] == reports(before.data)[other]
        assert before.properties.message_id != after.properties.message_id
        assert before.data["context"] == after.data["context"] == {"of": ("chelsea", "coffee")[events.index(event)]}
    assert model_images(it) - images_before == 2
    assert len(clouds.microsofts["down"].calls) == 2
    # And the DMS received two results for each, no more, and every queue is empty
    assert len(it.dms.seen) - seen_before == 4
    assert {it.dms.depth(queue) for queue in ("images.live", "results", "dead-letters")} == {0}


def test_an_event_published_twice_while_google_is_down_gives_the_same_two_ids_twice(
    it: Tenancy, clouds: Clouds, photographs: dict[str, Path]
) -> None:
    google = clouds.googles["gone"]
    google.always = fake_google.unavailable()
    body = json.dumps(
        {
            "specversion": "1.0",
            "id": "published-twice",
            "source": "/dms",
            "type": "dms.image.uploaded.v1",
            "data": {
                "asset_id": "cat",
                "instance": "gone",
                "content": {"path": str(photographs["chelsea"])},
            },
        }
    ).encode()
    for _ in range(2):
        it.dms.publish_body(body, content_type="application/cloudevents+json")

    partial = it.dms.results(2)
    google.always = None
    complete = it.dms.results(2)

    assert [message.data["complete"] for message in (*partial, *complete)] == [False, False, True, True]
    partial_ids, complete_ids = ({each.properties.message_id for each in some} for some in (partial, complete))
    assert (len(partial_ids), len(complete_ids)) == (1, 1)
    assert partial_ids != complete_ids


def test_a_late_provider_does_not_delay_the_others_and_its_tags_follow(
    it: Tenancy, clouds: Clouds, photographs: dict[str, Path]
) -> None:
    # Given a Google that takes its time, and an instance that waits half a second
    google, answer = clouds.googles["slow"], threading.Event()
    google.next(Fault(released=answer))
    # When an image is published
    event = it.dms.publish({"path": str(photographs["coffee"])}, instance="slow")
    # Then TensorFlow's tags are published before Google's, in a result that names the late provider
    (early,) = it.one_result(event)
    assert (early["complete"], providers_of_tags(early)) == (False, {"tensorflow"})
    assert reports(early)["google_cloud_vision"]["reason"] == "late"
    # And the supplement follows by itself, from the same call
    in_flight_s = time.monotonic() - google.calls[0].at_s
    answer.set()
    (complete,) = it.one_result(event)
    assert (complete["complete"], providers_of_tags(complete)) == (True, {"tensorflow", "google_cloud_vision"})
    assert reports(complete)["google_cloud_vision"]["duration_s"] > in_flight_s - 0.01 > 0.4
    assert len(google.calls) == 1


def test_labels_that_come_with_an_error_are_kept_and_the_result_notes_it(it: Tenancy, clouds: Clouds) -> None:
    image = picture(7)
    labels = [{"mid": "/m/1", "description": "Freight car", "score": 0.9, "topicality": 0.9}]
    clouds.googles["partial"].image_errors[image] = {
        "labelAnnotations": labels,
        "error": {"code": 13, "message": "Some labels could not be made."},
    }

    (data,) = it.one_result(it.dms.publish(inline(image), instance="partial"))

    (report,) = data["providers"]
    assert (report["status"], [tag["name"] for tag in data["tags"]]) == ("ok", ["goods wagon"])
    assert "only a part of its labels: Some labels could not be made." in report["message"]


def test_unusable_labels_are_left_out_and_the_result_notes_it(it: Tenancy, clouds: Clouds) -> None:
    clouds.googles["partial"].labels = [
        {"description": "Freight car", "score": 0.9},
        {"description": "Rolling stock", "score": float("nan")},
        {"description": "x" * 10_000, "score": 0.8},
        {"description": "Train", "score": "high"},
        {"score": 0.7},
    ]

    (data,) = it.one_result(it.dms.publish(inline(picture(8)), instance="partial"))

    assert [tag["name"] for tag in data["tags"]] == ["goods wagon"]
    assert "sent 4 tags that can't be used" in data["providers"][0]["message"]


def test_an_answer_without_labels_is_an_answer(it: Tenancy, clouds: Clouds) -> None:
    clouds.googles["partial"].labels = []

    (data,) = it.one_result(it.dms.publish(inline(picture(9)), instance="partial"))

    assert (data["status"], data["complete"], statuses(data)) == ("no_tags", True, {"google_cloud_vision": "ok"})
    assert it.dms.depth("dead-letters") == 0


def test_a_refused_key_of_an_instance_without_another_provider_fails_its_events_with_what_to_do(
    it: Tenancy, clouds: Clouds
) -> None:
    google = clouds.googles["refused"]
    google.accepted.clear()

    events = [it.dms.publish(inline(picture(seed)), instance="refused") for seed in range(20, 25)]
    found = it.one_result(*events)

    for data in found:
        assert (data["status"], data["reason"], data["complete"]) == ("failed", "google_key_refused", True)
        assert "set `google_cloud_vision.api_key`" in data["message"]
    letters = [until(lambda: it.dms.take("dead-letters"), "a dead letter arrived") for _ in events]
    assert {letter.properties.headers["x-autotag-reason"] for letter in letters} == {"google_key_refused"}
    assert all("google_cloud_vision.api_key" in letter.properties.headers["x-autotag-message"] for letter in letters)
    # One call was refused; most of the others were not made.
    assert len(google.calls) < len(events)
    metrics = fetch(f"{http_url(it.service)}/metrics").body
    assert total(metrics, "autotag_provider_calls_total", dms_instance="refused", outcome="google_key_refused") >= 1
    replies = {"provider": "google_cloud_vision", "status": "failed", "reason": "google_key_refused"}
    assert total(metrics, "autotag_provider_replies_total", **replies) == len(events)


def test_with_an_exhausted_budget_the_other_providers_tags_make_the_final_result(
    it: Tenancy, clouds: Clouds, photographs: dict[str, Path]
) -> None:
    event = it.dms.publish({"path": str(photographs["coffee"])}, instance="exhausted-with-model")

    (data,) = it.one_result(event)

    assert (data["status"], data["complete"], providers_of_tags(data)) == ("tagged", True, {"tensorflow"})
    assert statuses(data) == {"tensorflow": "ok", "google_cloud_vision": "unavailable"}
    assert reports(data)["google_cloud_vision"]["reason"] == "budget_exhausted"
    assert "the budget renews at" in reports(data)["google_cloud_vision"]["message"]
    assert clouds.googles["exhausted-with-model"].calls == []


def test_with_an_exhausted_budget_and_no_other_provider_events_wait_until_it_is_raised(
    it: Tenancy, clouds: Clouds
) -> None:
    # Given an instance with Google only, and one call left
    google = clouds.googles["exhausted"]
    events = [it.dms.publish(inline(picture(seed)), instance="exhausted") for seed in range(30, 33)]
    # When that call is made
    (first,) = it.dms.results(1)
    # Then the other events wait: they neither fail nor get a result without tags, however often they are redelivered
    until(
        lambda: it.service.logged().count('"reason": "budget_exhausted"') >= 4,
        "the others were redelivered and still wait",
    )
    assert (it.dms.take("results"), it.dms.depth("dead-letters")) == (None, 0)
    assert sum(google.batch_sizes) == 1
    # And when the budget is raised they are tagged too
    instances = it.settings["instances"]
    raised = instances["exhausted"]["google_cloud_vision"] | {"calls_per_month": 3}
    it.reload(instances=instances | {"exhausted": {"google_cloud_vision": raised}})
    rest = it.dms.results(2)
    assert sorted(message.data["event_id"] for message in (first, *rest)) == sorted(events)
    assert {message.data["status"] for message in (first, *rest)} == {"tagged"}
    assert sum(google.batch_sizes) == 3
