"""Runs a `.tflite` file with LiteRT, without TensorFlow: 20 ms to load, 110 MB resident (built-in models, two threads).

Images are spread over interpreters of one thread each, which wait for nobody. One image by itself, when nobody else is
at work either, gets an interpreter with all threads: they share every layer, and wait for each other at its end, which
costs much as soon as one of them has lost its core to somebody else.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from worker.errors import Misconfigured
from worker.models.manifest import ModelInput, ModelPackage
from worker.models.runtimes.confidences import Confidences
from worker.models.runtimes.runtime import Pictures, Runtime, Scores

Raw = npt.NDArray[np.float32]

_OWN_TASKS = Path("/proc/self/task")


class LiteRT(Runtime):
    """A `.tflite` model."""

    def __init__(self, package: ModelPackage, threads: int = 1) -> None:
        self._confidences = Confidences(package)
        self._pool = ThreadPoolExecutor(threads, "inference")
        # Made by the pool, all at once: each takes its time to lay out its weights.
        self._narrow = list(self._pool.map(lambda _: _Picture(package, 1), range(threads)))
        self._wide = _Wide(package, threads) if threads > 1 else None
        self._wide_in_use = threading.Lock()

    def submit(self, pixels: Pictures, *, alone: bool) -> list[Future[Scores]]:
        """See `Runtime.submit`."""
        if alone and len(pixels) == 1 and self._wide is not None:
            return [self._pool.submit(self._run_wide, self._wide, pixels[0])]
        return [self._pool.submit(self._run_narrow, each) for each in pixels]

    def _run_wide(self, wide: _Wide, pixels: Pictures) -> Scores:
        with self._wide_in_use:
            scores: Scores = self._confidences.of(wide.run(pixels))[0]
            return scores

    def _run_narrow(self, pixels: Pictures) -> Scores:
        interpreter = self._narrow.pop()  # there are as many as threads; the last one used is the warmest
        try:
            scores: Scores = self._confidences.of(interpreter.run(pixels))[0]
            return scores
        finally:
            self._narrow.append(interpreter)


class _Picture:
    """An interpreter for one picture at a time."""

    def __init__(self, package: ModelPackage, threads: int) -> None:
        self._given = package.manifest.input
        try:
            self._interpreter = Interpreter(model_path=str(package.model_path), num_threads=threads)
            self._input = _one(package, self._interpreter.get_input_details(), "input", self._given.name)
            self._output = _one(package, self._interpreter.get_output_details(), "output", package.manifest.output.name)
            _check_input(package, self._input)
            self._shape = (1, self._given.size, self._given.size, 3)
            self._interpreter.resize_tensor_input(self._input["index"], self._shape)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise Misconfigured(f"LiteRT cannot load {package.model_path}: {error}", reason="model_refused") from error
        self._gain, self._shift = _affine(self._given, self._input)

    def run(self, pixels: Pictures) -> Raw:
        """The model's raw output `[1, outputs]` for one picture `[S, S, 3]`."""
        self._interpreter.set_tensor(self._input["index"], self._fed(pixels).reshape(self._shape))
        self._interpreter.invoke()
        raw = self._interpreter.get_tensor(self._output["index"])
        scale, zero = self._output["quantization"]
        if scale:
            raw = (raw.astype(np.float32) - zero) * scale
        return np.asarray(raw, np.float32).reshape(1, -1)

    def _fed(self, pixels: Pictures) -> npt.NDArray[Any]:
        """Bring pixels to the input's own numbers. For the built-in models they are those already."""
        if self._given.channels == "bgr":
            pixels = pixels[..., ::-1]
        dtype = self._input["dtype"]
        if dtype is np.uint8 and isclose(self._gain, 1.0, abs_tol=1e-4) and isclose(self._shift, 0.0, abs_tol=1e-2):
            return np.ascontiguousarray(pixels)
        values = pixels.astype(np.float32) * np.float32(self._gain) + np.float32(self._shift)
        if dtype is np.float32:
            return values
        limits = np.iinfo(dtype)
        quantised: npt.NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
        return quantised


class _Wide:
    """An interpreter whose threads, the calling one included, have a core each, if there are just as many cores.

    Schedulers have been seen to wake the second thread on the first one's core, where it helps nobody, for as long as
    one image takes: that doubles the time.
    """

    def __init__(self, package: ModelPackage, threads: int) -> None:
        self._cores = os.sched_getaffinity(0)
        before = set(os.listdir(_OWN_TASKS))
        self._picture = _Picture(package, threads)
        helpers = [int(task) for task in set(os.listdir(_OWN_TASKS)) - before]
        self._bound = len(self._cores) == threads == len(helpers) + 1
        if self._bound:
            self._first, *others = sorted(self._cores)
            try:
                for helper, core in zip(helpers, others, strict=True):
                    os.sched_setaffinity(helper, {core})
            except OSError:  # not allowed here, or the cores have just changed
                self._bound = False

    def run(self, pixels: Pictures) -> Raw:
        """See `_Picture.run`."""
        if not self._bound:
            return self._picture.run(pixels)
        try:
            os.sched_setaffinity(0, {self._first})
            try:
                return self._picture.run(pixels)
            finally:
                os.sched_setaffinity(0, self._cores)
        except OSError:
            self._bound = False
            return self._picture.run(pixels)


def _affine(given: ModelInput, tensor: dict[str, Any]) -> tuple[float, float]:
    """`gain * pixel + shift` is `(pixel - mean) / scale`, then the quantisation of the input where it has one."""
    gain, shift = 1.0 / given.scale, -given.mean / given.scale
    scale, zero = tensor["quantization"]
    if scale:
        gain, shift = gain / scale, shift / scale + zero
    return gain, shift


def _check_input(package: ModelPackage, tensor: dict[str, Any]) -> None:
    given, found = package.manifest.input, [int(side) for side in tensor["shape"]]
    if found[1:] != [given.size, given.size, 3] or np.dtype(tensor["dtype"]).name != given.dtype:
        raise Misconfigured(
            f"model {package.manifest.name}: its input is {np.dtype(tensor['dtype']).name} {found}, but the "
            f"manifest says input.dtype {given.dtype} and input.size {given.size}",
            reason="model_manifest",
        )


def _one(package: ModelPackage, tensors: list[dict[str, Any]], what: str, name: str | None) -> dict[str, Any]:
    chosen = [tensor for tensor in tensors if name is None or tensor["name"] == name]
    if len(chosen) != 1:
        names = ", ".join(tensor["name"] for tensor in tensors)
        raise Misconfigured(
            f"model {package.manifest.name}: {what}.name must name one of its {what}s ({names}), it is {name!r}",
            reason="model_manifest",
        )
    return chosen[0]
