"""Virtual instances in one running service: each with its own switches, thresholds and keys, also across reloads."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import google_table, key, microsoft_table, picture
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.fake_service import Fault
from tests.support.polling import until
from tests.support.service import inline
from tests.support.tenants import LOCAL, Tenancy, tenancy


class Clouds:
    """The fake services: one of each kind shared by most instances, and a separate Google for `gamma` and `delta`."""

    def __init__(self, stack: ExitStack) -> None:
        names = ("acme", "beta", "old", "limited")
        self.google = stack.enter_context(FakeGoogle(*map(key, names)))
        self.microsoft = stack.enter_context(FakeMicrosoft(*map(key, names)))
        self.gamma = stack.enter_context(FakeGoogle(key("gamma"), key("gamma-new")))
        self.delta = stack.enter_context(FakeGoogle(key("delta")))


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with ExitStack() as stack:
        yield Clouds(stack)


@pytest.fixture(scope="module")
def it(
    broker: str, clouds: Clouds, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tenancy]:
    google, microsoft = clouds.google.url, clouds.microsoft.url
    instances: dict[str, dict[str, Any]] = {
        "acme": {
            "google_cloud_vision": google_table(google, confidence_threshold=0.9),  # its key is a secret, see below
            "microsoft_vision": microsoft_table(microsoft, key("acme"), language="ja"),
        },
        "beta": {
            "tensorflow": LOCAL | {"confidence_threshold": 0.05},
            "google_cloud_vision": google_table(google, key("beta"), maximum_number_of_results=2),
            "microsoft_vision": microsoft_table(microsoft, key("beta"), confidence_threshold=0.6),
        },
        "old": {"microsoft_vision": microsoft_table(f"{microsoft}/vision/v2.0/", key("old"))},
        "keyless": {"google_cloud_vision": google_table(google)},
        "limited": {
            "maximum_number_of_tags_per_asset": 2,
            "google_cloud_vision": google_table(google, key("limited")),
            "sites": {"intranet": False},
        },
        "off": {"enabled": False, "google_cloud_vision": google_table(google, key("acme"))},
        "gamma": {"google_cloud_vision": google_table(clouds.gamma.url, key("gamma"), confidence_threshold=0.9)},
        "delta": {"google_cloud_vision": google_table(clouds.delta.url, key("delta"))},
    }
    # TensorFlow is on in the defaults and off in all instances except `beta`.
    # On a busy machine no provider is late either: each event has one result.
    common: dict[str, Any] = {"tensorflow": {"enabled": False}, "provider_wait_s": 60}
    instances = {name: common | each for name, each in instances.items()}
    folder = tmp_path_factory.mktemp("instances")
    with tenancy(
        broker,
        f"test-instances-{os.getpid()}",
        folder,
        instances=instances,
        secrets={"instances__acme__google_cloud_vision__api_key": f"{key('acme')}\n"},
        sources={"path_roots": [str(photographs["coffee"].parent)]},
        defaults={"tensorflow": LOCAL},
        maximum_number_of_tags_per_asset=4,
    ) as tenants:
        yield tenants


def digest(image: bytes) -> str:
    """The name that the fakes give to an image."""
    return f"image {hashlib.sha256(image).hexdigest()[:12]}"


def test_among_200_mixed_events_each_call_has_its_own_instances_key_and_each_result_its_settings(
    it: Tenancy, clouds: Clouds
) -> None:
    # Given 200 events of two instances with different keys and thresholds, all at once and in random order
    images = {digest(image): image for image in map(picture, range(1000, 1200))}
    owners = {name: ("acme", "beta")[number % 2] for number, name in enumerate(images)}
    order = list(images)
    random.Random(4).shuffle(order)
    events = {it.dms.publish(inline(images[name]), instance=owners[name]): name for name in order}
    # When all have been answered
    results = dict(zip(events, it.one_result(*events), strict=True))
    # Then every call carried the key of the instance whose images were in it
    sent: Counter[str] = Counter()
    for call in clouds.google.calls:
        for request in call.json()["requests"]:
            name = digest(base64.b64decode(request["image"]["content"]))
            assert clouds.google.key_of(call) == key(owners[name])
            assert request["features"][0]["maxResults"] == {"acme": 10, "beta": 2}[owners[name]]
            sent[name] += 1
    for call in clouds.microsoft.calls:
        name = digest(call.body)
        assert clouds.microsoft.key_of(call) == key(owners[name])
        assert call.query["language"] == {"acme": "ja", "beta": "en"}[owners[name]]
        sent[name] += 1
    # And each image went once to each service
    assert sent == dict.fromkeys(images, 2)
    # And each result has the tags of its own image, under its instance's thresholds
    for event, name in events.items():
        data = results[event]
        assert (data["instance"], data["status"], data["complete"]) == (owners[name], "tagged", True)
        tags = {(tag["provider"], tag["name"]) for tag in data["tags"]}
        assert {tag for provider, tag in tags if tag.startswith("image ")} == {name}
        cloud = {tag for tag in tags if tag[0] != "tensorflow"}
        if owners[name] == "acme":
            assert [report["name"] for report in data["providers"]] == ["google_cloud_vision", "microsoft_vision"]
            assert cloud == {
                ("microsoft_vision", name),
                ("microsoft_vision", "train"),
                ("microsoft_vision", "outdoor"),
            }
        else:
            assert data["providers"][0]["name"] == "tensorflow"
            assert cloud <= {
                ("microsoft_vision", name),
                ("microsoft_vision", "train"),
                ("google_cloud_vision", "goods wagon"),
            }
            assert ("microsoft_vision", name) in cloud


def test_the_systems_limit_holds_unless_the_instance_has_a_lower_one_and_the_best_tags_are_kept(it: Tenancy) -> None:
    by_instance, by_system = (
        it.dms.publish(inline(picture(1)), instance="limited"),
        it.dms.publish(inline(picture(2)), instance="beta"),
    )

    two, four = it.one_result(by_instance, by_system)

    assert [tag["confidence"] for tag in two["tags"]] == [0.95, 0.8125]
    assert len(four["tags"]) <= 4
    assert four["tags"][0]["confidence"] == 0.999


def test_switches_of_system_instance_and_site_and_unknown_instances(it: Tenancy, photographs: dict[str, Path]) -> None:
    image = {"path": str(photographs["coffee"])}
    site, other_site, off, unknown = it.one_result(
        it.dms.publish(image, instance="limited", site="intranet"),
        it.dms.publish(image, instance="limited", site="public"),
        it.dms.publish(image, instance="off"),
        it.dms.publish(image, instance="unknown.example"),
    )

    assert (site["status"], site["reason"]) == ("skipped", "site_disabled")
    assert other_site["status"] == "tagged"
    assert (off["status"], off["reason"]) == ("skipped", "instance_disabled")
    # The defaults hold for an instance that is not in the settings, unless `unknown_instances` is `skip`.
    assert (unknown["status"], unknown["instance"]) == ("tagged", "unknown.example")
    it.reload(unknown_instances="skip")
    (unknown,) = it.one_result(it.dms.publish(image, instance="unknown.example"))
    assert (unknown["status"], unknown["reason"]) == ("skipped", "unknown_instance")


def test_an_instance_without_a_key_fails_alone_and_is_reported_at_start(
    it: Tenancy, photographs: dict[str, Path]
) -> None:
    image = {"path": str(photographs["coffee"])}

    keyless, limited = it.one_result(
        it.dms.publish(image, instance="keyless"), it.dms.publish(image, instance="limited")
    )

    assert (keyless["status"], keyless["reason"], limited["status"]) == ("failed", "key_missing", "tagged")
    assert "set instances.keyless.google_cloud_vision.api_key or the secret" in keyless["message"]
    letter = until(lambda: it.dms.take("dead-letters"), "a dead letter arrived")
    assert letter.properties.headers["x-autotag-instance"] == "keyless"
    before_the_first_event = it.service.logged().partition('"event": "engine is open"')[0]
    assert "without a key; set instances.keyless.google_cloud_vision.api_key" in before_the_first_event


def test_a_retired_api_still_works_with_a_warning_at_start_and_reload(it: Tenancy) -> None:
    (data,) = it.one_result(it.dms.publish(inline(picture(5)), instance="old"))
    assert (data["status"], data["providers"][0]["model"]) == ("tagged", "microsoft_vision/2.0")

    warning = "2.0 was retired on 2026-09-13"
    assert warning in it.service.logged().partition('"event": "engine is open"')[0]
    before = it.service.logged().count(warning)
    it.reload()
    until(lambda: it.service.logged().count(warning) == before + 1, "another warning is logged")


def test_a_reload_of_one_instance_touches_no_call_in_flight(it: Tenancy, clouds: Clouds) -> None:
    # Given calls in flight for two instances
    answer = threading.Event()
    clouds.gamma.next(Fault(released=answer))
    clouds.delta.next(Fault(released=answer))
    in_flight = {name: it.dms.publish(inline(picture(6)), instance=name) for name in ("gamma", "delta")}
    until(lambda: clouds.gamma.calls and clouds.delta.calls, "both were called")
    # When one of them gets another key and threshold, and an event with these
    instances = it.settings["instances"]
    changed = google_table(clouds.gamma.url, key("gamma-new"), confidence_threshold=0.5)
    it.reload(instances=instances | {"gamma": instances["gamma"] | {"google_cloud_vision": changed}})
    assert it.dms.take("results") is None, "the calls were in flight all the time"
    (new,) = it.one_result(it.dms.publish(inline(picture(7)), instance="gamma"))
    # Then the new event was sent with the new key and its result has the new threshold
    assert [tag["confidence"] for tag in new["tags"]] == [0.95, 0.8125, 0.5]
    # And the calls in flight ended with the settings they began with, once each
    answer.set()
    old, other = it.one_result(*in_flight.values())
    assert [tag["confidence"] for tag in old["tags"]] == [0.95]
    assert [tag["confidence"] for tag in other["tags"]] == [0.95, 0.8125, 0.5]
    assert clouds.gamma.keys == [key("gamma"), key("gamma-new")]
    assert clouds.delta.keys == [key("delta")]


def test_an_invalid_change_is_refused_with_the_reason_and_the_old_settings_stay(it: Tenancy, clouds: Clouds) -> None:
    instances = it.settings["instances"]
    wrong = instances["delta"]["google_cloud_vision"] | {"confidence_threshold": 1.5}

    line = it.reload_refused(instances=instances | {"delta": {"google_cloud_vision": wrong}})

    assert "instances.delta.google_cloud_vision.confidence_threshold = 1.5: must be a number from 0 to 1" in line
    (data,) = it.one_result(it.dms.publish(inline(picture(8)), instance="delta"))
    assert data["status"] == "tagged"


def test_a_provider_that_no_instance_used_at_start_is_enabled_by_a_reload(
    broker: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    image = {"path": str(photographs["chelsea"])}
    sources = {"path_roots": [str(photographs["coffee"].parent)]}
    instances: dict[str, dict[str, Any]] = {"acme": {"tensorflow": LOCAL}}
    with (
        FakeGoogle(key("acme")) as google,
        tenancy(
            broker,
            f"test-switched-on-{os.getpid()}",
            tmp_path,
            instances=instances,
            sources=sources,
            cloud={"allow_private_endpoints": False},
        ) as it,
    ):
        (before,) = it.one_result(it.dms.publish(image, instance="acme"))
        assert [report["name"] for report in before["providers"]] == ["tensorflow"]
        # When Google is enabled, at an address that the cloud settings do not allow
        both = {"tensorflow": LOCAL, "google_cloud_vision": google_table(google.url, key("acme"))}
        it.reload(instances={"acme": both})
        (refused,) = it.one_result(it.dms.publish(image, instance="acme"))
        # Then it is asked, and its error is reported beside the other provider's tags
        reasons = {report["name"]: report["reason"] for report in refused["providers"]}
        assert reasons == {"tensorflow": None, "google_cloud_vision": "endpoint_not_public"}
        assert (refused["status"], refused["complete"], google.calls) == ("tagged", True, [])
        # And when the cloud settings allow it, it answers
        it.reload(cloud=it.settings["cloud"] | {"allow_private_endpoints": True})
        (tagged,) = it.one_result(it.dms.publish(image, instance="acme"))
        assert {report["status"] for report in tagged["providers"]} == {"ok"}
        assert google.keys == [key("acme")]
        # And when no instance uses it any more, it is not asked
        it.reload(instances=instances)
        (after,) = it.one_result(it.dms.publish(image, instance="acme"))
        assert [report["name"] for report in after["providers"]] == ["tensorflow"]
        assert len(google.calls) == 1
