"""The boxes of ISO/IEC 14496-12, of which HEIC, AVIF, CR3 and MP4 files consist, read within bounds."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping

_MAXIMUM_BOXES = 1000
_UUID_BYTES = 16


def walk(
    data: bytes, parents: Collection[bytes] = (), uuids: Mapping[bytes, int] | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of every box, and of those inside `parents`. No more than a thousand.

    `uuids`: boxes called `uuid` that hold others, by the number they begin with, and how many bytes come before those.
    A box may end beyond the file; one inside another does not end beyond that.
    """
    places = [(0, len(data))]
    for _ in range(_MAXIMUM_BOXES):
        while places and places[-1][0] + 8 > places[-1][1]:
            places.pop()
        if not places:
            return
        position, limit = places.pop()
        size, name = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if size == 1 and start + 8 <= limit:
            size, start = struct.unpack_from(">Q", data, start)[0], start + 8
        end = position + size if size else limit
        if end < start:
            return
        inner_end = min(end, limit)
        places.append((inner_end, limit))
        yield name, start, end if limit == len(data) else inner_end
        if name in parents:
            places.append((start, inner_end))
        elif name == b"uuid" and (skipped := (uuids or {}).get(data[start : start + _UUID_BYTES])) is not None:
            places.append((start + skipped, inner_end))


def is_cut(data: bytes) -> bool:
    """Whether a box ends beyond the end of the file."""
    return any(end > len(data) for _, _, end in walk(data))
