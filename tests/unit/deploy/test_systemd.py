"""The systemd unit: systemd's own tools accept it, and the settings and files that it names are those Autotag reads."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from worker.cli.exit_codes import ExitCode
from worker.settings import Settings
from worker.settings.load import load_settings

SYSTEMD = Path(__file__).parents[3] / "deploy" / "systemd"
UNIT = SYSTEMD / "autotag.service"
DROP_INS = sorted((SYSTEMD / "autotag.service.d").glob("*.conf"))
HIGHEST_EXPOSURE = 2.5


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: scripts/install_tools.sh installs it"
    return subprocess.run([program, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60)


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def seconds(key: str) -> float:
    (value,) = values(key)
    return float(value)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root directory with the unit and the programs that it names."""
    units = tmp_path / "etc/systemd/system"
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    units.mkdir(parents=True)
    shutil.copy(UNIT, units)
    for program in ("opt/autotag/current/bin/autotag", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda path: path.name if path else "as shipped")
def test_systemd_finds_nothing_wrong_with_the_unit(installed: Path, drop_in: Path | None) -> None:
    if drop_in:
        directory = installed / "etc/systemd/system/autotag.service.d"
        directory.mkdir()
        shutil.copy(drop_in, directory)
    done = analyze("verify", f"--root={installed}", "autotag.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_nothing_wrong_with_the_unit_of_the_connector(installed: Path) -> None:
    shutil.copy(SYSTEMD / "autotag-connect.service", installed / "etc/systemd/system")
    done = analyze("verify", f"--root={installed}", "autotag-connect.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rated = analyze("security", "--offline=true", "--no-pager", SYSTEMD / "autotag-connect.service")
    level = re.search(r"Overall exposure level for autotag-connect\.service: ([0-9.]+)", rated.stdout)
    assert level, rated.stderr
    assert float(level[1]) < HIGHEST_EXPOSURE


def test_a_misspelt_line_is_detected(installed: Path) -> None:
    unit = installed / "etc/systemd/system/autotag.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in analyze("verify", f"--root={installed}", "autotag.service").stderr


def test_systemd_rates_the_exposure_of_the_service_low() -> None:
    done = analyze("security", "--offline=true", "--no-pager", UNIT)
    rated = re.search(r"Overall exposure level for autotag\.service: ([0-9.]+)", done.stdout)
    assert rated, done.stderr
    assert float(rated[1]) < HIGHEST_EXPOSURE


def test_the_system_calls_of_the_sandbox_are_allowed() -> None:
    groups = analyze("syscall-filter", "@ipc", "@resources").stdout
    allowed, refused, added = values("SystemCallFilter")
    assert allowed == "@system-service"
    assert {"@ipc", "@resources"} <= set(analyze("syscall-filter", allowed).stdout.split())
    assert {"memfd_create", "setrlimit"} <= set(groups.split())
    assert not {"@ipc", "@resources"} & set(refused.removeprefix("~").split())
    assert set(added.split()) == {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}


def test_the_settings_in_the_unit_and_in_its_files_are_accepted_together(tmp_path: Path) -> None:
    environment = dict(line.split("=", 1) for line in values("Environment"))
    config = environment.pop("AUTOTAG_CONFIG")
    assert config == "/etc/autotag/autotag.toml"
    places = {name: text.replace("%S", "/var/lib").replace("%C", "/var/cache").replace("%t", "/run")
              for name, text in environment.items()}  # fmt: skip
    commented = re.findall(r"^#?(AUTOTAG_\w+)=(.*)$", (SYSTEMD / "autotag.env").read_text(), re.MULTILINE)
    shipped = SYSTEMD / "autotag.toml"
    loaded = load_settings(shipped, environ={**places, **dict(commented)}, directory=tmp_path).settings

    by_file = load_settings(shipped, environ={}, directory=tmp_path).settings
    for each in ("state_dir", "cache_dir", "control_socket"):
        assert getattr(loaded, each) == getattr(by_file, each), "the command line would use another path"


def test_each_credential_is_named_like_the_secret_setting_it_holds(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for line in values("LoadCredential"):
        name, source = line.split(":")
        assert source == f"autotag.{name}", "a path without / may be missing, and lies in /etc/credstore"
        (credentials / name).write_text("amqp://broker" if name == "amqp__url" else "marker")
    environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    settings = load_settings(environ=environment, directory=tmp_path).settings
    shown = str(settings.model_dump())
    assert "marker" not in shown, "every one is a secret"
    assert settings.amqp.password
    assert settings.amqp.password.get_secret_value() == "marker"


def test_the_timeouts_of_the_unit_are_longer_than_those_of_the_service() -> None:
    settings = Settings()
    assert seconds("TimeoutStopSec") > settings.shutdown_grace_s + settings.tensorflow.stop_timeout_s
    assert seconds("TimeoutStartSec") > settings.tensorflow.start_timeout_s


def test_systemd_does_not_restart_after_failures_that_a_restart_cannot_fix() -> None:
    (codes,) = values("RestartPreventExitStatus")
    assert {int(code) for code in codes.split()} == {ExitCode.USAGE, ExitCode.MODEL}


def test_the_installer_creates_the_program_and_the_user_that_the_unit_names() -> None:
    script = SYSTEMD / "install.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0  # noqa: S607
    assert "home=/opt/autotag\n" in script.read_text()
    assert values("ExecStart") == ["/opt/autotag/current/bin/autotag run"]
    (user,) = values("User")
    assert f"u {user} " in (SYSTEMD / "autotag.sysusers").read_text()
