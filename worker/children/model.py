"""The model child: arrays of fixed shapes in, labels with confidences out. `python -m worker.children.model`.

It never sees uploaded bytes, only pixels that a decoder made, so that its death is not the fault of an image. It reads
them with pread and never maps them: a process that reads a mapped file after it has shrunk is killed (SIGBUS).
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

from worker.children import loop, sandbox
from worker.errors import Misconfigured
from worker.models.manifest import ModelPackage
from worker.models.runtimes import import_runtime
from worker.models.runtimes.runtime import ImageScores
from worker.models.runtimes.together import Together
from worker.models.selection import LocalModels
from worker.supervision import packets
from worker.supervision.packets import MAXIMUM_LABELS, Packet

_Pixels = npt.NDArray[np.uint8]
_Item = Mapping[str, object]


class Model:
    """Handles `score` jobs: a batch of descriptors, each of a file with the squares of one image, S x S x 3 bytes."""

    def __init__(self, models: Together) -> None:
        self._models = models
        self._bytes = sum(size * size * 3 for size in models.sizes)

    def handle(self, packet: Packet, fds: Sequence[int], reply: loop.SendReply) -> None:
        """Submit the batch to the runtime; it is answered when all images are scored.

        An image with the wrong number of pixels is refused; the others are scored.
        """
        batches = [np.empty((len(fds), size, size, 3), np.uint8) for size in self._models.sizes]
        whole = [_read_into([batch[at] for batch in batches], self._bytes, fd) for at, fd in enumerate(fds)]
        squares = batches if all(whole) else [batch[whole] for batch in batches]
        scored = self._models.submit(squares, alone=packet["alone"])
        answer = _Answer(whole, scored, packet["floors"], self._bytes, reply)
        for future in scored:
            future.add_done_callback(answer.count_down)
        answer.count_down()


class _Answer:
    """The answer to one batch, sent when every image has been scored."""

    def __init__(
        self,
        whole: Sequence[bool],
        scored: Sequence[Future[ImageScores]],
        floors: Sequence[float],
        wanted_bytes: int,
        reply: loop.SendReply,
    ) -> None:
        self._whole = whole
        self._scored = scored
        self._floors = floors
        self._wanted_bytes = wanted_bytes
        self._reply = reply
        self._awaited = len(scored) + 1  # one more for `handle`, which counts down when all callbacks are added
        self._lock = threading.Lock()

    def count_down(self, _future: object = None) -> None:
        """One image has been scored; send the answer after the last one. Called from any thread."""
        with self._lock:
            self._awaited -= 1
            if self._awaited:
                return
        try:
            self._reply(packets.pack("done", {"items": self._items()}))
        except BaseException:  # noqa: BLE001 - any error must end this process
            # An exception in a thread would only be printed, and the parent would wait until the deadline.
            traceback.print_exc()
            os._exit(1)

    def _items(self) -> list[_Item]:
        scored = iter(self._scored)
        refused = {
            "reason": "pixels_wrong_length",
            "message": f"its pixels are not {self._wanted_bytes} bytes",
        }
        pairs = zip(self._whole, self._floors, strict=True)
        return [_item(next(scored), floor) if whole else refused for whole, floor in pairs]


def _read_into(squares: Sequence[_Pixels], length: int, fd: int) -> bool:
    """Fill the arrays from a file of exactly their size together; False when the size differs."""
    return os.fstat(fd).st_size == length and os.preadv(fd, [square.data for square in squares], 0) == length


def _item(scored: Future[ImageScores], floor: float) -> _Item:
    """The labels at or above `floor`, best first; labels of equal confidence in the order of their indices."""
    try:
        row = scored.result().scores
    except Misconfigured as error:
        return {"reason": error.reason, "message": str(error)}
    # The floor is rounded to float32 as the confidences are: as a double it could exclude a confidence equal to it.
    enough = np.flatnonzero(row >= np.float32(floor))
    kept = enough[np.argsort(-row[enough], kind="stable")][:MAXIMUM_LABELS].astype("<u2")
    return {"labels": kept.tobytes(), "confidences": row[kept].astype("<f4").tobytes()}


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Serve, Mapping[str, object]]:
    """Enter the sandbox, verify and load the models, and run them once with a full batch and a single image.

    A model is a program, which may run as soon as it is loaded. Raises `Misconfigured`.
    """
    os.nice(settings["nice"])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow logs its instruction sets at every start
    models = LocalModels(tuple(ModelPackage.load(Path(each).resolve()) for each in settings["packages"]))
    runtimes = dict.fromkeys(package.manifest.runtime for package in models.packages)
    for runtime in runtimes:
        import_runtime(runtime)
    level = enter_sandbox([package.directory for package in models.packages], settings["sandbox"])
    models.verify()
    together = Together(models.packages, settings["threads"])
    for count in (settings["batch_size"], 1):
        together.score([np.zeros((count, size, size, 3), np.uint8) for size in together.sizes])
    hello = {
        "identity": models.identity,
        "labels": together.labels,
        "sizes": together.sizes,
        "runtime": "+".join(runtimes),
        "sandbox": level.value,
    }
    return loop.serve_jobs(Model(together).handle), hello


def enter_sandbox(packages: Sequence[Path], wanted: str) -> sandbox.Level:
    """Enter it unless `wanted` is `off`; returns the level reached. Raises `Misconfigured` if `strict` is too much."""
    if wanted == "off":
        return sandbox.Level.NONE
    level = sandbox.enter_for_model(packages)
    if wanted == "strict" and level != sandbox.STRICTEST:
        raise Misconfigured(
            f"the sandbox reaches only level {level.value!r} here, and tensorflow.sandbox is 'strict'; "
            "set it to 'best' or use a kernel that offers more",
            reason="sandbox_too_weak",
        )
    return level


if __name__ == "__main__":
    loop.serve(prepare)
