"""Takes the pictures out of Qt's resource files, in which GCompris keeps them uncompressed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_WEBP = re.compile(rb"RIFF(....)WEBP", re.DOTALL)
_JPEG = re.compile(rb"\xff\xd8\xff[\xe0\xe1]")
_LEAST_BYTES = 8000


def pictures(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The suffix and the bytes of each WebP and JPEG; a resource is preceded by its length, four bytes."""
    for found in _WEBP.finditer(data):
        length = int.from_bytes(found[1], "little") + 8
        if length > _LEAST_BYTES:
            yield "webp", data[found.start() : found.start() + length]
    for found in _JPEG.finditer(data):
        length = int.from_bytes(data[found.start() - 4 : found.start()], "big")
        if _LEAST_BYTES < length <= len(data) - found.start():
            yield "jpg", data[found.start() : found.start() + length]


def unpack(resources: Path, folder: Path, activities: tuple[str, ...]) -> None:
    """Write the pictures of some of GCompris's activities into a folder, named for the activity and counted."""
    folder.mkdir(parents=True, exist_ok=True)
    for activity in activities:
        for number, (suffix, data) in enumerate(pictures((resources / f"{activity}.rcc").read_bytes())):
            (folder / f"{activity}_{number:03}.{suffix}").write_bytes(data)
