"""Runs a `.tflite` file with LiteRT, without TensorFlow: 20 ms to load, 110 MB resident (built-in models, two threads).

Images are distributed over interpreters with one thread each, which never wait for one another. A single image, when
the cores are otherwise idle, gets an interpreter with all threads: they share every layer and wait for each other at
its end, which is slow as soon as one of them has lost its core to another process.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from worker.errors import Misconfigured
from worker.models.manifest import ModelInput, ModelPackage
from worker.models.runtimes.confidences import Confidences
from worker.models.runtimes.runtime import Features, ImageScores, PixelArray, RawOutput, Runtime

_One = PixelArray | Features
"""The input for one image: `[S, S, 3]`, or `[F]`."""

_THREADS = Path("/proc/self/task")
"""One entry for each thread of this process."""


class LiteRT(Runtime):
    """A `.tflite` model."""

    def __init__(self, package: ModelPackage, threads: int = 1, executor: Executor | None = None) -> None:
        """`executor`: of so many threads, shared with the models beside it, none of which ever has all cores then."""
        self._confidences = Confidences(package)
        shared = executor is not None
        self._executor = executor or ThreadPoolExecutor(threads, "inference")
        # Created in parallel by the executor: each takes some time to lay out its weights.
        self._single_threaded = list(self._executor.map(lambda _: _ModelInterpreter(package, 1), range(threads)))
        self._multi_threaded = _PinnedInterpreter(package, threads) if threads > 1 and not shared else None
        self._multi_threaded_lock = threading.Lock()

    def submit(self, inputs: PixelArray | Features, *, alone: bool) -> list[Future[ImageScores]]:
        """See `Runtime.submit`."""
        if alone and len(inputs) == 1 and self._multi_threaded is not None:
            return [self._executor.submit(self._run_multi_threaded, self._multi_threaded, inputs[0])]
        return [self._executor.submit(self._run_single_threaded, each) for each in inputs]

    def _run_multi_threaded(self, interpreter: _PinnedInterpreter, one: _One) -> ImageScores:
        with self._multi_threaded_lock:
            return self._scored(*interpreter.run(one))

    def _run_single_threaded(self, one: _One) -> ImageScores:
        interpreter = self._single_threaded.pop()  # one for each thread; the caches know the last one used best
        try:
            return self._scored(*interpreter.run(one))
        finally:
            self._single_threaded.append(interpreter)

    def _scored(self, raw: RawOutput, features: Features | None) -> ImageScores:
        return ImageScores(self._confidences.of(raw)[0], features)


class _ModelInterpreter:
    """An interpreter of the model for one image at a time."""

    def __init__(self, package: ModelPackage, threads: int) -> None:
        self._model_input = package.manifest.input
        output = package.manifest.output
        try:
            self._interpreter = Interpreter(model_path=str(package.model_path), num_threads=threads)
            self._input = _tensor(package, self._interpreter.get_input_details(), "input", self._model_input.name)
            outputs = self._interpreter.get_output_details()
            self._output = _tensor(package, outputs, "output", output.name)
            self._features = _tensor(package, outputs, "output", output.features) if output.features else None
            _check_input(package, self._input)
            self._shape = (1, *_shape_of_one(self._model_input))
            self._interpreter.resize_tensor_input(self._input["index"], self._shape)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise Misconfigured(f"LiteRT cannot load {package.model_path}: {error}", reason="model_refused") from error
        self._gain, self._shift = _affine(self._model_input, self._input)

    def run(self, one: _One) -> tuple[RawOutput, Features | None]:
        """The model's raw output `[1, …, outputs]`, and the features `[F]` that it names, of one image."""
        self._interpreter.set_tensor(self._input["index"], self._input_values(one).reshape(self._shape))
        self._interpreter.invoke()
        features = None if self._features is None else self._values(self._features).reshape(-1)
        return self._values(self._output), features

    def _values(self, tensor: dict[str, Any]) -> npt.NDArray[np.float32]:
        raw = self._interpreter.get_tensor(tensor["index"])
        scale, zero = tensor["quantization"]
        if scale:
            raw = (raw.astype(np.float32) - zero) * scale
        values = np.asarray(raw, np.float32)
        # An output with more axes is one of several places, unless there is one place: `[1, 1, 1, outputs]`.
        return values if values.ndim > 2 and values[..., 0].size > 1 else values.reshape(1, -1)

    def _input_values(self, one: _One) -> npt.NDArray[Any]:
        """Convert pixels to values of the input tensor. For the built-in models they are the same."""
        if self._model_input.features:
            return one
        pixels = one[..., ::-1] if self._model_input.channels == "bgr" else one
        dtype = self._input["dtype"]
        if dtype is np.uint8 and isclose(self._gain, 1.0, abs_tol=1e-4) and isclose(self._shift, 0.0, abs_tol=1e-2):
            return np.ascontiguousarray(pixels)
        values = pixels.astype(np.float32) * np.float32(self._gain) + np.float32(self._shift)
        if dtype is np.float32:
            return values
        limits = np.iinfo(dtype)
        quantised: npt.NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
        return quantised


