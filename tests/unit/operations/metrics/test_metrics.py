"""Metrics: bounded labels, states read at collection, and rules, dashboard and docs that name existing metrics."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from tests.support.monitoring import ROOT, promtool, total, value
from worker.amqp.delivery import Ending
from worker.amqp.state import BrokerPhase, BrokerState
from worker.amqp.topology import Lane
from worker.connect.metrics import InMetrics
from worker.connect.target_metrics import TargetMetrics
from worker.messages import Result
from worker.operations import tracing
from worker.operations.metrics import Metrics
from worker.operations.metrics import broker as broker_metrics
from worker.operations.metrics.cloud import AccountView
from worker.operations.metrics.labels import OTHER, Reasons
from worker.providers.replies import Reply
from worker.supervision.lifecycle import BecameReady, Cause, Crashed, Relaunching

RULES = ROOT / "deploy/prometheus/rules/autotag.yml"
RULES_TEST = ROOT / "deploy/prometheus/rules_test.yml"
WRITE_RULES = ROOT / "deploy/prometheus/write_rules.py"
RUNBOOK = runpy.run_path(str(WRITE_RULES))["RUNBOOK"]
DASHBOARD = ROOT / "deploy/grafana/dashboards/autotag.json"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def families(metrics: Metrics) -> set[str]:
    """Names as queries write them, without the suffixes of a histogram."""
    connector = CollectorRegistry()
    InMetrics(connector)
    TargetMetrics(connector)
    both = text(metrics) + generate_latest(connector).decode()
    return {line.split()[2] for line in both.splitlines() if line.startswith("# TYPE")}


@dataclass(frozen=True)
class Child:
    name: str
    phase: str
    resident_bytes: int = 1000
    hello: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Pool:
    children: list[Child]
    disabled_reason: str | None = None
    relaunches_left: int | None = 5
    waiting: int = 0

    def states(self) -> list[Child]:
        return self.children


def result(status: str = "tagged", *, complete: bool = True) -> Result:
    return Result(asset_id="a", instance="default", event_id="e", status=status, complete=complete)  # type: ignore[arg-type]


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_a_result_of_a_tagged_image_is_a_success(metrics: Metrics) -> None:
    metrics.result(result("failed"))
    metrics.result(result("skipped"))
    assert value(text(metrics), "autotag_last_success_timestamp_seconds") == 0
    metrics.result(result("no_tags"))
    assert value(text(metrics), "autotag_last_success_timestamp_seconds") > 1e9


def test_a_stage_that_fails_is_timed_too(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="broken"), metrics.stage("decode"):
        raise ValueError("broken")
    assert value(text(metrics), "autotag_stage_duration_seconds_count", stage="decode") == 1


def test_the_local_model_and_each_service_are_stages_of_their_own(metrics: Metrics) -> None:
    with tracing.start_trace() as trace:
        metrics.replied(Reply("tensorflow", "ok", duration_s=0.5))
        metrics.replied(Reply("google_cloud_vision", "unavailable", reason="circuit_open", duration_s=0.25))
        metrics.replied(Reply("microsoft_vision", "skipped", reason="format_not_taken"))
    exposition = text(metrics)
    assert value(exposition, "autotag_stage_duration_seconds_sum", stage="model") == 0.5
    assert value(exposition, "autotag_stage_duration_seconds_sum", stage="google_cloud_vision") == 0.25
    assert value(exposition, "autotag_stage_duration_seconds_count", stage="microsoft_vision") == 0
    assert trace.stages_s == {"model": 0.5, "google_cloud_vision": 0.25}


def test_a_result_and_an_ending_count_for_their_instance_if_the_settings_name_it(metrics: Metrics) -> None:
    metrics.use_instances(["acme", "globex"], histograms=1)
    for instance in ("acme", "globex", "default", "stranger-1", "stranger-2"):
        metrics.result(replace(result(), instance=instance))
        metrics.ended(Ending.ANSWERED, None, instance, 0.2)
    metrics.ended(Ending.DEAD_LETTERED, "instance_not_allowed", None, 0.1)
    exposition = text(metrics)
    for name, number in (("acme", 1), ("globex", 1), ("default", 1), ("other", 2)):
        labels = {"dms_instance": name, "reason": ""}
        assert value(exposition, "autotag_results_total", status="tagged", **labels) == number
        assert value(exposition, "autotag_events_total", ending="answered", **labels) == number
    # Durations have as many names as the settings allow, the first; the rest is one
    counts = {
        name: value(exposition, "autotag_event_duration_seconds_count", ending="answered", dms_instance=name)
        for name in ("acme", "default", "other")
    }
    assert counts == {"acme": 1, "default": 1, "other": 3}
    assert value(exposition, "autotag_event_duration_seconds_count", ending="dead_lettered", dms_instance="other") == 1
    assert total(exposition, "autotag_event_duration_seconds_count", dms_instance="globex") == 0
    assert "stranger" not in exposition


def test_an_instances_first_dead_letter_is_an_increase(metrics: Metrics) -> None:
    metrics.use_instances(["acme"], histograms=100)
    labels = {"ending": "dead_lettered", "dms_instance": "acme"}
    assert value(text(metrics), "autotag_event_duration_seconds_count", **labels) == 0


def test_a_thousand_instances_in_use_cost_the_parent_little_memory_and_a_scrape_of_bounded_size() -> None:
    code = """if True:
        from pathlib import Path
        from prometheus_client import CollectorRegistry, generate_latest
        from worker.amqp.delivery import Ending
        from worker.messages import Result
        from worker.operations.metrics import Metrics
        from worker.settings import MetricsSettings
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        metrics, names = Metrics(), [f"tenant-{number:04}" for number in range(1000)]
        before = resident()
        metrics.use_instances(names, histograms=MetricsSettings().instances_with_durations)
        for name in names:
            for status, reason in (("tagged", None), ("no_tags", None), ("failed", "image_truncated")):
                metrics.result(Result(asset_id="a", instance=name, event_id="e", status=status, reason=reason))
            for ending, reason in ((Ending.ANSWERED, None), (Ending.RETRIED, "timed_out"), (Ending.DEAD_LETTERED, "x")):
                metrics.ended(ending, reason, name, 0.1)
        size = len(generate_latest(metrics.registry))
        print(resident() - before, size)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    grown_bytes, scrape_bytes = map(int, done.stdout.split())
    assert grown_bytes < 16e6
    assert scrape_bytes < 2e6


