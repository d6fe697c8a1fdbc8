"""The model child: arrays of one shape in, labels with confidences out. `python -m worker.children.model`.

It never sees an uploaded byte, only pixels that a decoder made, so that what kills it is not an image's fault. It
reads them with pread and never maps them: a file that shrinks while it is mapped kills whoever looks at it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.children import loop
from worker.errors import Misconfigured
from worker.frames import Packet
from worker.models.manifest import ModelPackage
from worker.models.runtimes import Runtime, open_runtime

MOST_LABELS_AN_IMAGE = 1000

Pixels = npt.NDArray[np.uint8]
Item = Mapping[str, object]


class Model:
    """Answers `score`: a batch of descriptors, each holding one image's pixels."""

    def __init__(self, runtime: Runtime, size: int) -> None:
        self._runtime = runtime
        self._size = size

    def handle(self, packet: Packet, fds: Sequence[int]) -> tuple[str, Mapping[str, object]]:
        """Score the batch. An item with too few pixels is refused by itself."""
        batch = np.empty((len(fds), self._size, self._size, 3), np.uint8)
        whole = [_read_into(pixels, fd) for pixels, fd in zip(batch, fds, strict=True)]
        scored = iter(self._score(batch if all(whole) else batch[whole], packet["alone"]))
        items: list[Item] = []
        for there, floor in zip(whole, packet["floors"], strict=True):
            if there:
                items.append(_item(next(scored), floor))
            else:
                message = f"its pixels are not {self._size} x {self._size} x 3 bytes"
                items.append({"reason": "pixels_wrong_length", "message": message})
        return "done", {"items": items}

    def _score(self, batch: Pixels, alone: bool) -> list[npt.NDArray[np.float32] | Misconfigured]:
        """One row of confidences for each image; when the batch as a whole fails, each image by itself."""
        if not len(batch):
            return []
        try:
            return list(self._runtime.score(batch, alone=alone))
        except Misconfigured as error:
            if len(batch) == 1:
                return [error]
        return [row for number in range(len(batch)) for row in self._score(batch[number : number + 1], alone)]


def _read_into(pixels: Pixels, fd: int) -> bool:
    """Fill the array with a file that has just its length."""
    return os.fstat(fd).st_size == pixels.nbytes and os.preadv(fd, [pixels.data], 0) == pixels.nbytes


def _item(row: npt.NDArray[np.float32] | Misconfigured, floor: float) -> Item:
    """The labels at or above `floor`, best first; labels of equal confidence in the order of their numbers."""
    if isinstance(row, Misconfigured):
        return {"reason": row.reason, "message": str(row)}
    # Compared as the parent will see it, and as people wrote it: 0.1 itself is no float32.
    enough = np.flatnonzero(row >= np.float32(floor))
    kept = enough[np.argsort(-row[enough], kind="stable")][:MOST_LABELS_AN_IMAGE].astype("<u2")
    return {"labels": kept.tobytes(), "confidences": row[kept].astype("<f4").tobytes()}


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Handler, Mapping[str, object]]:
    """Load and check the model, and run it once at both ends of the batch sizes, so that the first image is fast."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells of its instruction sets at every start
    package = ModelPackage.load(Path(settings["package"]))
    package.verify()
    runtime = open_runtime(package, settings["threads"] or _threads())
    size = package.manifest.input.size
    for count in (settings["batch_size"], 1):
        runtime.score(np.zeros((count, size, size, 3), np.uint8))
    hello = {
        "identity": package.identity,
        "labels": len(package.labels),
        "size": size,
        "runtime": str(package.manifest.runtime),
    }
    return Model(runtime, size).handle, hello


def _threads() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    loop.serve(prepare)
