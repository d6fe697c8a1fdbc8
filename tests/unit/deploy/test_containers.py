"""The Dockerfile and the compose file: their formats, the rights of the containers, and the settings they name."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from worker.settings import Settings
from worker.settings.load import load_settings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
PROBE = ("-m", "worker.cli.probe")
STAGES = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[1:]


def interpolated(text: str) -> str:
    """The text with the default of every variable that has one, as if the operator had set none."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated((DEPLOY / "compose.yaml").read_text()))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def parse(compose: dict[str, Any]) -> None:
    parsed = compose_spec.PyCompose.from_json(json.dumps(compose))
    parsed.validate()


def image_environment() -> dict[str, str]:
    text = STAGES[-1].replace("\\\n", " ")
    arguments = {"MODELS": re.findall(r"ARG MODELS='(.+)'", text)[0]}
    pairs = re.findall(r"(AUTOTAG_\w+)=(\S+)", text)
    return {name: re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], value) for name, value in pairs}


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_final_stage_installs_nothing_and_runs_as_an_unprivileged_user() -> None:
    final = STAGES[-1]
    assert len(STAGES) == 2
    assert not re.search(r"apt-get|pip |gcc|make", final)
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", final, re.MULTILINE)


def test_the_image_sets_settings_that_exist(tmp_path: Path) -> None:
    settings = load_settings(environ=image_environment(), directory=tmp_path).settings
    assert settings.tensorflow == Settings().tensorflow


def test_the_health_check_is_a_small_program_that_fails_when_no_service_answers(tmp_path: Path) -> None:
    command = re.search(r"^HEALTHCHECK.*?CMD (\[.*?\])$", STAGES[-1].replace("\\\n", " "), re.MULTILINE)
    assert command
    assert json.loads(command[1]) == ["python3", *PROBE]
    # It takes as long as Python does to start, and knows the socket by the image's environment
    nowhere = image_environment() | {"AUTOTAG_CONTROL_SOCKET": str(tmp_path / "none"), "PATH": os.environ["PATH"]}
    report = [sys.executable, "-X", "importtime", *PROBE]
    done = subprocess.run(report, check=False, env=nowhere, capture_output=True, text=True)
    assert done.returncode == 3
    assert "no service answers" in done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "worker.cli.probe" not in imported, "it is the program itself"
    assert not imported & {"asyncio", "pydantic", "typer", "rich", "structlog", "ssl", "urllib.request"}


def test_the_ignore_file_admits_exactly_what_the_build_copies() -> None:
    ignore_file = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in ignore_file if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == admitted
    assert ignore_file[1] == "*", "everything that is not named is ignored"


def test_the_compose_file_conforms_to_the_compose_specification() -> None:
    parse(COMPOSE)


@pytest.mark.parametrize(
    ("key", "value"), [("read_only", "perhaps"), ("secrets", ["unheard_of"]), ("tmpfss", ["/tmp"])]
)
def test_a_compose_file_that_does_not_conform_is_detected(key: str, value: object) -> None:
    broken = COMPOSE | {"services": SERVICES | {"autotag": SERVICES["autotag"] | {key: value}}}
    with pytest.raises(ValueError, match=r"."):
        parse(broken)


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "open to this machine only"
    assert "healthcheck" in service or "HEALTHCHECK" in STAGES[-1]


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_has_a_fixed_version(name: str) -> None:
    _, _, version = SERVICES[name]["image"].partition(":")
    assert version
    assert version != "latest" or name == "autotag", "Autotag's own is built here"


def test_the_settings_of_the_container_are_accepted_and_leave_the_password_to_the_secret(tmp_path: Path) -> None:
    service = SERVICES["autotag"]
    (tmp_path / "amqp__password").write_text("marker\n")
    environment = image_environment() | service["environment"] | {"AUTOTAG_SECRETS_DIR": str(tmp_path)}
    settings = load_settings(environ=environment, directory=tmp_path).settings
    assert settings.amqp.password
    assert settings.amqp.password.get_secret_value() == "marker"
    assert settings.defaults.tensorflow.enabled
    written = [str(settings.state_dir), str(settings.control_socket.parent)]
    mounted = [volume.split(":")[1] for volume in service["volumes"]] + [
        path.split(":")[0] for path in service["tmpfs"]
    ]
    assert set(written) <= set(mounted), "the rest of the file system is read-only"
    assert [str(root) for root in settings.sources.path_roots] == ["/images"]


def test_the_container_has_more_time_to_stop_than_the_service_needs() -> None:
    settings = Settings()
    seconds = float(SERVICES["autotag"]["stop_grace_period"].removesuffix("s"))
    assert seconds > settings.shutdown_grace_s + settings.tensorflow.stop_timeout_s


def test_every_mounted_file_exists_or_is_created_by_the_operator() -> None:
    created = ("./secrets/", "./images", "./grafana/dashboards")
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    sources += [each["file"] for each in (*COMPOSE["configs"].values(), *COMPOSE["secrets"].values())]
    for source in sources:
        if source.startswith("./") and not source.startswith(created):
            assert (DEPLOY / source).exists(), source


def test_prometheus_scrapes_the_port_of_the_service() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets["autotag"] == [f"autotag:{Settings().http.port}"]


def test_every_image_of_others_is_named_by_its_digest() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images.remove("autotag:latest")
    images += re.findall(r"^ARG BASE=(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[a-z/]+(:[\w.-]+)?@sha256:[0-9a-f]{64}", image), image
