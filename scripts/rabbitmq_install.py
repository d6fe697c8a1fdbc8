"""Finds RabbitMQ on this machine; on Debian and Ubuntu, as root, installs it if it is missing.

The packaged system service is not touched: if it is not running, it is not started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "rabbitmq-server"
# Debian's rabbitmq-server on the PATH is a wrapper that becomes the user `rabbitmq` and uses the system's directories.
# The script that it calls runs as the calling user.
PACKAGED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
POLICY = Path("/usr/sbin/policy-rc.d")


class NotInstalledError(Exception):
    """RabbitMQ is missing and could not be installed; the message says what to run."""


def find() -> Path | None:
    """The server's start script, or None when RabbitMQ is not installed."""
    on_path = shutil.which("rabbitmq-server")
    candidates = [PACKAGED, *([Path(on_path)] if on_path else [])]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


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
    print(f"broker: installing the package {PACKAGE} (once)", file=sys.stderr, flush=True)
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    output = ""
    with services_stay_stopped():
        # A package list that cannot be fetched is no failure yet: the lists on the machine may be recent enough.
        for command in ([*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", PACKAGE]):
            done = subprocess.run(
                command, check=False, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            output += done.stdout + done.stderr
    if done.returncode != 0:
        raise NotInstalledError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{output[-2000:]}")
    found = find()
    if found is None:
        raise NotInstalledError(f"The package {PACKAGE} was installed, but {PACKAGED} is not there.")
    return found


def tool(name: str) -> str:
    """Path of one of Erlang's programs, which some packages do not put on the PATH. Raises NotInstalledError."""
    found = shutil.which(name)
    if found:
        return found
    for root in ("/usr/lib/erlang", "/usr/lib64/erlang", "/usr/local/lib/erlang"):
        for path in sorted(Path(root).glob(f"erts-*/bin/{name}")) + sorted(
            Path(root).glob(f"lib/erl_interface-*/bin/{name}")
        ):
            return str(path)
    raise NotInstalledError(f"RabbitMQ is installed, but Erlang's program {name} was not found.")
