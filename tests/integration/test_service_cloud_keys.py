"""Keys are sent to their own service and nowhere else: all output is searched for marked keys."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.support import fake_google, fake_microsoft
from tests.support.cloud import KEY_MARK, google_table, key, microsoft_table, picture
from tests.support.fake_collector import FakeCollector
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.fake_service import CLOSE, GARBAGE, Fault, Response
from tests.support.monitoring import fetch, http_url
from tests.support.polling import until
from tests.support.tenants import LOCAL, Tenancy, tenancy

FAILING_PROVIDER = """
class Failing:
    name = "failing"

    def __init__(self, context):
        self.settings = context.settings

    def enabled(self, instance):
        return bool(instance.providers.get("failing", {}).get("enabled"))

    def pixel_recipe(self):
        return None

    def refuses(self, mime_type, instance):
        return None

    def unusable(self, instance):
        return None

    async def tag(self, image, instance):
        password = instance.provider_secrets["failing"]["password"].get_secret_value()
        return answer_of(image, instance, {"authorization": password})

    async def start(self):
        pass

    async def close(self):
        pass


def answer_of(image, instance, headers):
    raise RuntimeError(f"deliberate failure for {image.asset_id}, with {instance!r}")
"""
"""A third-party provider that raises while local variables hold a secret."""


@pytest.fixture(scope="module")
def google() -> Iterator[FakeGoogle]:
    with FakeGoogle(key("google")) as service:
        yield service


@pytest.fixture(scope="module")
def microsoft() -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(key("microsoft")) as service:
        yield service


@pytest.fixture(scope="module")
def refusing_services() -> Iterator[tuple[FakeGoogle, FakeMicrosoft]]:
    """Services that accept no key."""
    with FakeGoogle() as google, FakeMicrosoft() as microsoft:
        yield google, microsoft


@pytest.fixture(scope="module")
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as service:
        yield service


def install_failing(folder: Path) -> None:
    """Install as pip would: the module, and the metadata with the entry point."""
    metadata = folder / "autotag_failing-1.dist-info"
    metadata.mkdir(parents=True)
    (folder / "autotag_failing.py").write_text(FAILING_PROVIDER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: autotag-failing\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[autotag.providers]\nfailing = autotag_failing:Failing\n")


@pytest.fixture(scope="module")
def it(
    broker: str,
    google: FakeGoogle,
    microsoft: FakeMicrosoft,
    refusing_services: tuple[FakeGoogle, FakeMicrosoft],
    collector: FakeCollector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tenancy]:
    folder = tmp_path_factory.mktemp("keys")
    install_failing(folder / "packages")
    both = {
        "tensorflow": LOCAL,
        "google_cloud_vision": google_table(google.url, maximum_number_of_attempts=2, retry_total_s=3),
        "microsoft_vision": microsoft_table(microsoft.url, key("microsoft"), maximum_number_of_attempts=2),
    }
    instances = {
        "acme": both,
        "wrong": {
            "google_cloud_vision": google_table(refusing_services[0].url, key("wrong-google")),
            "microsoft_vision": microsoft_table(refusing_services[1].url, key("wrong-microsoft")),
        },
        "failing": {
            "tensorflow": LOCAL,
            "providers": {"failing": {"enabled": True}},
            "provider_secrets": {"failing": {"password": key("failing")}},
        },
    }
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        patch.setenv("PYTHONPATH", str(folder / "packages"))
        tenants = stack.enter_context(
            tenancy(
                broker,
                f"test-keys-{os.getpid()}",
                folder,
                instances=instances,
                secrets={"instances__acme__google_cloud_vision__api_key": f"{key('google')}\n"},
                cloud={"cache": {"enabled": True}, "failures_to_open_circuit": 100, "refused_key_pause_s": 0},
                environment={"CACHE_DIR": str(cache_with_models(folder))},
            )
        )
        yield tenants


def cache_with_models(folder: Path) -> Path:
    """A cache directory of this test's own, with a link to the shared models."""
    from worker.settings import Settings

    shared = Path(os.environ.get("AUTOTAG_CACHE_DIR") or Settings().cache_dir)
    (folder / "cache").mkdir()
    (folder / "cache" / "models").symlink_to(shared / "models")
    return folder / "cache"


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield str(file), file.read_bytes()


