"""The image files that a command line names: files as they are, folders by the images below them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from worker.images.format import HEAD_BYTES, sniff


@dataclass(slots=True)
class ImageFiles:
    """Finds images below folders, in the order of their names' bytes; every further run finds them in the same order.

    A file is one by its first bytes, whatever its name is. Names that begin with a dot are left out, and links to
    folders are not followed. `report` gets a line about each folder and file that cannot be read.
    """

    report: Callable[[str], None]
    others: int = 0
    """How many files below folders were left out, as they are no images."""
    unreadable: int = field(default=0)

    def named(self, paths: Iterable[Path]) -> Iterator[Path]:
        """The files among `paths` as they are, and the images below the folders among them."""
        for path in paths:
            if os.path.isdir(path):  # False also for a name that is too long
                yield from self.below(path)
            else:
                yield path

    def below(self, folder: Path) -> Iterator[Path]:
        """The images below a folder."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self._cannot_read(folder, error)
            return
        for entry in found:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self.below(path)
                elif entry.is_file():
                    if _is_image(path):
                        yield path
                    else:
                        self.others += 1
            except OSError as error:
                self._cannot_read(path, error)

    def _cannot_read(self, path: Path, error: OSError) -> None:
        self.unreadable += 1
        self.report(f"{path}: cannot be read: {error.strerror}")


def _is_image(path: Path) -> bool:
    with path.open("rb") as file:
        kind = sniff(file.read(HEAD_BYTES))
    return kind is not None and kind.startswith("image/")
