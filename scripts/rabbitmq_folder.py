"""RabbitMQ of another Debian release than this machine's, in a folder of its own, which is kept between runs.

The folder holds a minimal Debian with the package rabbitmq-server. Commands run inside it by chroot, each in a mount
namespace of its own: what is mounted for one is seen by nobody else, and is gone when its last process has ended.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from guardian import PR_SET_PDEATHSIG, prctl
from platformdirs import user_cache_path

BUILD_TIMEOUT_S = 900.0
# /proc and /dev as outside; the directory for temporary files at the same path as outside, since the nodes live in it.
INSIDE = """\
root=$1; temporary=$2; shift 2
for directory in /proc /dev "$temporary"; do
    mkdir -p "$root$directory" && mount --bind "$directory" "$root$directory" || exit 125
done
exec chroot "$root" "$@"
"""


class BuildError(Exception):
    """The folder could not be made; the message says why."""


def cache() -> Path:
    """Where folders are kept: beside AUTOTAG_CACHE_DIR, else in the user's cache directory.

    Not among the models: whatever copies or measures those has no use for an operating system.
    """
    models = os.environ.get("AUTOTAG_CACHE_DIR")
    return Path(f"{models.rstrip('/')}-rabbitmq" if models else user_cache_path("autotag-rabbitmq")).absolute()


def inside(root: Path) -> list[str]:
    """The beginning of a command line that runs the rest inside the folder. The process id stays the same: all exec."""
    return ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(root), tempfile.gettempdir()]


def ensure(release: str, package: str) -> Path:
    """The folder with this release's package, made if it is not there. Two calls at once make it once.

    Raises BuildError, and PermissionError if this user is not root.
    """
    directory = cache()
    root = directory / f"debian-{release}-{package}"
    if root.is_dir():
        return root
    if os.geteuid() != 0:
        raise PermissionError(f"Making {root} needs root.")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.is_dir():  # made while this process waited
            return root
        for remains in directory.glob(f"{root.name}.unfinished-*"):  # of a run that was killed
            shutil.rmtree(remains, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{root.name}.unfinished-", dir=directory))
        try:
            debootstrap(release, package, unfinished)
            remove_devices(unfinished)
            unfinished.chmod(0o755)
            unfinished.rename(root)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return root


def debootstrap(release: str, package: str, target: Path) -> None:
    """Install a minimal Debian with one more package into `target`. Raises BuildError with the end of the output.

    It runs in namespaces of its own for mounts and processes: no mount and no process is left, even if it is killed.
    """
    print(
        f"broker: making a folder with {package} of Debian {release} (once; a minute or two)",
        file=sys.stderr,
        flush=True,
    )
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    argv += ["debootstrap", "--variant=minbase", f"--include={package}", release, str(target), *mirror()]
    starter = os.getpid()

    def die_with_the_starter() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != starter:
            os._exit(125)

    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            argv,
            check=False,
            env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"} | proxy(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=BUILD_TIMEOUT_S,
            preexec_fn=die_with_the_starter,
        )
        output.seek(0)
        text = output.read()
    if done.returncode != 0:
        raise BuildError(f"`{' '.join(argv)}` failed with status {done.returncode}:\n{text[-2000:]}")


def remove_devices(root: Path) -> None:
    """Leave no device file in the folder: a program that copies it would read /dev/full or /dev/zero for ever.

    Nothing lacks them, since the /dev of outside is mounted there.
    """
    for each in (root / "dev").rglob("*"):
        if each.is_char_device() or each.is_block_device():
            each.unlink()


def mirror() -> list[str]:
    """The Debian mirror that apt uses on this machine, which has every release; empty where apt uses none."""
    form = "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)"
    for line in output_of("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines():
        origin, codename, component, uri = line.split("|", 3)
        if origin == "Debian" and component == "main" and "-" not in codename:  # no …-security, no …-updates
            return [uri.rstrip("/")]
    return []


def proxy() -> dict[str, str]:
    """The proxy that apt is configured with, as debootstrap takes it: from the environment."""
    address = output_of("apt-config", "dump", "--format", "%v", "Acquire::http::Proxy").strip()
    return {"http_proxy": address} if address else {}


def output_of(*argv: str) -> str:
    """What a command prints; nothing where it is not there or fails."""
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
