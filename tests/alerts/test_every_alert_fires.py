"""Every alert fires for real: a real Prometheus scrapes two real installations that are brought into each state.

They have other names than ours, as two releases of the chart in two namespaces have, and are watched twice: by the
rules as they lie in `deploy/prometheus`, and by those that the chart makes for each. A minute is a second here.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import helm_python
import psutil
import pytest
import yaml
from rabbitmq_node import PrivateBroker

from tests.support.connector import running_connector
from tests.support.delivering import NAME, ResultPublisher, connection_settings
from tests.support.fake_google import FakeGoogle, unavailable
from tests.support.fake_targets import PlainTarget, Reply, plain_connection, serving_target
from tests.support.models import built, with_other_labels
from tests.support.monitoring import ROOT, Prometheus, http_url, prometheus_of
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service
from worker.connect.service import LEDGER_FILE

pytestmark = pytest.mark.timeout(400)

RULES = ROOT / "deploy/prometheus/rules/autotag.yml"
ALERTS = {rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"] if "alert" in rule}
RELEASES = (("photos", "dms"), ("scans", "archive"))
WITHIN_S = 120.0


def in_seconds(rules: str) -> str:
    """The rules with a second for each minute, and a minute for each hour."""
    rules = re.sub(r"(for: |\[|offset )(\d+)m\b", r"\1\2s", rules)
    rules = re.sub(r"\[(\d+)h\]", r"[\1m]", rules)
    for was, becomes in (("> 1800", "> 30"), ("> 300", "> 5"), ("1 / 600", "1 / 10")):
        assert was in rules
        rules = rules.replace(was, becomes)
    return rules


def rules_of_the_chart(release: str, namespace: str) -> str:
    values = {"prometheusRule": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    with helm_python.Chart.load(str(ROOT / "deploy/helm/autotag")) as chart:
        files = chart.render(values, name=release, namespace=namespace)
    (text,) = [text for name, text in files.items() if name.endswith("prometheusrule.yaml")]
    return yaml.safe_dump(yaml.safe_load(text)["spec"], width=10_000)


@dataclass
class Installation:
    """One release: a worker on queues of its own, and its DMS, which takes no results."""

    job: str
    namespace: str
    service: RunningService
    dms: Dms
    google: FakeGoogle
    failing: FakeGoogle

    def model(self) -> psutil.Process:
        return until(lambda: self.service.children("model"), "it has a model")[0]


@dataclass(frozen=True)
class Target:
    """A process of an installation that Prometheus scrapes."""

    of: Installation
    url: str


@dataclass
class Scene:
    """What is watched, who watches, and which alerts have fired so far."""

    node: PrivateBroker
    installations: list[Installation]
    prometheus: Prometheus
    targets: Path
    photograph: dict[str, str]
    broken: dict[str, str]
    fired: set[str] = field(default_factory=set)
    strangers: set[tuple[str, str]] = field(default_factory=set)
    """Installations for which an alert of another one's rules fired."""

    def fire(self, *names: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until these have fired for both installations, by the common rules and by those of each release."""
        seen: dict[tuple[str, str, str], bool] = {}

        def all_have() -> bool:
            meanwhile()
            common = self.prometheus.firing("autotag")
            for each in self.installations:
                own = self.prometheus.firing(each.job)
                for name in names:
                    where = (each.job, each.namespace)
                    for rules, alerts in (("common", common[name]), ("own", own[name])):
                        firing = {(labels["job"], labels["namespace"]) for labels in alerts}
                        self.strangers |= set() if rules == "common" else firing - {where}
                        seen[(name, rules, each.job)] = seen.get((name, rules, each.job), False) or where in firing
            return all(seen.values())

        with suppress(AssertionError):
            until(all_have, "all fired", within_s=WITHIN_S)
        assert [each for each, fired in seen.items() if not fired] == []
        self.fired |= set(names)

    def targets_of_services(self) -> list[Target]:
        return [Target(each, http_url(each.service)) for each in self.installations]

    def each(self, do: Callable[[Installation], object]) -> None:
        for installation in self.installations:
            do(installation)


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    with PrivateBroker() as node:
        yield node


@pytest.fixture(scope="module")
def scene(
    node: PrivateBroker, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("alerts")
    broken = folder / "broken.jpg"
    broken.write_bytes(photographs["coffee"].read_bytes()[:2000])
    package = with_other_labels(built("efficientnet-lite0"), folder / "package")
    with ExitStack() as stack:
        installations = []
        for release, namespace in RELEASES:
            google = stack.enter_context(FakeGoogle("key-of-acme"))
            failing = stack.enter_context(FakeGoogle("key-of-hooli"))
            failing.always = unavailable()
            service = stack.enter_context(
                running_service(
                    node.url,
                    release,
                    folder / release,
                    SOURCES__PATH_ROOTS=json.dumps([str(folder), str(photographs["coffee"].parent)]),
                    TENSORFLOW__MODEL=str(package),
                    TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES="2",
                    TENSORFLOW__THREADS="1",
                    DECODER__CHILDREN="1",
                    CANARY__ENABLED="true",
                    CANARY__INTERVAL_S="10",
                    CLOUD__ALLOW_PRIVATE_ENDPOINTS="true",
                    CLOUD__ALLOW_PLAIN_HTTP_ENDPOINTS="true",
                    CLOUD__RETRY_MAXIMUM_WAIT_S="1",
                    CLOUD__FAILURES_TO_OPEN_CIRCUIT="2",
                    CLOUD__REFUSED_KEY_PAUSE_S="1",
                    **{
                        f"INSTANCES__{name}__GOOGLE_CLOUD_VISION__{key}": value
                        for name, settings in {
                            "acme": {"API_KEY": "key-of-acme", "ENDPOINT": google.url, "CALLS_PER_MONTH": "1"},
                            "globex": {"API_KEY": "a-key-of-nobody", "ENDPOINT": google.url},
                            "initech": {"ENDPOINT": google.url},
                            "hooli": {"API_KEY": "key-of-hooli", "ENDPOINT": failing.url},
                        }.items()
                        for key, value in {"ENABLED": "true", **settings}.items()
                    },
                )
            )
            service.ready(within_s=120)
            dms = Dms(node.url, release)
            stack.callback(dms.close)
            installations.append(Installation(f"{release}-autotag", namespace, service, dms, google, failing))
        targets = folder / "targets.json"
        watch(targets, [Target(each, http_url(each.service)) for each in installations])
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": ["rules/*.yml"],
                    # What a ServiceMonitor makes of a target, the job's name among it
                    "scrape_configs": [{"job_name": "services", "file_sd_configs": [{"files": [str(targets)]}]}],
                }
            )
        )
        (folder / "rules").mkdir()
        (folder / "rules/common.yml").write_text(in_seconds(RULES.read_text()))
        for release, namespace in RELEASES:
            (folder / f"rules/{release}.yml").write_text(in_seconds(rules_of_the_chart(release, namespace)))
        server = stack.enter_context(prometheus_of(folder))
        up = [{"health": "up"}] * 2
        until(lambda: [{"health": each["health"]} for each in server.targets()] == up, "both were scraped")
        path = {"path": str(photographs["coffee"])}
        yield Scene(node, installations, server, targets, path, {"path": str(broken)})


def watch(file: Path, targets: Sequence[Target]) -> None:
    """Have Prometheus scrape these, from now on."""
    found = [
        {
            "targets": [each.url.removeprefix("http://")],
            "labels": {"job": each.of.job, "namespace": each.of.namespace, "pod": f"{each.of.job}-{number}"},
        }
        for number, each in enumerate(targets)
    ]
    new = file.with_suffix(".new")
    new.write_text(json.dumps(found))
    new.replace(file)


def test_a_model_that_says_wrong_things_of_a_known_picture(scene: Scene) -> None:
    scene.fire("AutotagCanaryWrong")


def test_events_that_fail_and_results_that_nobody_takes(scene: Scene) -> None:
    def publish(installation: Installation) -> None:
        installation.dms.publish(scene.photograph)
        for _ in range(2):
            installation.dms.publish(scene.broken, instance="acme")

    scene.fire(
        "AutotagFailureRatio",
        "AutotagInstanceFails",
        "AutotagDeadLetters",
        "AutotagResultsNotTaken",
        meanwhile=lambda: scene.each(publish),
    )


def test_cloud_services_that_refuse_fail_and_are_not_set_up(scene: Scene) -> None:
    def publish(installation: Installation) -> None:
        for instance in ("acme", "globex", "initech", "hooli"):
            installation.dms.publish(scene.photograph, instance=instance)

    names = ("AutotagCircuitOpen", "AutotagCloudRefusesCalls", "AutotagCloudNotSetUp", "AutotagCloudBudgetLow")
    scene.fire(*names, meanwhile=lambda: scene.each(publish))


def test_a_model_that_crashes_again_and_again(scene: Scene) -> None:
    scene.each(lambda each: each.service.crash_model(1))
    scene.fire("AutotagCrashBudgetLow")
    scene.each(lambda each: each.service.crash_model(2))
    scene.fire("AutotagModelDisabled")
    for each in scene.installations:
        assert each.service.autotag("reset").returncode == 0
        each.service.ready()


def test_results_that_no_queue_takes(scene: Scene) -> None:
    scene.each(lambda each: each.dms.unbind_results())
    scene.each(lambda each: each.dms.publish(scene.photograph))
    scene.fire("AutotagUnroutableResults")
    scene.each(lambda each: each.dms.bind_results())


def test_a_broker_that_takes_nothing_more(scene: Scene) -> None:
    # RabbitMQ blocks only those who publish: an answer is outstanding when the alarm is raised
    models = [each.model() for each in scene.installations]
    for model in models:
        model.send_signal(signal.SIGSTOP)
    scene.each(lambda each: each.dms.publish(scene.photograph))
    scene.node.set_memory_alarm(True)
    try:
        for model in models:
            with suppress(psutil.NoSuchProcess):
                model.send_signal(signal.SIGCONT)
        scene.fire("AutotagBrokerBlocked")
    finally:
        scene.node.set_memory_alarm(False)
    for each in scene.installations:
        each.service.ready(within_s=60)


def test_a_worker_that_takes_nothing_while_images_wait(scene: Scene) -> None:
    for each in scene.installations:
        assert each.service.autotag("pause").returncode == 0
        with each.dms.without_confirms():
            for _ in range(1001):
                each.dms.publish(scene.photograph)
    scene.fire("AutotagNotConsuming", "AutotagBacklogDeep", "AutotagBacklogOld", "AutotagNoSuccess")


def test_a_worker_with_nothing_switched_on_and_settings_that_are_left_out(scene: Scene, tmp_path: Path) -> None:
    with ExitStack() as stack:
        beside = []
        for each in scene.installations:
            folder = tmp_path / each.job
            (folder / "state").mkdir(parents=True)
            (folder / "state/overlay.toml").write_text("[retry]\nmaximum_number_of_attempts = 'many'\n")
            settings = {"DEFAULTS__TENSORFLOW__ENABLED": "false"}
            service = stack.enter_context(running_service(scene.node.url, f"{each.job}-idle", folder, **settings))
            beside.append(Target(each, http_url(service)))
        watch(scene.targets, [*scene.targets_of_services(), *beside])
        scene.fire("AutotagNothingSwitchedOn", "AutotagSettingsLeftOut")
    watch(scene.targets, scene.targets_of_services())


def test_connections_that_wait_that_cannot_be_listed_and_whose_ledger_cannot_be_written(
    scene: Scene, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        beside, publishers = [], []
        refusing, broken, taking = PlainTarget(), PlainTarget(), PlainTarget()
        refusing.fault = lambda _request: Reply.of({"error": "no"}, 401)
        broken.fault = lambda _request: Reply.of({"error": "no"}, 500)
        taking.assets["1"] = []
        for target in (refusing, broken, taking):
            stack.enter_context(serving_target(target))
        for each in scene.installations:
            folder = tmp_path / each.job
            prefix = f"{each.job}-connected"
            configuration = connections(refusing=refusing, broken=broken, taking=taking)
            connector = stack.enter_context(running_connector(scene.node.url, prefix, folder, configuration))
            ledger = sqlite3.connect(folder / "connect-state" / LEDGER_FILE, isolation_level=None)
            stack.callback(ledger.close)
            ledger.execute("BEGIN EXCLUSIVE")
            results = ResultPublisher(
                scene.node.url, prefix, connection_settings(scene.node.url, prefix, {"enabled": False})
            )
            stack.callback(results.clean)
            results.declare()
            publishers.append(results)
            beside.append(Target(each, connector.url))
        watch(scene.targets, [*scene.targets_of_services(), *beside])

        def publish() -> None:
            for each in publishers:
                for name in (NAME, "refusing"):
                    each.result("1", ["cat"], connect=name)

        names = ("AutotagConnectTargetPaused", "AutotagConnectPollFails", "AutotagConnectLedgerFault")
        scene.fire(*names, meanwhile=publish)
    watch(scene.targets, scene.targets_of_services())


def connections(*, refusing: PlainTarget, broken: PlainTarget, taking: PlainTarget) -> str:
    """Three connections, two of them with a target."""
    written = plain_connection("refusing", refusing) + plain_connection(NAME, taking)
    listed = f"""
[connect.listed]
url = "{broken.url}"
poll = {{enabled = true, path = "/list", every_s = 1, items = "items", asset_id = "id", content_url = "/{{asset_id}}"}}
"""
    return written + listed


def test_a_worker_that_is_gone_and_one_that_nobody_finds(scene: Scene) -> None:
    first, second = scene.installations
    first.service.process.kill()
    until(lambda: scene.prometheus.firing("autotag")["AutotagDown"], "one was missed", within_s=WITHIN_S)
    down = [labels["job"] for labels in scene.prometheus.firing("autotag")["AutotagDown"]]
    assert down == [first.job], "the other one runs"
    second.service.process.kill()
    scene.fire("AutotagDown")
    watch(scene.targets, [])
    scene.fire("AutotagAbsent")


def test_no_alert_was_left_out_and_no_rules_were_about_another_release(scene: Scene) -> None:
    assert scene.fired == ALERTS
    assert scene.strangers == set()
