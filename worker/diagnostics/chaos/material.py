"""The events of a chaos run: photographs, and among them a share of everything that can be wrong with an upload."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.errors import Misconfigured
from worker.messages import EVENT_TYPE

BAD_SHARE = 0.05

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Due(StrEnum):
    """How an event is to end."""

    LOOKED_AT = "looked_at"
    """With a result, `tagged` or `no_tags`."""
    FAILED = "failed"
    """With a `failed` result and a dead letter."""
    SET_ASIDE = "set_aside"
    """With a dead letter; nobody can be told, since there is no asset id to read."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An event to publish. Its id is the AMQP message id too."""

    event_id: str
    body: bytes
    due: Due


def photographs_in(directory: Path) -> list[Path]:
    """The image files of a directory. Raises Misconfigured when there are none."""
    found = sorted(file for file in directory.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise Misconfigured(f"there are no JPEG, PNG or WebP files in {directory}; name a directory of photographs")
    return found


def plan(seed: int, events: int, photographs: Sequence[Path], folder: Path) -> list[Planned]:
    """The events of a run, the same for the same seed. Bad files are written into `folder`."""
    randomly = random.Random(seed + 1)  # noqa: S311 - to be repeatable is what is wanted of it
    bad = _bad_files(photographs[0], folder)
    planned = []
    for number in range(events):
        event_id = str(uuid.UUID(int=randomly.getrandbits(128), version=4))
        if randomly.random() >= BAD_SHARE:
            path, due = randomly.choice(photographs), Due.LOOKED_AT
        elif (chosen := randomly.choice((*bad, None))) is None:
            planned.append(Planned(event_id, b'{"specversion": "1.0", "id": "cut o', Due.SET_ASIDE))
            continue
        else:
            path, due = chosen, Due.FAILED
        planned.append(Planned(event_id, _event(event_id, f"asset-{number}", path), due))
    return planned


def _bad_files(photograph: Path, folder: Path) -> list[Path]:
    whole = photograph.read_bytes()
    contents = {
        "truncated.jpg": whole[: len(whole) // 2],
        "text.jpg": b"This is no picture, whatever its name says.\n",
        "empty.jpg": b"",
        "only-a-header.png": b"\x89PNG\r\n\x1a\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [*(folder / name for name in contents), folder / "missing.jpg"]


def _event(event_id: str, asset_id: str, path: Path) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "autotag chaos",
            "type": EVENT_TYPE,
            "datacontenttype": "application/json",
            "data": {"asset_id": asset_id, "content": {"path": str(path)}},
        }
    ).encode()
