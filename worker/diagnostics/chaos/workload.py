"""The events of a chaos run: mostly good photographs, and a share of events with every defect an upload can have."""

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


class ExpectedEnd(StrEnum):
    """How an event has to end."""

    ANSWERED = "answered"
    """With a result, `tagged` or `no_tags`."""
    FAILED = "failed"
    """With a `failed` result and a dead letter."""
    DEAD_LETTERED = "dead_lettered"
    """With a dead letter only: no asset id can be read, so there is no result to publish."""


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """An event to publish. `event_id` is the AMQP message id too."""

    event_id: str
    body: bytes
    expected: ExpectedEnd


def photographs_in(directory: Path) -> list[Path]:
    """The image files of a directory. Raises Misconfigured when there are none."""
    found = sorted(file for file in directory.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise Misconfigured(f"there are no JPEG, PNG or WebP files in {directory}; name a directory of photographs")
    return found


def plan(seed: int, events: int, photographs: Sequence[Path], folder: Path) -> list[PlannedEvent]:
    """The events of a run, the same for the same seed. Bad files are written into `folder`."""
    randomly = random.Random(seed + 1)  # noqa: S311 - it has to be repeatable
    bad = _bad_files(photographs[0], folder)
    planned = []
    for number in range(events):
        event_id = str(uuid.UUID(int=randomly.getrandbits(128), version=4))
        if randomly.random() >= BAD_SHARE:
            path, expected = randomly.choice(photographs), ExpectedEnd.ANSWERED
        elif (chosen := randomly.choice((*bad, None))) is None:
            truncated = b'{"specversion": "1.0", "id": "cut o'
            planned.append(PlannedEvent(event_id, truncated, ExpectedEnd.DEAD_LETTERED))
            continue
        else:
            path, expected = chosen, ExpectedEnd.FAILED
        planned.append(PlannedEvent(event_id, _event(event_id, f"asset-{number}", path), expected))
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