class _PinnedInterpreter:
    """A multi-threaded interpreter with each thread, the calling one included, pinned to a core of its own.

    Threads are pinned only if there are exactly as many cores as threads. Schedulers have been observed to wake the
    second thread on the first one's core and to leave it there for the whole of an image, which doubles the time.
    """

    def __init__(self, package: ModelPackage, threads: int) -> None:
        self._cores = os.sched_getaffinity(0)
        before = set(os.listdir(_THREADS))
        self._interpreter = _ModelInterpreter(package, threads)
        helpers = [int(thread) for thread in set(os.listdir(_THREADS)) - before]
        self._pinned = len(self._cores) == threads == len(helpers) + 1
        if self._pinned:
            self._first, *others = sorted(self._cores)
            try:
                for helper, core in zip(helpers, others, strict=True):
                    os.sched_setaffinity(helper, {core})
            except OSError:  # not permitted, or the available cores have just changed
                self._pinned = False

    def run(self, one: _One) -> tuple[RawOutput, Features | None]:
        """See `_ModelInterpreter.run`."""
        if not self._pinned:
            return self._interpreter.run(one)
        try:
            os.sched_setaffinity(0, {self._first})
            try:
                return self._interpreter.run(one)
            finally:
                os.sched_setaffinity(0, self._cores)
        except OSError:
            self._pinned = False
            return self._interpreter.run(one)


def _affine(model_input: ModelInput, tensor: dict[str, Any]) -> tuple[float, float]:
    """`gain * pixel + shift` is `(pixel - mean) / scale`, followed by the quantisation of the input if it has one."""
    gain, shift = 1.0 / model_input.scale, -model_input.mean / model_input.scale
    scale, zero = tensor["quantization"]
    if scale:
        gain, shift = gain / scale, shift / scale + zero
    return gain, shift


def _shape_of_one(model_input: ModelInput) -> tuple[int, ...]:
    size = model_input.size
    return (size,) if model_input.features else (size, size, 3)


def _check_input(package: ModelPackage, tensor: dict[str, Any]) -> None:
    declared, shape = package.manifest.input, [int(side) for side in tensor["shape"]]
    dtype = np.dtype(tensor["dtype"]).name
    if shape[1:] != [*_shape_of_one(declared)] or dtype != declared.dtype:
        raise Misconfigured(
            f"model {package.manifest.name}: its input is {dtype} {shape}, but the "
            f"manifest says input.dtype {declared.dtype} and input.size {declared.size}",
            reason="model_manifest",
        )


def _tensor(package: ModelPackage, tensors: list[dict[str, Any]], what: str, name: str | None) -> dict[str, Any]:
    chosen = [tensor for tensor in tensors if name is None or tensor["name"] == name]
    if len(chosen) != 1:
        names = ", ".join(tensor["name"] for tensor in tensors)
        raise Misconfigured(
            f"model {package.manifest.name}: {what}.name must name one of its {what}s ({names}), it is {name!r}",
            reason="model_manifest",
        )
    return chosen[0]
