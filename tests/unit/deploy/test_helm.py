"""The Helm chart: rendered by Helm itself, validated with Kubernetes' own schemas, and consistent with the settings."""

import tomllib
from pathlib import Path
from typing import Any

import cloudcoil.models.keda.v1alpha1 as keda
import cloudcoil.models.prometheus_operator.v1 as prometheus_operator
import helm_python
import kubernetes_validate
import pytest
import yaml

from worker.amqp.topology import Lane, topology
from worker.settings import RetrySettings, Settings
from worker.settings.load import load_settings

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "autotag"
KUBERNETES_VERSIONS = ("1.29", "1.37")  # the oldest that Chart.yaml allows, and the newest with a schema here
CUSTOM = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "ServiceMonitor": prometheus_operator.ServiceMonitor,
}
EVERYTHING: dict[str, Any] = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "keda": {"enabled": True, "existingSecret": "rabbitmq-monitoring"},
    "secrets": {"values": {"amqp__password": "marker"}},
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
LEAST: dict[str, Any] = {"networkPolicy": {"metricsFrom": [], "https": {"enabled": False}}}
CASES = {"as shipped": {}, "everything": EVERYTHING, "least": LEAST}


def render(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The manifests by kind."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="demo", namespace="dms")
    documents = [
        document
        for name, text in files.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    by_kind = {document["kind"]: document for document in documents}
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
    for kind, manifest in render(values).items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_refused() -> None:
    deployment = render({})["Deployment"]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES_VERSIONS[-1], strict=True)


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_resources_match_their_definitions(kind: str) -> None:
    manifest = render(EVERYTHING)[kind]
    read = CUSTOM[kind].model_validate(manifest)
    # Unknown fields are ignored when read, so what comes back must equal what went in.
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest


@pytest.mark.parametrize(
    "values",
    [
        {"replicaz": 1},
        {"keda": {"enabled": True}},
        {"secrets": {"values": {"password": "not a setting"}}},
        {"image": {"digest": "latest"}},
        {"images": {"mounts": [{"name": "library", "mountPath": "/images", "readOnly": False}]}},
        {"keda": {"managementUrl": "http://user:password@broker:15672/"}},
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
        {"config": "# calls_per_month = 5000\n"},
    ],
    ids=["Redis in a secret of one's own", "Redis in the chart's secret", "a claim for one pod", "a comment"],
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
    if "Secret" in manifests:
        assert environment["AUTOTAG_SECRETS_DIR"] == mounts["secrets"]
        environment["AUTOTAG_SECRETS_DIR"] = str(tmp_path / "secrets")
        (tmp_path / "secrets").mkdir()
        for name, text in manifests["Secret"]["stringData"].items():
            (tmp_path / "secrets" / name).write_text(text)
    settings = load_settings(config, environ=environment, directory=tmp_path).settings
    assert settings.defaults.tensorflow.enabled
    assert settings.http.port == container(manifests)["ports"][0]["containerPort"]
    assert tomllib.loads(config.read_text()), "the chart's own settings come from the environment, the rest from here"


def test_secrets_are_files_and_never_environment() -> None:
    manifests = render(EVERYTHING)
    assert manifests["Secret"]["stringData"] == {"amqp__password": "marker"}
    rest = {kind: manifest for kind, manifest in manifests.items() if kind != "Secret"}
    assert "marker" not in yaml.safe_dump(rest)
    existing = render({"secrets": {"existingSecret": "mine"}})
    assert "Secret" not in existing
    assert {"secretName": "mine", "defaultMode": 0o440} in [each.get("secret") for each in pod(existing)["volumes"]]


def test_keda_counts_both_lanes_with_unacknowledged_messages() -> None:
    manifests = render(EVERYTHING)
    layout = topology(Settings().amqp.queue_prefix, RetrySettings().delays_s)
    triggers = [trigger["metadata"] for trigger in manifests["ScaledObject"]["spec"]["triggers"]]
    assert {trigger["queueName"] for trigger in triggers} == {layout.lane_queue(lane) for lane in Lane}
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