def test_reasons_are_passed_on_until_there_are_too_many_to_be_fixed_codes() -> None:
    reason = Reasons()
    assert reason(None) == ""
    assert reason("image_truncated") == "image_truncated"
    assert reason("failed: 'no such file' !") == OTHER
    for number in range(1000):
        reason(f"made_up_{number}")
    assert reason("one_more") == OTHER
    assert reason("image_truncated") == "image_truncated"


# ── RabbitMQ ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_consumers_are_shown_by_lane_and_reconnects_only_grow(metrics: Metrics) -> None:
    metrics.broker.on_state(BrokerState(BrokerPhase.CONSUMING, 0.0, lanes=frozenset({Lane.LIVE}), reconnects=1))
    metrics.broker.on_state(BrokerState(BrokerPhase.WAITING, 1.0, last_error="gone", reconnects=1))
    metrics.broker.on_state(BrokerState(BrokerPhase.PAUSED, 2.0, blocked="memory", reconnects=3))
    exposition = text(metrics)
    assert value(exposition, "autotag_consumer_active", lane="live") == 0
    assert value(exposition, "autotag_broker_connected") == 1
    assert value(exposition, "autotag_broker_blocked") == 1
    assert value(exposition, "autotag_broker_reconnects_total") == 3


def test_the_brokers_version_is_shown_once_it_is_known_and_after_an_upgrade_only_the_new_one(metrics: Metrics) -> None:
    metrics.broker.on_state(BrokerState(BrokerPhase.CONNECTING, 0.0))
    assert "autotag_broker_info{" not in text(metrics)
    metrics.broker.on_state(BrokerState(BrokerPhase.CONSUMING, 1.0, version="RabbitMQ 3.13.7"))
    metrics.broker.on_state(BrokerState(BrokerPhase.CONSUMING, 2.0, version="RabbitMQ 4.2.0"))
    assert value(text(metrics), "autotag_broker_info", version="RabbitMQ 4.2.0") == 1
    assert "3.13.7" not in text(metrics)


def test_unmarked_deliveries_are_counted_once_in_whatever_order_their_numbers_come(metrics: Metrics) -> None:
    for unmarked in (0, 2, 1, 5, 0):
        metrics.broker.sample(BrokerState(BrokerPhase.CONSUMING, 0.0, unmarked=unmarked))
    assert value(text(metrics), "autotag_unmarked_deliveries_total") == 5


