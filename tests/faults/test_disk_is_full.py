"""The disk that holds the model cache is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scene import scene
from worker.cli.exit_codes import ExitCode


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one mebibyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk],  # noqa: S607 - wherever the system has it
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"only root may mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)  # noqa: S607


def test_a_model_that_does_not_fit_is_not_built_and_the_message_says_how_much_is_missing(small_disk: Path) -> None:
    space = os.statvfs(small_disk)
    assert space.f_bavail * space.f_frsize <= 1 << 20
    for command in (["model", "build", "efficientnet-lite0"], ["run"]):
        done = subprocess.run(
            [sys.executable, "-m", "worker", *command],
            env={name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
            | {
                "AUTOTAG_CACHE_DIR": str(small_disk),
                "AUTOTAG_STATE_DIR": str(small_disk.parent / "state"),
                "AUTOTAG_AMQP__URL": os.environ["AUTOTAG_AMQP__URL"],
                "AUTOTAG_AMQP__QUEUE_PREFIX": f"disk-full-{os.getpid()}",
                "AUTOTAG_AMQP__DECLARE": "false",
                "AUTOTAG_HTTP__PORT": "0",
                "AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED": "true",
                "AUTOTAG_TENSORFLOW__MODEL": "efficientnet-lite0",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (ExitCode.MODEL, ExitCode.USAGE), done.stderr
        assert "1 MiB are free" in done.stderr
        assert str(small_disk) in done.stderr


def fill(disk: Path) -> None:
    """Fill the disk to the last byte."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while filler.write(bytes(size)):
                    pass
    space = os.statvfs(disk)
    assert space.f_bavail == 0


def test_a_disk_that_fills_up_while_the_service_runs_does_not_affect_it(
    broker: str, queue_prefix: str, small_disk: Path, photographs: dict[str, Path], tmp_path: Path
) -> None:
    # Given a service whose state directory is on a disk without a free byte
    fill(small_disk)
    with scene(broker, queue_prefix, tmp_path / "run", photographs, STATE_DIR=str(small_disk)) as it:
        it.load(50)
        it.ledger.settle()
        assert it.ledger.statuses() == {"tagged"}
