"""The Helm chart: rendered by Helm itself, validated with Kubernetes' own schemas, and consistent with the settings."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import cloudcoil.models.keda.v1alpha1 as keda
import cloudcoil.models.prometheus_operator.v1 as prometheus_operator
import helm_python
import kubernetes_validate
import pytest
import yaml

from tests.support.monitoring import promtool
from worker import engine
from worker.amqp.topology import Lane, topology
from worker.settings import RetrySettings, Settings
from worker.settings.load import load_settings
from worker.supervision import cgroup, memory

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "autotag"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
KUBERNETES_VERSIONS = ("1.29", "1.37")  # the oldest that Chart.yaml allows, and the newest with a schema here
CUSTOM = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "ServiceMonitor": prometheus_operator.ServiceMonitor,
    "PrometheusRule": prometheus_operator.PrometheusRule,
}
EVERYTHING: dict[str, Any] = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "token": True},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "alertLabels": {"team": "dms"}},
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "DMS"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "dms.example",
        "path": "/autotag",
        "tlsSecret": "dms-tls",
        "annotations": {"nginx.ingress.kubernetes.io/affinity": "cookie"},
    },
    "http": {"tls": {"existingSecret": "autotag-tls"}},
    "answerCache": {"existingClaim": "answers"},
    "connect": {"enabled": True, "existingClaim": "connect"},
    "keda": {"enabled": True, "existingSecret": "rabbitmq-monitoring"},
    "secrets": {"values": {"amqp__password": "marker", "http__token": "marker-of-16-characters"}},
    "images": {
        "volumes": [{"name": "library", "persistentVolumeClaim": {"claimName": "dms"}}],
        "mounts": [{"name": "library", "mountPath": "/images", "readOnly": True}],
    },
    "networkPolicy": {"rabbitmq": {"to": [{"namespaceSelector": {"matchLabels": {"name": "rabbitmq"}}}]}},
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "low",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "podAnnotations": {"example.org/team": "dms"},
    "podLabels": {"team": "dms"},
    "extraEnv": [{"name": "AUTOTAG_LOG__LEVEL", "value": "debug"}],
}
MADE_BY_THE_OPERATOR = {
    "amqp__password": "marker",
    "http__token": "marker-of-16-characters",
    "cloud__budget_url": "redis://:marker@redis.redis.svc:6379/0",
    "defaults__google_cloud_vision__api_key": "AIzaSy" + "a" * 33,
    "defaults__microsoft_vision__api_key": "0" * 32,
}
LEAST: dict[str, Any] = {"networkPolicy": {"metricsFrom": [], "https": {"enabled": False}}}
EXAMPLES = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((CHART.parent / "examples").glob("*.yaml"))}
CASES = {"as shipped": {}, "everything": EVERYTHING, "least": LEAST} | EXAMPLES


def render(values: dict[str, Any], release: str = "demo", namespace: str = "dms") -> dict[str, dict[str, Any]]:
    """The manifests by kind, and by the rest of their name where that is not the release's."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name=release, namespace=namespace)
    documents = [
        document
        for name, text in files.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]

    def key(document: dict[str, Any]) -> str:
        return f"{document['kind']} {document['metadata']['name'].removeprefix(f'{release}-autotag')}".removesuffix(" ")

    by_kind = {key(document): document for document in documents}
    assert len(by_kind) == len(documents), "two of a kind"
    return by_kind


def pod(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (only,) = pod(manifests)["containers"]
    assert isinstance(only, dict)
    return only


def test_helm_lint_finds_no_error() -> None:
    found = helm_python.lint(str(CHART))
    assert found["errors"] == []
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_kubernetes_accepts_every_manifest(values: dict[str, Any], version: str) -> None:
    for manifest in render(values).values():
        if (custom := CUSTOM.get(manifest["kind"])) is None:
            kubernetes_validate.validate(manifest, version, strict=True)
        else:
            require_valid(custom, manifest)


def test_there_are_ten_examples_of_values_and_each_says_what_it_is_for() -> None:
    assert len(EXAMPLES) == 10
    for file in (CHART.parent / "examples").iterdir():
        assert file.suffix == ".yaml"
        assert file.read_text().startswith("# ")


def test_a_misspelt_field_is_refused() -> None:
    deployment = render({})["Deployment"]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES_VERSIONS[-1], strict=True)