def repeating_the_key(name: str) -> tuple[Fault, Fault]:
    """Error responses that repeat the key, in the message and in a header."""
    message = f"The key {key(name)} is not welcome here"
    unusual = Response(500, message.encode(), {"Content-Type": f"text/{key(name)}", "Retry-After": key(name)})
    google_error = fake_google.error(400, message, "INVALID_ARGUMENT", "API_KEY_INVALID")
    return Fault(unusual), Fault(google_error if "google" in name else fake_microsoft.nested(401, "401", message))


def test_no_key_is_in_any_output(
    it: Tenancy,
    google: FakeGoogle,
    microsoft: FakeMicrosoft,
    refusing_services: tuple[FakeGoogle, FakeMicrosoft],
    collector: FakeCollector,
) -> None:
    outputs: dict[str, bytes | str] = {}
    content = [{"base64": base64.b64encode(picture(seed)).decode()} for seed in range(40)]
    # Given events that succeed, and events for everything that can go wrong
    google.next(*repeating_the_key("google"), GARBAGE, CLOSE, Fault(Response(200, b"<!doctype html>", {})))
    microsoft.next(*repeating_the_key("microsoft"), GARBAGE, CLOSE, Fault(stall_mid_body_s=1))
    events = [it.dms.publish(each, instance="acme") for each in content[:8]]
    events += [it.dms.publish(each, instance="wrong") for each in content[8:12]]
    events += [it.dms.publish(each, instance="failing") for each in content[12:14]]
    it.dms.results_of(events)
    until(lambda: it.dms.take("dead-letters"), "a dead letter arrived")
    until(lambda: "deliberate failure" in it.service.logged(), "the failing provider has failed")
    # When settings are reloaded, some of them wrong, and every command has been run
    it.reload_refused(defaults={"google_cloud_vision": {"enabled": True, "api_key": f"{KEY_MARK} with blanks"}})
    it.reload(defaults={"sites": {"elsewhere": False}})
    for words in (
        ("config", "show"),
        ("config", "show", "--json"),
        ("config", "show", "--instance", "acme"),
        ("config", "show", "--instance", "failing", "--json"),
        ("check", "--instance", "acme"),
        ("check", "--instance", "wrong", "--json"),
        ("status", "--json"),
        ("dead-letters", "list"),
    ):
        process = it.service.autotag(*words)
        assert process.returncode in (0, 1), (words, process.stderr)  # it ran, whatever the outcome
        outputs[" ".join(words)] = process.stdout + process.stderr
    for page in ("/", "/metrics", "/readyz", "/status.json"):
        outputs[page] = fetch(f"{http_url(it.service)}{page}").body
    until(lambda: len(collector.calls) > 2, "spans arrived")
    # Then no key is in any of it, nor in logs, messages, spans, stored files, or the children's processes
    outputs["log"] = it.service.logged()
    outputs["status"] = json.dumps(it.service.status())
    outputs["spans"] = b"".join(call.body for call in collector.calls)
    for number, message in enumerate(it.dms.seen):
        outputs[f"message {number}"] = message.body + repr(message.properties).encode()
    for kept in ("state", "cache/cloud-answers"):
        outputs |= dict(files_below(it.service.log.parent / kept))
    for child in psutil.Process(it.service.process.pid).children(recursive=True):
        outputs[f"child {child.pid}"] = json.dumps([child.cmdline(), child.environ()])
    found = {name: text if isinstance(text, bytes) else text.encode() for name, text in outputs.items()}
    assert [name for name, text in found.items() if KEY_MARK.encode() in text] == []
    # And the search covered what it should: the redacted texts are there
    assert len(outputs["spans"]) > 1000
    assert "[key] is not welcome here" in str(outputs["log"])
    assert "********" in str(outputs["config show --instance failing --json"])
    assert "google_key_refused" in str(outputs["/metrics"])
    assert any("cloud-answers" in name for name in outputs)
    used = {each for service in (google, microsoft, *refusing_services) for each in service.keys}
    assert used == {key(name) for name in ("google", "microsoft", "wrong-google", "wrong-microsoft")}