def test_stale_depths_are_not_exported(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.broker.on_depths({"images.live": 7})
    assert value(text(metrics), "autotag_queue_messages", queue="images.live") == 7
    monkeypatch.setattr(broker_metrics, "STALE_AFTER_S", 0.0)
    assert "autotag_queue_messages{" not in text(metrics)


# ── children ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pool", "state"),
    [
        (Pool([]), "stopped"),
        (Pool([Child("model-1", "starting")]), "starting"),
        (Pool([Child("model-1", "busy")]), "ready"),
        (Pool([Child("model-1", "busy"), Child("model-1", "starting")]), "recycling"),
        (Pool([Child("model-1", "back_off")]), "back_off"),
        (Pool([Child("model-1", "disabled")], disabled_reason="crashed too often"), "disabled"),
    ],
)
def test_a_supervisor_is_in_exactly_one_state(metrics: Metrics, pool: Pool, state: str) -> None:
    metrics.children.observe(lambda: {"model": pool})
    exposition = text(metrics)
    assert value(exposition, "autotag_supervisor_state", kind="model", state=state) == 1
    assert total(exposition, "autotag_supervisor_state", kind="model") == 1
    assert value(exposition, "autotag_supervisor_state", kind="decoder", state="stopped") == 1
    assert value(exposition, "autotag_model_disabled") == (state == "disabled")


def test_nothing_is_left_of_the_budget_of_a_model_that_could_never_start(metrics: Metrics) -> None:
    metrics.children.observe(lambda: {"model": Pool([], disabled_reason="model file missing", relaunches_left=4)})
    assert value(text(metrics), "autotag_model_relaunches_left") == 0


def test_crashes_and_relaunches_are_counted_by_their_reason(metrics: Metrics) -> None:
    crash = Crashed(Cause("killed_by_sigkill", "killed"), counted=True, relaunches_left=4)
    for notice in (crash, Relaunching(0.0), BecameReady()):
        metrics.children.on_notice("model-1", notice)
    metrics.children.on_notice(
        "decoder-2", Crashed(Cause("killed_by_sigsegv", "x"), counted=False, relaunches_left=None)
    )
    exposition = text(metrics)
    labels = {"kind": "model", "reason": "killed_by_sigkill"}
    assert value(exposition, "autotag_child_crashes_total", counted="true", **labels) == 1
    assert value(exposition, "autotag_child_relaunches_total", **labels) == 1
    assert total(exposition, "autotag_child_crashes_total", kind="decoder", counted="false") == 1


def test_two_children_of_one_name_and_arbitrary_hellos_make_no_invalid_series(metrics: Metrics) -> None:
    hello = {"identity": 'a"b\n' * 100, "runtime": "litert"}
    pool = Pool([Child("model-1", "busy", 10, hello), Child("model-1", "starting", 30, hello)])
    metrics.children.observe(lambda: {"model": pool})
    assert value(text(metrics), "autotag_child_resident_memory_bytes", kind="model", child="model-1") == 30
    assert promtool("check", "metrics", given=text(metrics)).returncode == 0


# ── cloud services ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_account_has_its_series_before_anything_is_put_off_or_called(metrics: Metrics) -> None:
    metrics.instances.configure({"acme"})
    metrics.cloud.observe(lambda: [AccountView("google_cloud_vision", "acme", "closed")])
    account = {"provider": "google_cloud_vision", "dms_instance": "acme"}
    assert value(text(metrics), "autotag_provider_put_off_total", reason="calls_at_once", **account) == 0
    assert value(text(metrics), "autotag_provider_retries_total", **account) == 0


def test_only_configured_instances_have_series_of_their_own(metrics: Metrics) -> None:
    metrics.instances.configure({"acme"})
    for instance in ("acme", "default", "stranger-1", "stranger-2"):
        metrics.cloud.called("google_cloud_vision", instance, None, 0.1)
    metrics.cloud.called("google_cloud_vision", "acme", "timed_out", 30.0)
    metrics.cloud.retried("google_cloud_vision", "acme")
    exposition = text(metrics)
    google = {"provider": "google_cloud_vision"}
    assert value(exposition, "autotag_provider_calls_total", dms_instance="acme", outcome="ok", **google) == 1
    assert value(exposition, "autotag_provider_calls_total", dms_instance="acme", outcome="timed_out", **google) == 1
    assert value(exposition, "autotag_provider_calls_total", dms_instance="other", outcome="ok", **google) == 2
    assert value(exposition, "autotag_provider_retries_total", dms_instance="acme", **google) == 1
    assert "stranger" not in exposition