def require_valid(model: Any, manifest: dict[str, Any]) -> None:
    read = model.model_validate(manifest)
    # Unknown fields are ignored when read, so what comes back must equal what went in.
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_resources_match_their_definitions(kind: str) -> None:
    require_valid(CUSTOM[kind], render(EVERYTHING)[kind])


@pytest.mark.parametrize(
    "values",
    [
        {"replicaz": 1},
        {"keda": {"enabled": True}},
        {"secrets": {"values": {"password": "not a setting"}}},
        {"image": {"digest": "latest"}},
        {"images": {"mounts": [{"name": "library", "mountPath": "/images", "readOnly": False}]}},
        {"keda": {"managementUrl": "http://user:password@broker:15672/"}},
        {"ingress": {"enabled": True}},
        {"ingress": {"enabled": True, "host": "dms.example", "path": "/autotag/"}},
        {"serviceMonitor": {"enabled": True, "token": True}},
        {"prometheusRule": {"enabled": True, "runbookUrl": "docs/runbook.md"}},
        {"prometheusRule": {"enabled": True, "selector": "job='a'} or up{"}},
        {"prometheusRule": {"without": ["everything"]}},
        {"state": {"existingClaim": "autotag"}},
        {"state": {"claim": {"create": True}}, "replicas": 1, "keda": {"enabled": True, "existingSecret": "a"}},
        {"http": {"scheme": "HTTPS"}},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError, match="schema"):
        render(values)


LIMITED = {"config": "[defaults.microsoft_vision]\nenabled = true\ncalls_per_month = 5000\n"}


@pytest.mark.parametrize(
    "values",
    [
        LIMITED,
        {"config": "defaults.microsoft_vision = {enabled = true, calls_per_month = 5000}"},
        LIMITED | {"secrets": {"values": {"amqp__password": "marker"}}},
        LIMITED | {"state": {"existingClaim": "autotag"}},
        LIMITED | {"state": {"existingClaim": "autotag"}, "replicas": 1, "keda": EVERYTHING["keda"]},
    ],
    ids=["as shipped", "inline", "another secret", "two pods", "KEDA"],
)
def test_a_monthly_limit_is_refused_where_no_count_lasts(values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError, match="schema"):
        render(values)


@pytest.mark.parametrize(
    "values",
    [
        LIMITED | {"budget": {"redisInSecret": True}, "secrets": {"existingSecret": "mine"}},
        LIMITED | {"secrets": {"values": {"cloud__budget_url": "redis://:marker@redis/0"}}},
        LIMITED | {"state": {"existingClaim": "autotag"}, "replicas": 1},
        LIMITED | {"state": {"claim": {"create": True}}, "replicas": 1},
        {"config": "# calls_per_month = 5000\n"},
    ],
    ids=[
        "Redis in a secret of one's own",
        "Redis in the chart's secret",
        "a claim for one pod",
        "one of the chart's",
        "a comment",
    ],
)
def test_a_monthly_limit_is_accepted_where_the_count_lasts(values: dict[str, Any]) -> None:
    manifests = render(values)
    kubernetes_validate.validate(manifests["Deployment"], KUBERNETES_VERSIONS[-1], strict=True)
    environment = {each["name"]: each["value"] for each in container(manifests)["env"]}
    (state,) = [each for each in pod(manifests)["volumes"] if each["name"] == "state"]
    assert ("emptyDir" in state) is (environment.get("AUTOTAG_STATE_DIR_IS_TEMPORARY") == "true")
    assert ("persistentVolumeClaim" in state) is bool(values.get("state"))


def test_the_pod_has_no_more_rights_than_it_needs() -> None:
    manifests = render(EVERYTHING)
    connect = manifests["Deployment -connect"]["spec"]["template"]["spec"]
    assert connect["securityContext"] == pod(manifests)["securityContext"]
    assert connect["containers"][0]["securityContext"] == container(manifests)["securityContext"]
    assert connect["automountServiceAccountToken"] is False
    assert (
        pod(manifests)["securityContext"].items()
        >= {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }.items()
    )
    assert container(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(manifests)["automountServiceAccountToken"] is False
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("grace_s", [int(Settings().shutdown_grace_s), 120])
def test_a_pod_is_killed_only_after_the_pause_and_the_grace_are_over(grace_s: int) -> None:
    manifests = render({"shutdownGraceSeconds": grace_s, "preStopSeconds": 7})
    killed_after_s = pod(manifests)["terminationGracePeriodSeconds"]
    assert killed_after_s >= grace_s + 7 + Settings().tensorflow.stop_timeout_s
    assert container(manifests)["lifecycle"]["preStop"]["exec"]["command"] == ["sh", "-c", "autotag pause; sleep 7"]


def test_a_slow_start_of_the_model_does_not_fail_the_startup_probe() -> None:
    probe = container(render({}))["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > Settings().tensorflow.start_timeout_s


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_the_settings_of_the_pod_are_accepted(values: dict[str, Any], tmp_path: Path) -> None:
    manifests = render(values)
    environment = {each["name"]: each["value"] for each in container(manifests)["env"]}
    mounts = {each["name"]: each["mountPath"] for each in container(manifests)["volumeMounts"]}
    assert environment.pop("AUTOTAG_CONFIG") == mounts["config"]
    config = tmp_path / "autotag.toml"
    config.write_text(manifests["ConfigMap"]["data"]["autotag.toml"])
    if "secrets" in mounts:
        assert environment["AUTOTAG_SECRETS_DIR"] == mounts["secrets"]
        environment["AUTOTAG_SECRETS_DIR"] = str(tmp_path / "secrets")
        (tmp_path / "secrets").mkdir()
        secret = manifests["Secret"]["stringData"] if "Secret" in manifests else MADE_BY_THE_OPERATOR
        for name, text in secret.items():
            (tmp_path / "secrets" / name).write_text(text)
    settings = load_settings(config, environ=environment, directory=tmp_path).settings
    assert settings.defaults.tensorflow.enabled or settings.defaults.google_cloud_vision.enabled
    assert settings.http.port == container(manifests)["ports"][0]["containerPort"]
    assert tomllib.loads(config.read_text()), "the chart's own settings come from the environment, the rest from here"


def test_secrets_are_files_and_never_environment() -> None:
    manifests = render(EVERYTHING)
    assert manifests["Secret"]["stringData"] == EVERYTHING["secrets"]["values"]
    rest = {kind: manifest for kind, manifest in manifests.items() if kind != "Secret"}
    assert "marker" not in yaml.safe_dump(rest)
    existing = render({"secrets": {"existingSecret": "mine"}})
    assert "Secret" not in existing
    assert {"secretName": "mine", "defaultMode": 0o440} in [each.get("secret") for each in pod(existing)["volumes"]]


def test_keda_counts_both_lanes_with_what_waits_for_a_retry_and_unacknowledged_messages() -> None:
    manifests = render(EVERYTHING)
    layout = topology(Settings().amqp.queue_prefix, RetrySettings().delays_s)
    triggers = [trigger["metadata"] for trigger in manifests["ScaledObject"]["spec"]["triggers"]]
    counted = [{each.name for each in layout.queues if re.search(it["queueName"], each.name)} for it in triggers]
    lanes = [{layout.lane_queue(it), *(layout.retry_queue(it, each) for each in layout.delays_s)} for it in Lane]
    assert sorted(map(sorted, counted)) == sorted(map(sorted, lanes))
    for trigger in triggers:
        assert (trigger["protocol"], trigger["mode"], trigger["excludeUnacknowledged"]) == (
            "http",
            "QueueLength",
            "false",
        )
    assert "replicas" not in manifests["Deployment"]["spec"], "KEDA decides"


def test_the_network_policy_admits_readers_of_metrics_and_traffic_to_broker_dns_and_https() -> None:
    policy = render({})["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 5672, 5671, 443}
    closed = render(LEAST)["NetworkPolicy"]["spec"]
    assert closed["ingress"] == []
    assert 443 not in {port["port"] for rule in closed["egress"] for port in rule["ports"]}


def test_budget_and_service_select_the_pods_of_the_deployment() -> None:
    manifests = render(EVERYTHING)
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitored = manifests["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= manifests["Service"]["metadata"]["labels"].items()


# ── monitoring ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [*EXAMPLES, "everything"])
def test_promtool_accepts_the_rules_of_every_example(name: str) -> None:
    values = (EXAMPLES | {"everything": EVERYTHING})[name]
    switched_on = {**values, "prometheusRule": {**values.get("prometheusRule", {}), "enabled": True}}
    rules = render(switched_on)["PrometheusRule"]["spec"]
    checked = promtool("check", "rules", "/dev/stdin", given=yaml.safe_dump(rules))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def alerts_of(manifests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    (group,) = manifests["PrometheusRule"]["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_the_rules_of_a_release_are_about_that_release_and_lead_to_its_runbook() -> None:
    here = alerts_of(render({"prometheusRule": {"enabled": True}}, "photos", "dms"))
    there = alerts_of(render(EXAMPLES["monitoring"], "scans", "archive"))
    assert here.keys() - there.keys() == {"AutotagCloudBudgetLow"}
    for rule in here.values():
        assert 'namespace="dms", job="photos-autotag"' in rule["expr"]
        assert 'job=~".+"' not in rule["expr"]
    for name, rule in there.items():
        assert 'namespace="archive", job="scans-autotag"' in rule["expr"]
        assert rule["labels"]["team"] == "dms"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.org/autotag/runbook#{name.lower()}"
    own = alerts_of(render({"prometheusRule": {"enabled": True, "selector": 'app="photos"'}}))
    assert own["AutotagDown"]["expr"] == 'up{app="photos"} == 0'


def test_a_release_that_may_have_no_pod_has_no_alert_for_having_none() -> None:
    assert "AutotagAbsent" not in alerts_of(render(EXAMPLES["scaled-to-zero"]))
    assert "AutotagAbsent" in alerts_of(render({"prometheusRule": {"enabled": True}}))


def test_the_dashboard_is_a_config_map_that_the_sidecar_finds() -> None:
    manifest = render(EXAMPLES["monitoring"])["ConfigMap -dashboard"]
    assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert manifest["metadata"]["namespace"] == "monitoring"
    (text,) = manifest["data"].values()
    assert json.loads(text)["uid"] == "autotag"


def test_the_chart_has_the_alerts_and_the_dashboard_that_lie_beside_it() -> None:
    checked = subprocess.run([sys.executable, "scripts/copy_chart_files.py", "--check"], cwd=ROOT, check=False)
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("http", "scheme"),
    [
        ({}, "http"),
        ({"tls": {"existingSecret": "autotag-tls"}}, "https"),
        ({"scheme": "https"}, "https"),
    ],
    ids=["plain", "a secret", "a certificate of the settings"],
)
def test_probes_and_the_service_monitor_speak_what_the_service_speaks(http: dict[str, Any], scheme: str) -> None:
    monitor = {"enabled": True, "tlsConfig": {} if "tls" in http else {"insecureSkipVerify": True}}
    manifests = render({"http": http, "serviceMonitor": monitor})
    for kind in ("startup", "liveness", "readiness"):
        assert container(manifests)[f"{kind}Probe"]["httpGet"]["scheme"] == scheme.upper()
    (endpoint,) = manifests["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["scheme"] == scheme
    assert ("tlsConfig" in endpoint) is (scheme == "https")


def test_the_service_monitor_sends_the_token_and_checks_the_certificate() -> None:
    (endpoint,) = render(EXAMPLES["https"])["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["authorization"] == {
        "type": "Bearer",
        "credentials": {"name": "autotag-secrets", "key": "http__token"},
    }
    assert endpoint["tlsConfig"] == {
        "ca": {"secret": {"name": "autotag-tls", "key": "ca.crt"}},
        "serverName": "demo-autotag.dms.svc",
    }


def test_a_certificate_of_the_settings_needs_a_way_to_check_it() -> None:
    with pytest.raises(helm_python.HelmError, match=r"serviceMonitor\.tlsConfig"):
        render({"http": {"scheme": "https"}, "serviceMonitor": {"enabled": True}})


# ── what is written, and what is reached ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", CASES)
def test_all_that_the_service_writes_is_a_volume(name: str) -> None:
    manifests = render(CASES[name])
    writable = {
        each["mountPath"]
        for each in container(manifests)["volumeMounts"]
        if not each.get("readOnly") and not each["mountPath"].startswith("/images")
    }
    image = DOCKERFILE.read_text()
    cache = re.findall(r"AUTOTAG_CACHE_DIR=(\S+)", image)[-1]
    assert writable == {"/var/lib/autotag", "/run/autotag", "/tmp", f"{cache}/cloud-answers"}
    assert f"{cache}/cloud-answers" in re.findall(r"install -d .* (\S+)$", image, re.MULTILINE), (
        "the mount point exists"
    )


def test_a_claim_holds_the_state_of_one_pod_at_a_time_and_outlives_the_release() -> None:
    manifests = render(EXAMPLES["one-pod-with-state"])
    claim = manifests["PersistentVolumeClaim -state"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (state,) = [each for each in pod(manifests)["volumes"] if each["name"] == "state"]
    assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert manifests["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert render({})["Deployment"]["spec"]["strategy"]["type"] == "RollingUpdate"


def test_there_are_as_many_decoders_and_threads_as_the_pods_limit_has_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = container(render({}))["resources"]["limits"]["cpu"]
    # Given a node of 64 cores, and the group that the kubelet makes of the limit
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "cpu.max").write_text(f"{int(limit) * 100_000} 100000\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text(f"30 24 0:26 / {tmp_path}/group ro - cgroup2 cgroup2 rw\n")
    # Then what children and threads are counted by is the limit
    assert cgroup.usable_cores(tmp_path) == int(limit)
    monkeypatch.setattr(memory, "usable_cores", lambda: cgroup.usable_cores(tmp_path))
    monkeypatch.setattr(engine, "usable_cores", lambda: cgroup.usable_cores(tmp_path))
    settings = Settings.model_validate({"defaults": {"tensorflow": {"enabled": True}}})
    assert engine.decoder_memory_for(settings).children == int(limit)
    explicit = {"decoder": {"children": int(limit)}, "tensorflow": {"threads": int(limit)}}
    same = Settings.model_validate({"defaults": {"tensorflow": {"enabled": True}}, **explicit})
    assert engine.tasks_for(settings) == engine.tasks_for(same)


def test_the_page_can_be_reached_by_the_ingress_alone_and_knows_its_path() -> None:
    values = {**EXAMPLES["page-by-ingress"], "networkPolicy": {"metricsFrom": []}}
    manifests = render(values)
    (rule,) = manifests["Ingress"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"]) == ("dms.example.org", "/autotag")
    assert path["backend"]["service"]["name"] == manifests["Service"]["metadata"]["name"]
    assert manifests["Ingress"]["spec"]["tls"] == [{"hosts": ["dms.example.org"], "secretName": "dms-tls"}]
    environment = {each["name"]: each["value"] for each in container(manifests)["env"]}
    assert environment["AUTOTAG_HTTP__ROOT_PATH"] == "/autotag"
    (admitted,) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert admitted["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
    ]


def test_connect_is_a_deployment_of_its_own_that_nothing_of_the_workers_selects() -> None:
    manifests = render(EXAMPLES["with-connect"])
    connect = manifests["Deployment -connect"]["spec"]
    labels = connect["template"]["metadata"]["labels"]
    assert connect["selector"]["matchLabels"].items() <= labels.items()
    assert not manifests["Service"]["spec"]["selector"].items() <= labels.items()
    assert connect["template"]["spec"]["containers"][0]["args"] == ["connect"]
    assert "Deployment -connect" not in render({})


def test_every_value_is_in_the_charts_read_me() -> None:
    text = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {name for name in values if f"`{name}" not in text} == set()
    assert all(f"{name}.yaml" in text for name in EXAMPLES)


def test_the_notes_say_what_to_do_next_and_what_is_missing() -> None:
    def notes(values: dict[str, Any]) -> str:
        with helm_python.Chart.load(str(CHART)) as chart:
            files = chart.render(values, name="demo", namespace="dms")
        return next(text for name, text in files.items() if name.endswith("NOTES.txt"))

    assert "rollout status deployment/demo-autotag" in notes({})
    assert "No secret is mounted" in notes({})
    assert "No secret is mounted" not in notes(EXAMPLES["minimal"])
    assert "https://dms.example.org/autotag" in notes(EXAMPLES["page-by-ingress"])
