"""Finds RabbitMQ of the version that is wanted, and sees to it that there is one.

In this order: what is installed on this machine; on Debian and Ubuntu, as root, the distribution's package; a folder
with the package of another Debian release (`rabbitmq_folder`). The packaged system service is not touched: if it is not
running, it is not started.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rabbitmq_folder

VERSION_VARIABLE = "AUTOTAG_TEST_BROKER"
"""Names the major version that is wanted, as `make test BROKER=4` does. Unset or empty: any."""

RELEASES = {3: "bookworm", 4: "trixie"}
"""The Debian release whose package has this major version: 3.10 and 4.0."""

PACKAGE = "rabbitmq-server"
# Debian's rabbitmq-server on the PATH is a wrapper that becomes the user `rabbitmq` and uses the system's directories.
# The script that it calls runs as the calling user.
PACKAGED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
POLICY = Path("/usr/sbin/policy-rc.d")


class NotInstalledError(Exception):
    """RabbitMQ is missing and could not be installed; the message says what to run."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A RabbitMQ that can be started: on this machine, or below `root`, a folder with another Debian."""

    server: Path
    """The start script, as seen inside `root`."""
    root: Path | None = None

    def command(self, *argv: str) -> list[str]:
        """A command line that runs one of this installation's programs where it finds its files."""
        return [*(rabbitmq_folder.inside(self.root) if self.root else []), *argv]

    def tool(self, name: str) -> str:
        """Path of one of Erlang's programs, which some packages do not put on the PATH. Raises NotInstalledError."""
        found = shutil.which(name) if self.root is None else None
        if found:
            return found
        root = self.root or Path("/")
        for erlang in ("usr/lib/erlang", "usr/lib64/erlang", "usr/local/lib/erlang"):
            for pattern in (f"{erlang}/erts-*/bin/{name}", f"{erlang}/lib/erl_interface-*/bin/{name}"):
                for path in sorted(root.glob(pattern)):
                    return f"/{path.relative_to(root)}"
        raise NotInstalledError(f"RabbitMQ is installed, but Erlang's program {name} was not found.")


def wanted_version() -> int | None:
    """The major version that VERSION_VARIABLE names; None if any will do. Raises NotInstalledError for nonsense."""
    text = os.environ.get(VERSION_VARIABLE, "")
    if text and text not in map(str, RELEASES):
        raise NotInstalledError(f"BROKER (or {VERSION_VARIABLE}) is {' or '.join(map(str, RELEASES))}, not {text!r}.")
    return int(text) if text else None


def ensure(version: int | None) -> Installation:
    """RabbitMQ of this major version (None: any), installed or put into a folder if it is not there.

    Raises NotInstalledError with what to do.
    """
    found = find()
    if version is None:
        return Installation(found or install())
    if found and major_version(found) == version:
        return Installation(found)
    if found is None and candidate_version() == version:
        return Installation(install())
    return in_a_folder(version)


def find() -> Path | None:
    """The server's start script, or None when RabbitMQ is not installed."""
    on_path = shutil.which("rabbitmq-server")
    candidates = [PACKAGED, *([Path(on_path)] if on_path else [])]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def major_version(server: Path) -> int | None:
    """The major version of an installed RabbitMQ: from its directory's name, else from rabbitmqctl, which is slower."""
    found = re.search(r"rabbitmq_server-(\d+)\.", str(server.resolve()))
    if found is None:
        output = rabbitmq_folder.output_of(str(server.with_name("rabbitmqctl")), "version")
        found = re.search(r"^(\d+)\.", output, re.MULTILINE)
    return int(found[1]) if found else None


def candidate_version() -> int | None:
    """The major version of the package that apt would install here; None if there is none."""
    found = re.search(r"Candidate: (\d+)\.", rabbitmq_folder.output_of("apt-cache", "policy", PACKAGE))
    return int(found[1]) if found else None


def in_a_folder(version: int) -> Installation:
    """RabbitMQ of another Debian release in a folder. Raises NotInstalledError with what to do."""
    release = RELEASES[version]
    ways = (
        f"Either run this as root on Debian, which puts RabbitMQ {version} of Debian {release} into a folder in "
        f"{rabbitmq_folder.cache()}, or install RabbitMQ {version}, with rabbitmq-server on the PATH, or set "
        "AUTOTAG_AMQP__URL to one that is running."
    )
    try:
        if os.geteuid() == 0 and not shutil.which("debootstrap"):
            install_package("debootstrap")
        root = rabbitmq_folder.ensure(release, PACKAGE)
    except (rabbitmq_folder.BuildError, NotInstalledError, OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"RabbitMQ {version} is wanted and not installed. {ways}\n{error}") from error
    return Installation(PACKAGED, root)


@contextlib.contextmanager
def services_stay_stopped() -> Iterator[None]:
    """Packages installed inside this block do not start their services (Debian's invoke-rc.d asks the policy file)."""
    if POLICY.exists():  # there is a policy already, as in every container image
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def install() -> Path:
    """Install the distribution's package and return the start script. Raises NotInstalledError with what to do."""
    if not shutil.which("apt-get"):
        raise NotInstalledError(
            "RabbitMQ is not installed, and this machine has no apt-get to install it with. Install RabbitMQ 3.10 or "
            "newer, with rabbitmq-server on the PATH, or set AUTOTAG_AMQP__URL to a broker that is running."
        )
    if os.geteuid() != 0:
        raise NotInstalledError(
            f"RabbitMQ is not installed. Run: sudo apt-get install --no-install-recommends {PACKAGE}\n"
            "Or set AUTOTAG_AMQP__URL to a broker that is running."
        )
    install_package(PACKAGE)
    found = find()
    if found is None:
        raise NotInstalledError(f"The package {PACKAGE} was installed, but {PACKAGED} is not there.")
    return found


def install_package(package: str) -> None:
    """Install a package of this machine's distribution, as root. Raises NotInstalledError with apt-get's output."""
    if not shutil.which("apt-get"):
        raise NotInstalledError(f"This machine has no apt-get to install {package} with.")
    print(f"broker: installing the package {package} (once)", file=sys.stderr, flush=True)
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    output = ""
    with services_stay_stopped():
        # A package list that cannot be fetched is no failure yet: the lists on the machine may be recent enough.
        for command in ([*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", package]):
            done = subprocess.run(
                command, check=False, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            output += done.stdout + done.stderr
    if done.returncode != 0:
        raise NotInstalledError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{output[-2000:]}")
