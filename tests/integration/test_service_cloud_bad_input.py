"""A fault of one instance's service, key or endpoint is in its results and in `autotag check`, and affects no other."""

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
from tests.support.cloud import google_table, key, microsoft_table
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.fake_service import CLOSE, GARBAGE, HTML_PAGE, FakeService, Fault, Response, respond_with
from tests.support.tenants import LOCAL, Tenancy, tenancy
from worker.diagnostics.preflight import CheckResult, check_instance
from worker.settings import load_settings


@dataclass(frozen=True)
class BrokenInstance:
    """An instance with one fault. Its results have this `reason`; they and `autotag check` have `message`, or more."""

    reason: str
    message: str
    provider: str = "google_cloud_vision"
    refusal: Response | None = None
    fault: Fault | None = None
    endpoint: str = "{url}"
    right_key: bool = True
    more: dict[str, Any] = field(default_factory=dict)
    unavailable: bool = False
    waits: bool = False


def labels(*pairs: tuple[object, object]) -> Fault:
    """A Google that responds with these labels."""
    found = [{"mid": "/m/1", "description": name, "score": score, "topicality": 0.5} for name, score in pairs]
    return respond_with(200, {"responses": [{"labelAnnotations": found}]})


def google_case(reason: str, message: str, **more: Any) -> BrokenInstance:
    return BrokenInstance(reason, message, **more)


def microsoft_case(reason: str, message: str, **more: Any) -> BrokenInstance:
    return BrokenInstance(reason, message, "microsoft_vision", **more)


BROKEN = {
    "google-key-wrong": google_case("google_key_refused", "set `google_cloud_vision.api_key`", right_key=False),
    "google-key-empty": google_case("key_missing", "without a key", more={"api_key": ""}),
    "google-project": google_case(
        "google_project_refused",
        "see to the state of the key's project",
        refusal=fake_google.error(403, "Project does not match.", "PERMISSION_DENIED", "CONSUMER_INVALID"),
    ),
    "google-disabled": google_case("api_not_enabled", "enable the Cloud Vision API", refusal=fake_google.API_DISABLED),
    "google-billing": google_case("billing_disabled", "enable billing", refusal=fake_google.BILLING_DISABLED),
    "google-restricted": google_case(
        "google_key_restricted", "allow the key this API", refusal=fake_google.KEY_RESTRICTED
    ),
    "google-path": google_case("endpoint_unknown", "its path '/v9/labels'", endpoint="{url}/v9/labels"),
    "google-project-path": google_case(
        "endpoint_unknown", "correct `google_cloud_vision.endpoint`", endpoint="{url}/v1/projects/Our.Archive"
    ),
    "google-unreachable": google_case("unreachable", "could not be reached", endpoint="{unreachable}"),
    "google-quota": google_case("quota_exhausted", "asks for fewer calls", fault=fake_google.too_many(), waits=True),
    "google-html": google_case("garbled_answer", "is no annotation", fault=HTML_PAGE),
    "google-garbage": google_case("connection_lost", "broke the connection off", fault=GARBAGE),
    "google-closes": google_case("connection_lost", "broke the connection off", fault=CLOSE),
    "google-nan": google_case("garbled_answer", "no number from 0 to 1", fault=labels(("cat", float("nan")))),
    "google-long": google_case("garbled_answer", "longer than 255 characters", fault=labels(("x" * 10_000, 0.9))),
    "microsoft-key-wrong": microsoft_case("microsoft_key_refused", "set `microsoft_vision.api_key`", right_key=False),
    "microsoft-key-empty": microsoft_case("key_missing", "without a key", more={"api_key": ""}),
    "microsoft-path": microsoft_case("endpoint_unknown", "/vision/v3.9", endpoint="{url}/vision/v3.9"),
    "microsoft-elsewhere": microsoft_case(
        "endpoint_unknown", "correct `microsoft_vision.api_endpoint`", endpoint="{url}/gateway"
    ),
    "microsoft-retired": microsoft_case(
        "api_retired",
        "use the resource's endpoint without a path",
        endpoint="{url}/vision/v2.0",
        refusal=fake_microsoft.RETIRED,
    ),
    "microsoft-unreachable": microsoft_case("unreachable", "could not be reached", endpoint="{unreachable}"),
    "microsoft-quota": microsoft_case(
        "quota_used_up", "the quota of instance", refusal=fake_microsoft.OUT_OF_QUOTA, unavailable=True
    ),
    "microsoft-html": microsoft_case("garbled_answer", "holds no tags", fault=HTML_PAGE),
    "microsoft-missing": microsoft_case(
        "garbled_answer",
        "a confidence is missing",
        fault=respond_with(200, {"modelVersion": "1", "metadata": {}, "tagsResult": {"values": [{"name": "cat"}]}}),
    ),
}
VALID_ENDPOINTS = {
    "google-slash": "{url}/",
    "google-version": "{url}/v1",
    "google-whole": "{url}/v1/images:annotate",
    "google-regional": "{url}/v1/projects/our-archive/locations/eu",
    "microsoft-slash": "{url}/",
    "microsoft-current": "{url}/vision/v3.2/",
    "microsoft-tag": "{url}/vision/v3.2/tag",
    "microsoft-analyze": "{url}/computervision/imageanalysis:analyze",
}
"""The ways to write an endpoint; all are accepted."""


def table(service: FakeService, endpoint: str, api_key: str, more: dict[str, Any]) -> dict[str, Any]:
    make_table = google_table if isinstance(service, FakeGoogle) else microsoft_table
    return make_table(endpoint, api_key) | {"maximum_number_of_attempts": 1} | more


