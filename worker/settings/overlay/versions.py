"""The versions of the overlay that are kept: each a file beside it, with who wrote it, when, and what changed.

A version is written before the overlay itself is replaced. The service that finds the overlay damaged, by a disk or by
hand, goes on with the newest one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.settings.overlay.atomic import make_directory, write_whole

KEPT = 20
"""Versions kept, the one in use included."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the overlay. `at`: ISO 8601, UTC; `by`: who, and from where; `what`: a line for each change."""

    number: int
    at: str
    by: str
    what: tuple[str, ...]
    content: str
    restores: int | None = None
    """The version whose content was taken again by an undo."""

    @property
    def fingerprint(self) -> str:
        """See `fingerprint_of`."""
        return fingerprint_of(self.content)

    @property
    def stands_for(self) -> int:
        """The number of the version whose content this is: an undo goes back from there."""
        return self.number if self.restores is None else self.restores


def fingerprint_of(text: str) -> str:
    """Twelve hexadecimal digits that change with the content of the overlay; an overlay that is not there is empty."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def directory_of(overlay: Path) -> Path:
    """Where the versions of an overlay are."""
    return overlay.with_name(f"{overlay.name}.versions")


def read_versions(overlay: Path) -> list[Version]:
    """The versions kept, oldest first; a file that cannot be read, or is none of ours, is left out."""
    return sorted(_read(directory_of(overlay)), key=lambda each: each.number)


def _read(directory: Path) -> Iterator[Version]:
    with suppress(OSError):
        for file in directory.glob("*.json"):
            with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                found = json.loads(file.read_text("utf-8"))
                yield Version(**{**found, "number": int(found["number"]), "what": tuple(map(str, found["what"]))})


def keep(overlay: Path, version: Version, kept: Sequence[Version]) -> None:
    """Write a version. Raises OSError."""
    directory = directory_of(overlay)
    make_directory(directory)
    write_whole(_file(directory, version.number), json.dumps(asdict(version), ensure_ascii=False, indent=1).encode())


def forget_oldest(overlay: Path) -> None:
    """Leave the newest `KEPT`. What cannot be removed stays, and does no harm."""
    for old in read_versions(overlay)[:-KEPT]:
        with suppress(OSError):
            _file(directory_of(overlay), old.number).unlink()


def forget(overlay: Path, version: Version) -> None:
    """Remove a version whose content never came into use."""
    with suppress(OSError):
        _file(directory_of(overlay), version.number).unlink()


def _file(directory: Path, number: int) -> Path:
    return directory / f"{number:06}.json"
