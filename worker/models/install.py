"""Installs a downloadable model: downloads the archive, extracts exactly the pinned files, writes the manifest.

Inception5h is the model of Liferay DXP's TensorFlow provider. Its input is the image stretched to 224 x 224, less 117;
it has 1,008 outputs for 1,001 labels, the first of which (`dummy`) has no meaning.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

from worker.errors import Misconfigured
from worker.images.requests import Fit, Interpolation
from worker.models.catalogue import DOWNLOADS, Download
from worker.models.download import fetch, without_secrets
from worker.models.manifest import (
    Manifest,
    ModelInput,
    ModelMissing,
    ModelOutput,
    ModelPackage,
    PinnedFile,
    file_sha256,
    write_manifest,
)
from worker.models.staging import (
    ModelProgress,
    ProgressCallback,
    disk_error,
    ignore_progress,
    intact_package,
    package_lock,
    staged_directory,
)

MAX_MEMBER_BYTES = 512 << 20
_CHUNK_BYTES = 1 << 20


class _WrongContentsError(Misconfigured):
    """The download does not have the pinned contents."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="download_refused")


def refuse_program(name: str, url: str) -> None:
    """Refuse a model that is a program and comes from elsewhere than the catalogue says. Raises `Misconfigured`."""
    download = DOWNLOADS.get(name)
    if download is not None and download.runtime.runs_programs and url != download.url:
        raise Misconfigured(
            f"{name} is a {download.runtime}, a program that TensorFlow runs, and {without_secrets(url)} is not where "
            "the catalogue has it from: if you trust what is offered there, add --allow-program",
            reason="download_refused",
        )


def install(
    name: str,
    cache_dir: Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ModelPackage:
    """Install a downloadable model of the catalogue, unless it is already installed. Blocks.

    `url` replaces the catalogue's URL, for a mirror; `sha256` pins the archive as well. The files in it are always
    pinned. An exception from `on_progress` ends the installation and is raised. Raises `Misconfigured` with what to do.
    """
    if name not in DOWNLOADS:
        raise ModelMissing(f"there is no model {name!r} to install: give one of {', '.join(DOWNLOADS)}")
    return install_download(DOWNLOADS[name], cache_dir, url=url, sha256=sha256, on_progress=on_progress)


def install_download(
    download: Download,
    cache_dir: Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ModelPackage:
    """The same as `install`, for a download that need not be in the catalogue."""
    directory = download.directory(cache_dir)
    if package := intact_package(directory):
        return package
    archive_url = url or download.url
    part = directory.with_name(f".{directory.name}-{hashlib.sha256(archive_url.encode()).hexdigest()[:12]}.part")
    with package_lock(directory, on_progress):
        if package := intact_package(directory):
            return package
        try:
            resumed = part.exists()
            try:
                _install(download, directory, fetch(archive_url, part, on_progress), sha256, on_progress)
            except _WrongContentsError:
                part.unlink(missing_ok=True)
                if not resumed:
                    raise
                # The resumed part may be from another version of the file: download it once more from the start.
                _install(download, directory, fetch(archive_url, part, on_progress), sha256, on_progress)
            part.unlink()
        except OSError as error:
            raise disk_error(directory.parent, error) from error
    return ModelPackage.load(directory)


def _install(
    download: Download, directory: Path, archive: Path, sha256: str | None, on_progress: ProgressCallback
) -> None:
    on_progress(ModelProgress("checking what was downloaded"))
    if sha256 and (found := file_sha256(archive)) != sha256:
        raise _WrongContentsError(f"the archive of {download.name} has SHA-256 {found}, expected {sha256}")
    pinned = {download.graph_file: download.graph_digest, download.labels_file: download.labels_digest}
    with staged_directory(directory, needed_bytes=archive.stat().st_size * 2) as new:
        try:
            with zipfile.ZipFile(archive) as opened:
                for member, digest in pinned.items():
                    _extract(opened, member, digest, new / member)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise _WrongContentsError(
                f"what was downloaded for {download.name} is not a readable zip: {error}"
            ) from error
        write_manifest(new, _inception_manifest(download, new))


def _extract(archive: zipfile.ZipFile, member: str, pinned: str, target: Path) -> None:
    """Extract one member to `target`, ignoring its path in the archive. Raises if its digest is not the pinned one."""
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise _WrongContentsError(f"the archive holds no {member}") from None
    if info.file_size > MAX_MEMBER_BYTES:
        raise _WrongContentsError(f"{member} in the archive is larger than {MAX_MEMBER_BYTES >> 20} MiB")
    algorithm, _, expected = pinned.partition(":")
    digest = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1(usedforsecurity=False)
    if algorithm == "git-blob-sha1":
        digest.update(f"blob {info.file_size}\0".encode())
    with archive.open(info) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):  # never more than file_size: zipfile stops there
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != expected:
        raise _WrongContentsError(f"{member} has {algorithm} {digest.hexdigest()}, expected {expected}")


def _inception_manifest(download: Download, directory: Path) -> Manifest:
    return Manifest(
        name=download.name,
        build=None,
        runtime=download.runtime,
        model=PinnedFile(file=download.graph_file, sha256=file_sha256(directory / download.graph_file)),
        labels=PinnedFile(file=download.labels_file, sha256=file_sha256(directory / download.labels_file)),
        input=ModelInput(
            name="input",
            size=224,
            mean=117.0,
            scale=1.0,
            fit=Fit.SQUASH,
            margin=0,
            interpolation=Interpolation.BILINEAR,
        ),
        output=ModelOutput(
            name="output",
            activation="probabilities",
            temperature=1.0,
            label_offset=0,
            ignored_labels=("dummy",),
        ),
        licence=download.licence,
        source=download.source,
    )
