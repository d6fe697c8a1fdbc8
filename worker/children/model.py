"""The model child: arrays of one shape in, labels with confidences out. `python -m worker.children.model`.

It never sees an uploaded byte, only pixels that a decoder made, so that what kills it is not an image's fault. It
reads them with pread and never maps them: a file that shrinks while it is mapped kills whoever looks at it.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.children import loop
from worker.errors import Misconfigured
from worker.models.manifest import ModelPackage
from worker.models.runtimes import Runtime, open_runtime
from worker.models.runtimes.runtime import Scores
from worker.supervision.packets import Packet

MOST_LABELS_AN_IMAGE = 1000

Pixels = npt.NDArray[np.uint8]
Item = Mapping[str, object]


class Model:
    """Answers `score`: a batch of descriptors, each holding one image's pixels."""

    def __init__(self, runtime: Runtime, size: int) -> None:
        self._runtime = runtime
        self._size = size

    def handle(self, packet: Packet, fds: Sequence[int], reply: loop.Reply) -> None:
        """Have the batch scored, and answer when all of it is. An item with too few pixels is refused by itself."""
        batch = np.empty((len(fds), self._size, self._size, 3), np.uint8)
        whole = [_read_into(pixels, fd) for pixels, fd in zip(batch, fds, strict=True)]
        scored = self._runtime.submit(batch if all(whole) else batch[whole], alone=packet["alone"])
        answer = _Answer(whole, scored, packet["floors"], self._size, reply)
        for future in scored:
            future.add_done_callback(answer.one_more)
        answer.one_more()


class _Answer:
    """Put together when every image of a batch has been scored."""

    def __init__(
        self,
        whole: Sequence[bool],
        scored: Sequence[Future[Scores]],
        floors: Sequence[float],
        size: int,
        reply: loop.Reply,
    ) -> None:
        self._whole = whole
        self._scored = scored
        self._floors = floors
        self._size = size
        self._reply = reply
        self._awaited = len(scored) + 1  # the last one is for having asked them all
        self._lock = threading.Lock()

    def one_more(self, _future: object = None) -> None:
        """Another one is done; from any thread."""
        with self._lock:
            self._awaited -= 1
            if self._awaited:
                return
        try:
            self._reply("done", {"items": self._items()})
        except BaseException:  # noqa: BLE001 - whatever it is, this process is to end of it
            # What goes wrong in a thread would only be printed, and the answer awaited until the deadline.
            traceback.print_exc()
            os._exit(1)

    def _items(self) -> list[Item]:
        scored = iter(self._scored)
        refused = {
            "reason": "pixels_wrong_length",
            "message": f"its pixels are not {self._size} x {self._size} x 3 bytes",
        }
        pairs = zip(self._whole, self._floors, strict=True)
        return [_item(next(scored), floor) if there else refused for there, floor in pairs]


def _read_into(pixels: Pixels, fd: int) -> bool:
    """Fill the array with a file that has just its length."""
    return os.fstat(fd).st_size == pixels.nbytes and os.preadv(fd, [pixels.data], 0) == pixels.nbytes


def _item(scored: Future[Scores], floor: float) -> Item:
    """The labels at or above `floor`, best first; labels of equal confidence in the order of their numbers."""
    try:
        row = scored.result()
    except Misconfigured as error:
        return {"reason": error.reason, "message": str(error)}
    # Compared as the parent will see it, and as people wrote it: 0.1 itself is no float32.
    enough = np.flatnonzero(row >= np.float32(floor))
    kept = enough[np.argsort(-row[enough], kind="stable")][:MOST_LABELS_AN_IMAGE].astype("<u2")
    return {"labels": kept.tobytes(), "confidences": row[kept].astype("<f4").tobytes()}


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Handler, Mapping[str, object]]:
    """Load and check the model, and run it in both ways, so that the first image is fast."""
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
