"""What is wrong with one instance's service, key or endpoint: its results and `autotag check` say so; nobody stops."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_google, fake_microsoft
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.fake_service import CLOSE, GARBAGE, HTML_PAGE, FakeService, Response, Trouble, instead
from tests.support.tenants import LOCAL, Tenancy, asking_google, asking_microsoft, key, tenancy
from worker.diagnostics.preflight import CheckResult, check_instance
from worker.settings import load_settings


@dataclass(frozen=True)
class Fault:
    """What is wrong for one instance. `reason` stands in its results, `said` in what `autotag check` says."""

    reason: str
    said: str
    provider: str = "google_cloud_vision"
    refusal: Response | None = None
    trouble: Trouble | None = None
    endpoint: str = "{url}"
    right_key: bool = True
    more: dict[str, Any] = field(default_factory=dict)
    unavailable: bool = False


def labels(*pairs: tuple[object, object]) -> Trouble:
    """A Google that gives these labels."""
    found = [{"mid": "/m/1", "description": name, "score": score, "topicality": 0.5} for name, score in pairs]
    return instead(200, {"responses": [{"labelAnnotations": found}]})


def in_google(reason: str, said: str, **more: Any) -> Fault:
    return Fault(reason, said, **more)


def in_microsoft(reason: str, said: str, **more: Any) -> Fault:
    return Fault(reason, said, "microsoft_vision", **more)


GOOGLE_SAYS = fake_google.error
FAULTS = {
    "google-key-wrong": in_google("google_key_refused", "set `google_cloud_vision.api_key`", right_key=False),
    "google-key-empty": in_google("key_missing", "without a key", more={"api_key": ""}),
    "google-project": in_google(
        "google_project_refused",
        "see to the state of the key's project",
        refusal=GOOGLE_SAYS(403, "Project does not match.", "PERMISSION_DENIED", "CONSUMER_INVALID"),
    ),
    "google-disabled": in_google("api_not_enabled", "enable the Cloud Vision API", refusal=fake_google.API_DISABLED),
    "google-billing": in_google("billing_disabled", "enable billing", refusal=fake_google.BILLING_DISABLED),
    "google-restricted": in_google(
        "google_key_restricted", "allow the key this API", refusal=fake_google.KEY_RESTRICTED
    ),
    "google-path": in_google("endpoint_unknown", "its path '/v9/labels'", endpoint="{url}/v9/labels"),
    "google-project-path": in_google(
        "endpoint_unknown", "correct `google_cloud_vision.endpoint`", endpoint="{url}/v1/projects/Our.Archive"
    ),
    "google-unreachable": in_google("unreachable", "could not be reached", endpoint="{nowhere}"),
    "google-quota": in_google("quota_exhausted", "asks for fewer calls", trouble=fake_google.too_many()),
    "google-html": in_google("garbled_answer", "is no annotation", trouble=HTML_PAGE),
    "google-garbage": in_google("connection_lost", "broke the connection off", trouble=GARBAGE),
    "google-closes": in_google("connection_lost", "broke the connection off", trouble=CLOSE),
    "google-nan": in_google("garbled_answer", "no number from 0 to 1", trouble=labels(("cat", float("nan")))),
    "google-long": in_google("garbled_answer", "longer than 255 characters", trouble=labels(("x" * 10_000, 0.9))),
    "microsoft-key-wrong": in_microsoft("microsoft_key_refused", "set `microsoft_vision.api_key`", right_key=False),
    "microsoft-key-empty": in_microsoft("key_missing", "without a key", more={"api_key": ""}),
    "microsoft-path": in_microsoft("endpoint_unknown", "/vision/v3.9", endpoint="{url}/vision/v3.9"),
    "microsoft-elsewhere": in_microsoft(
        "endpoint_unknown", "correct `microsoft_vision.api_endpoint`", endpoint="{url}/gateway"
    ),
    "microsoft-retired": in_microsoft(
        "api_retired",
        "use the resource's endpoint without a path",
        endpoint="{url}/vision/v2.0",
        refusal=fake_microsoft.RETIRED,
    ),
    "microsoft-unreachable": in_microsoft("unreachable", "could not be reached", endpoint="{nowhere}"),
    "microsoft-quota": in_microsoft(
        "quota_used_up", "the quota of instance", refusal=fake_microsoft.OUT_OF_QUOTA, unavailable=True
    ),
    "microsoft-html": in_microsoft("garbled_answer", "holds no tags", trouble=HTML_PAGE),
    "microsoft-missing": in_microsoft(
        "garbled_answer",
        "a confidence is missing",
        trouble=instead(200, {"modelVersion": "1", "metadata": {}, "tagsResult": {"values": [{"name": "cat"}]}}),
    ),
}
SOUND = {
    "google-slash": "{url}/",
    "google-version": "{url}/v1",
    "google-whole": "{url}/v1/images:annotate",
    "google-regional": "{url}/v1/projects/our-archive/locations/eu",
    "microsoft-slash": "{url}/",
    "microsoft-current": "{url}/vision/v3.2/",
    "microsoft-tag": "{url}/vision/v3.2/tag",
    "microsoft-analyze": "{url}/computervision/imageanalysis:analyze",
}
"""Endpoints as people write them; all are taken."""


def table(service: FakeService, endpoint: str, api_key: str, more: dict[str, Any]) -> dict[str, Any]:
    asking = asking_google if isinstance(service, FakeGoogle) else asking_microsoft
    return asking(endpoint, api_key) | {"maximum_number_of_attempts": 1} | more


@pytest.fixture(scope="module")
def instances() -> Iterator[dict[str, dict[str, Any]]]:
    """An instance for each fault and each way to write an endpoint; TensorFlow is on for all."""
    with ExitStack() as stack, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        made = {}
        for name, fault in FAULTS.items():
            kind = FakeGoogle if fault.provider == "google_cloud_vision" else FakeMicrosoft
            service = stack.enter_context(kind(key(name)) if fault.right_key else kind())
            service.always = fault.trouble
            if fault.refusal is not None:
                service.refusals[key(name)] = fault.refusal
            endpoint = fault.endpoint.format(url=service.url, nowhere=nowhere)
            made[name] = {"tensorflow": LOCAL, fault.provider: table(service, endpoint, key(name), fault.more)}
        google = stack.enter_context(FakeGoogle(key("sound")))
        microsoft = stack.enter_context(FakeMicrosoft(key("sound")))
        for name, endpoint in SOUND.items():
            service = google if name.startswith("google") else microsoft
            provider = "google_cloud_vision" if service is google else "microsoft_vision"
            made[name] = {provider: table(service, endpoint.format(url=service.url), key("sound"), {})}
        yield made


@pytest.fixture(scope="module")
def it(
    broker: str,
    instances: dict[str, dict[str, Any]],
    photographs: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tenancy]:
    sources = {"path_roots": [str(photographs["coffee"].parent)]}
    retry = {"delays_s": [1, 3, 5], "maximum_number_of_attempts": 2}
    prefix = f"test-cloud-bad-{os.getpid()}"
    folder = tmp_path_factory.mktemp("cloud-bad")
    with tenancy(broker, prefix, folder, instances=instances, sources=sources, retry=retry) as tenants:
        yield tenants


def test_each_fault_stands_in_the_results_of_its_instance_and_stops_no_other_provider_or_instance(
    it: Tenancy, photographs: dict[str, Path]
) -> None:
    # Given an event for every instance, sound or not
    events = {it.dms.publish({"path": str(photographs["coffee"])}, instance=name): name for name in FAULTS}
    sound = {it.dms.publish({"path": str(photographs["coffee"])}, instance=name): name for name in SOUND}
    # When all have their last word
    final: dict[str, dict[str, Any]] = {}
    while len(final) < len(events) + len(sound):
        (message,) = it.dms.results(1)
        if message.data["complete"]:
            assert message.data["event_id"] not in final, "there is one last word for each"
            final[message.data["event_id"]] = message.data
    # Then TensorFlow's tags are there for each, and beside them why the other provider has none
    for event, name in events.items():
        data, fault = final[event], FAULTS[name]
        assert "espresso" in {tag["name"] for tag in data["tags"]}, name
        (report,) = [report for report in data["providers"] if report["name"] == fault.provider]
        expected = ("unavailable" if fault.unavailable else "failed", fault.reason)
        assert (report["status"], report["reason"]) == expected, name
        assert fault.said in report["message"], name
    # And every way to write an endpoint that is sound works
    for event, name in sound.items():
        assert (final[event]["status"], final[event]["message"]) == ("tagged", None), name
    assert it.dms.depth("dead-letters") == 0


async def checked(it: Tenancy, name: str) -> list[CheckResult]:
    settings = load_settings(it.service.log.parent / "autotag.toml", environ={}).settings
    return [finding async for finding in check_instance(settings, name)]


@pytest.mark.parametrize("name", FAULTS)
async def test_autotag_check_says_what_is_wrong(it: Tenancy, name: str) -> None:
    findings = await checked(it, name)

    (wrong,) = [finding for finding in findings if finding.status == "failed"]
    assert wrong.subject == FAULTS[name].provider
    assert wrong.message.startswith(f"{name}: ")
    assert FAULTS[name].said in wrong.message


@pytest.mark.parametrize("name", SOUND)
async def test_autotag_check_finds_nothing_wrong_with_what_is_sound(it: Tenancy, name: str) -> None:
    (finding,) = await checked(it, name)
    assert finding.status == "ok"
    assert " answered in " in finding.message


def test_autotag_check_ends_with_a_failure_and_its_words(it: Tenancy) -> None:
    ended = it.service.autotag("check", "--instance", "google-disabled", "--json")

    findings = [json.loads(line) for line in ended.stdout.splitlines()]
    failed = {each["subject"]: each["message"] for each in findings if each["status"] == "failed"}
    assert ended.returncode == 1
    assert "google-disabled: Google Cloud Vision refused the call" in failed["google_cloud_vision"]
    assert "enable the Cloud Vision API in the key's project" in failed["google_cloud_vision"]
    # What the settings of other instances show by themselves is said too, each thing once.
    messages = [each["message"] for each in findings]
    assert len(messages) == len(set(messages))
    assert any(message.startswith("google-key-empty: ") and "without a key" in message for message in messages)


@pytest.mark.parametrize(
    ("cloud", "said"),
    [
        ({"allow_plain_http_endpoints": False}, "with http:// key and images would travel in the clear"),
        ({"allow_private_endpoints": False}, "is not on the public network"),
    ],
)
async def test_autotag_check_says_when_an_endpoint_is_not_allowed(
    it: Tenancy, tmp_path: Path, cloud: dict[str, bool], said: str
) -> None:
    settings = load_settings(it.service.log.parent / "autotag.toml", environ={}).settings
    stricter = settings.model_copy(update={"cloud": settings.cloud.model_copy(update=cloud)})

    (finding,) = [each async for each in check_instance(stricter, "google-slash")]

    assert finding.status == "failed"
    assert said in finding.message


async def test_autotag_check_knows_who_has_no_service_on(it: Tenancy) -> None:
    findings = await checked(it, "nobody-knows-me")
    assert [finding.status for finding in findings] == ["warning", "ok"]
    assert "the defaults hold for it" in findings[0].message
    assert "no provider that calls a service is on" in findings[1].message
