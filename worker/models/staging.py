"""Creates packages on disk atomically: one process at a time, in a temporary directory that is renamed when complete.

A package's directory is therefore either absent or complete. What a killed process leaves behind is removed by the next
process that creates the same package; the lock is released with the process that held it.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from worker.errors import Misconfigured
from worker.models.manifest import ModelPackage

LOCK_TIMEOUT_S = 1800.0

PROGRESS_INTERVAL_S = 0.5
"""The longest time between two calls of a progress callback, with new progress or not: by raising, it can cancel."""


@dataclass(frozen=True, slots=True)
class ModelProgress:
    """The progress of a build or an installation: `done` of `total` (0: unknown), in the step's own unit."""

    step: str
    done: int = 0
    total: int = 0


ProgressCallback = Callable[[ModelProgress], None]
"""Called with the latest progress; an exception that it raises ends the build or installation."""


def ignore_progress(_: ModelProgress) -> None:
    """The callback of callers that show no progress."""


def intact_package(directory: Path) -> ModelPackage | None:
    """The package in `directory`, or None if it is missing or damaged. Hashes every file."""
    try:
        package = ModelPackage.load(directory)
        package.verify()
    except Misconfigured:
        return None
    return package


@contextmanager
def package_lock(directory: Path, on_progress: ProgressCallback) -> Iterator[None]:
    """Hold the lock for creating the package in `directory`; wait for another process that is creating it now.

    Raises `Misconfigured` after `LOCK_TIMEOUT_S`, or if the cache directory cannot be written.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory.with_name(f".{directory.name}.lock"))
        _acquire(lock, directory, on_progress)
    except OSError as error:
        raise disk_error(directory.parent, error) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, directory: Path, on_progress: ProgressCallback) -> None:
    """Acquire the lock; by raising, `on_progress` can end the wait at any time."""
    deadline_s = time.monotonic() + LOCK_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            lock.acquire(timeout=PROGRESS_INTERVAL_S)
        except Timeout:
            on_progress(ModelProgress("waiting for another process that makes the same model"))
        else:
            return
    raise Misconfigured(
        f"another process has been making {directory} for {LOCK_TIMEOUT_S:.0f} s: end it, then try again",
        reason="model_locked",
    )


@contextmanager
def staged_directory(directory: Path, needed_bytes: int) -> Iterator[Path]:
    """A new directory that becomes `directory` when the block succeeds, and is removed when it raises.

    The caller must hold the `package_lock`. Raises `Misconfigured` for a full or unwritable disk.
    """
    prefix = f".{directory.name}.new-"
    try:
        for leftover in directory.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        free_bytes = shutil.disk_usage(directory.parent).free
        if free_bytes < needed_bytes:
            raise disk_full(directory.parent, f"{free_bytes >> 20} MiB are free, about {needed_bytes >> 20} are needed")
        new = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
        try:
            new.chmod(0o755)  # mkdtemp's 0700 would keep a service under another account from reading the model
            yield new
            shutil.rmtree(directory, ignore_errors=True)  # only a damaged package can be in the way
            new.rename(directory)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise disk_error(directory.parent, error) from error


def disk_full(directory: Path, detail: str) -> Misconfigured:
    """The error for a disk without space for a model."""
    return Misconfigured(
        f"no room for a model in {directory}: {detail}. Free some space, or set cache_dir to another disk",
        reason="disk_full",
    )


def disk_error(directory: Path, error: OSError) -> Misconfigured:
    """Translate an `OSError` in the model cache into an error that says what the operator can do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(directory, error.strerror or "the disk is full")
    return Misconfigured(
        f"cannot write the model cache {directory}: {error.strerror or error}. Set cache_dir to a directory that the "
        "service may write to",
        reason="model_cache",
    )