@pytest.fixture(scope="module")
def instances() -> Iterator[dict[str, dict[str, Any]]]:
    """An instance for each fault, with TensorFlow, and for each way to write an endpoint."""
    with ExitStack() as stack, socket.socket() as not_listening:
        not_listening.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        unreachable = f"http://127.0.0.1:{not_listening.getsockname()[1]}"
        made = {}
        for name, broken in BROKEN.items():
            kind: type[FakeGoogle | FakeMicrosoft]
            kind = FakeGoogle if broken.provider == "google_cloud_vision" else FakeMicrosoft
            service: FakeGoogle | FakeMicrosoft = kind(key(name)) if broken.right_key else kind()
            stack.enter_context(service)
            service.always = broken.fault
            if broken.refusal is not None:
                service.refusals[key(name)] = broken.refusal
            endpoint = broken.endpoint.format(url=service.url, unreachable=unreachable)
            made[name] = {"tensorflow": LOCAL, broken.provider: table(service, endpoint, key(name), broken.more)}
        google = stack.enter_context(FakeGoogle(key("valid")))
        microsoft = stack.enter_context(FakeMicrosoft(key("valid")))
        for name, endpoint in VALID_ENDPOINTS.items():
            service = google if name.startswith("google") else microsoft
            provider = "google_cloud_vision" if service is google else "microsoft_vision"
            made[name] = {provider: table(service, endpoint.format(url=service.url), key("valid"), {})}
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


def test_each_fault_is_reported_in_the_results_of_its_instance_and_stops_no_other_provider_or_instance(
    it: Tenancy, photographs: dict[str, Path]
) -> None:
    # Given an event for every instance, broken or not
    events = {it.dms.publish({"path": str(photographs["coffee"])}, instance=name): name for name in BROKEN}
    valid = {it.dms.publish({"path": str(photographs["coffee"])}, instance=name): name for name in VALID_ENDPOINTS}
    # When all have their final result
    final: dict[str, dict[str, Any]] = {}
    while len(final) < len(events) + len(valid):
        (message,) = it.dms.results(1)
        name = events.get(message.data["event_id"])
        # An event that only waits for a service which asks for fewer calls waits on; its other tags are there already
        if message.data["complete"] or (name and BROKEN[name].waits):
            assert message.data["event_id"] not in final, "there is one final result for each"
            final[message.data["event_id"]] = message.data
    # Then TensorFlow's tags are there for each, and beside them why the other provider has none
    for event, name in events.items():
        data, broken = final[event], BROKEN[name]
        assert "espresso" in {tag["name"] for tag in data["tags"]}, name
        (report,) = [report for report in data["providers"] if report["name"] == broken.provider]
        assert data["complete"] is not broken.waits, name
        expected = ("unavailable" if broken.unavailable or broken.waits else "failed", broken.reason)
        assert (report["status"], report["reason"]) == expected, name
        assert broken.message in report["message"], name
    # And every way to write an endpoint works
    for event, name in valid.items():
        assert (final[event]["status"], final[event]["message"]) == ("tagged", None), name
    assert it.dms.depth("dead-letters") == 0


async def checked(it: Tenancy, name: str) -> list[CheckResult]:
    settings = load_settings(it.service.log.parent / "autotag.toml", environ={}).settings
    return [check async for check in check_instance(settings, name)]


@pytest.mark.parametrize("name", BROKEN)
async def test_autotag_check_reports_what_is_wrong(it: Tenancy, name: str) -> None:
    checks = await checked(it, name)

    (wrong,) = [check for check in checks if check.status == "failed"]
    assert wrong.subject == BROKEN[name].provider
    assert wrong.message.startswith(f"{name}: ")
    assert BROKEN[name].message in wrong.message


@pytest.mark.parametrize("name", VALID_ENDPOINTS)
async def test_autotag_check_finds_nothing_wrong_with_a_valid_endpoint(it: Tenancy, name: str) -> None:
    (check,) = await checked(it, name)
    assert check.status == "ok"
    assert " answered in " in check.message


def test_autotag_check_exits_with_1_and_the_message(it: Tenancy) -> None:
    process = it.service.autotag("check", "--instance", "google-disabled", "--json")

    checks = [json.loads(line) for line in process.stdout.splitlines()]
    failed = {each["subject"]: each["message"] for each in checks if each["status"] == "failed"}
    assert process.returncode == 1
    assert "google-disabled: Google Cloud Vision refused the call" in failed["google_cloud_vision"]
    assert "enable the Cloud Vision API in the key's project" in failed["google_cloud_vision"]
    # Problems visible in the settings of other instances are reported too, each one once.
    messages = [each["message"] for each in checks]
    assert len(messages) == len(set(messages))
    assert any(message.startswith("google-key-empty: ") and "without a key" in message for message in messages)


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        ({"allow_plain_http_endpoints": False}, "with http:// key and images would travel in the clear"),
        ({"allow_private_endpoints": False}, "is not on the public network"),
    ],
)
async def test_autotag_check_reports_an_endpoint_that_is_not_allowed(
    it: Tenancy, tmp_path: Path, cloud: dict[str, bool], message: str
) -> None:
    settings = load_settings(it.service.log.parent / "autotag.toml", environ={}).settings
    stricter = settings.model_copy(update={"cloud": settings.cloud.model_copy(update=cloud)})

    (check,) = [each async for each in check_instance(stricter, "google-slash")]

    assert check.status == "failed"
    assert message in check.message


async def test_autotag_check_reports_an_instance_without_a_cloud_service(it: Tenancy) -> None:
    checks = await checked(it, "unknown-instance")
    assert [check.status for check in checks] == ["warning", "ok"]
    assert "the defaults hold for it" in checks[0].message
    assert "no provider that calls a service is on" in checks[1].message