def test_circuits_and_budgets_are_exported_from_the_start_for_every_account(metrics: Metrics) -> None:
    metrics.instances.configure({"acme"})
    metrics.cloud.observe(
        lambda: [
            AccountView("google_cloud_vision", "acme", "open", calls_limit=100, calls_used=7),
            AccountView("microsoft_vision", "acme", "closed", calls_limit=50),
        ]
    )
    exposition = text(metrics)
    google = {"provider": "google_cloud_vision", "dms_instance": "acme"}
    assert value(exposition, "autotag_provider_circuit_state", state="open", **google) == 1
    assert value(exposition, "autotag_provider_circuit_state", state="closed", **google) == 0
    assert value(exposition, "autotag_provider_budget_used_calls", **google) == 7
    assert value(exposition, "autotag_provider_calls_total", outcome="ok", **google) == 0
    assert total(exposition, "autotag_provider_budget_used_calls", provider="microsoft_vision") == 0


# ── the files beside the code ────────────────────────────────────────────────────────────────────────────────────────


def named_in(file: Path) -> set[str]:
    """The metrics named in a file, without the suffixes of a histogram."""
    found = re.findall(r"\bautotag_[a-z0-9_]+[a-z0-9]", file.read_text())
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def alerts() -> Iterable[dict[str, object]]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return [rule for rule in rules if "alert" in rule]


@pytest.mark.parametrize("file", [RULES, RULES_TEST, DASHBOARD, ROOT / "docs/metrics.md"], ids=lambda file: file.name)
def test_every_named_metric_exists(metrics: Metrics, file: Path) -> None:
    assert named_in(file) - families(metrics) == set()


def test_every_metric_is_documented_and_almost_all_are_on_the_dashboard(metrics: Metrics) -> None:
    ours = {name for name in families(metrics) if name.startswith("autotag_")}
    assert ours - named_in(ROOT / "docs/metrics.md") == set()
    of_the_service = {name for name in ours if not name.startswith("autotag_connect_")}
    assert of_the_service - named_in(DASHBOARD) == {
        "autotag_broker_connected",
        "autotag_settings_left_out",  # an alert has it
        "autotag_tags_total",
    }


def test_each_alert_has_a_section_of_the_runbook() -> None:
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE))
    for alert in alerts():
        assert alert["alert"] in sections
        annotations = alert["annotations"]
        assert isinstance(annotations, dict)
        assert annotations["runbook_url"] == f"{RUNBOOK}#{str(alert['alert']).lower()}"
    assert sections == {alert["alert"] for alert in alerts()}


def test_each_alert_is_fired_by_promtool() -> None:
    tested = promtool("test", "rules", str(RULES_TEST))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    fired = {
        check["alertname"]
        for test in yaml.safe_load(RULES_TEST.read_text())["tests"]
        for check in test["alert_rule_test"]
        if check["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in alerts()}


def test_the_alerts_name_no_job_and_every_metric_can_be_narrowed_to_some() -> None:
    for alert in alerts():
        expression = str(alert["expr"])
        metrics = re.sub(r'"[^"]*"', '""', expression)
        named = re.findall(r"\bautotag[_:][a-z_:]+|\bup\b|__name__", metrics)
        assert expression.count('job=~".+"') == len(named), expression
        assert not re.search(r'job="', expression)


def write_rules(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, WRITE_RULES, *arguments], capture_output=True, text=True, check=False)


def test_the_rules_can_be_written_for_some_jobs_and_another_runbook() -> None:
    assert write_rules().stdout == RULES.read_text()
    written = write_rules("--runbook", "https://wiki.example/ops?page=7", "--selector", 'job="photos", cluster=~"a|b"')
    assert written.returncode == 0, written.stderr
    assert promtool("check", "rules", "/dev/stdin", given=written.stdout).returncode == 0
    rules = yaml.safe_load(written.stdout)["groups"][0]["rules"]
    assert {rule["annotations"]["runbook_url"].split("#")[0] for rule in rules if "alert" in rule} == {
        "https://wiki.example/ops?page=7"
    }
    assert all('job="photos", cluster=~"a|b"' in rule["expr"] for rule in rules)
    assert 'job=~".+"' not in written.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--runbook", "wiki"), "absolute"),
        (("--runbook", "https://wiki.example/#top"), "absolute"),
        (("--runbook", 'https://wiki.example/"'), "absolute"),
        (("--selector", "photos"), "matchers"),
        (("--selector", 'job="photos"} or up{'), "matchers"),
        (("--selector", ""), "matchers"),
    ],
)
def test_what_would_make_broken_rules_is_refused(arguments: tuple[str, ...], why: str) -> None:
    refused = write_rules(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in refused.stderr


def test_the_scrape_file_and_the_rules_pass_promtool() -> None:
    for arguments in (("check", "rules", str(RULES)), ("check", "config", "deploy/prometheus/prometheus.yml")):
        checked = promtool(*arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_panel_of_the_dashboard_has_a_place_a_description_and_a_data_source() -> None:
    panels = [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
