"""`autotag health` and the image's health check: alive or not, whatever HTTP is set to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from tests.support.polling import until
from tests.support.service import RunningService, running_service

TOKEN = "0123456789abcdef"

PATIENCE_S = 5.0
"""Of the Dockerfile: a check that takes longer has failed."""


def checked(service: RunningService) -> subprocess.CompletedProcess[str]:
    """The image's health check, in the environment of the service, as Docker runs it."""
    return subprocess.run(
        [sys.executable, "-m", "worker.cli.probe"],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def certificate(folder: Path) -> dict[str, str]:
    """Settings for HTTPS with a certificate that nobody trusts, for another name."""
    trustme.CA().issue_cert("autotag.example").private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
    return {"HTTP__CERTIFICATE_FILE": str(folder / "own.pem")}


@pytest.mark.parametrize("http", ["plain", "https", "https, below a path, with a token", "off"])
def test_a_service_is_alive_whatever_http_is_set_to(broker: str, queue_prefix: str, tmp_path: Path, http: str) -> None:
    settings = {
        "plain": {},
        "https": certificate(tmp_path),
        "https, below a path, with a token": {
            **certificate(tmp_path),
            "HTTP__ROOT_PATH": "/autotag",
            "HTTP__TOKEN": TOKEN,
        },
        "off": {"HTTP__ENABLED": "false"},
    }[http]
    with running_service(broker, queue_prefix, tmp_path / "run", **settings) as service:
        service.ready()
        done = checked(service)
        assert (done.returncode, done.stdout, done.stderr) == (0, "alive, and taking events\n", "")
        # What people run says the same
        asked = service.autotag("health", "--json")
        assert asked.returncode == 0
        assert json.loads(asked.stdout)["ready"] is True
        assert service.stop() == 0
        # And of one that has ended, both say that none answers
        assert checked(service).returncode == service.autotag("health").returncode == 3


def test_one_that_starts_or_is_paused_is_alive_and_one_that_stands_still_is_not(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    with running_service(broker, queue_prefix, tmp_path / "run") as service:
        # As soon as it answers, long before the model is there
        first = until(lambda: checked(service).stdout, "its health was answered")
        assert first.startswith("alive")
        service.ready()
        with service.paused():
            until(lambda: checked(service).stdout.startswith("alive; not taking events"), "it was paused")
            began_s = time.monotonic()
            assert checked(service).returncode == 0
            starting_s = time.monotonic() - began_s  # what this machine takes for a check that does not wait
        # When its event loop stands still
        service.process.send_signal(signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            done = checked(service)
            # Then the check has failed before Docker's patience ends
            assert done.returncode == 3
            assert "timed out" in done.stderr
            assert time.monotonic() - began_s - starting_s < PATIENCE_S
        finally:
            service.process.send_signal(signal.SIGCONT)
        until(lambda: checked(service).returncode == 0, "it is alive again")
        assert service.stop() == 0


def test_without_a_broker_it_is_alive(tmp_path: Path) -> None:
    with running_service("amqp://nobody@127.0.0.1:1/", "none", tmp_path / "run") as service:
        until(lambda: checked(service).returncode == 0, "it is alive")
        assert "not taking events" in until(lambda: _not_starting(service), "it has started")
        assert service.stop() == 0


def _not_starting(service: RunningService) -> str | None:
    line = checked(service).stdout
    return line if "starting" not in line else None


def test_the_socket_is_found_by_the_settings_where_the_environment_does_not_name_it(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    with running_service(broker, queue_prefix, tmp_path / "run") as service:
        service.ready()
        config = tmp_path / "autotag.toml"
        config.write_text(f"control_socket = {json.dumps(service.environment.pop('AUTOTAG_CONTROL_SOCKET'))}\n")
        service.environment["AUTOTAG_CONFIG"] = str(config)
        assert checked(service).returncode == 0
        assert service.stop() == 0
