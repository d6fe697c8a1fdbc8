"""Several models that look at the same images: their scores one after another, as if they were one model's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from worker.models.manifest import ModelPackage
from worker.models.runtimes import open_runtime
from worker.models.runtimes.runtime import ImageScores, PixelArray, Runtime, Scores


class Together:
    """The models of several packages, in their order. Those that read another's features come after it."""

    def __init__(self, packages: Sequence[ModelPackage], threads: int) -> None:
        """Load them. Raises `Misconfigured`."""
        executor = ThreadPoolExecutor(threads, "inference") if len(packages) > 1 else None
        self._manifests = [package.manifest for package in packages]
        self._runtimes: list[Runtime] = [open_runtime(package, threads, executor) for package in packages]
        self._labels = [len(package.labels) for package in packages]
        places = {manifest.name: place for place, manifest in enumerate(self._manifests)}
        self._looking = [place for place, each in enumerate(self._manifests) if not each.input.features]
        self._readers: dict[int, list[tuple[int, Runtime]]] = {place: [] for place in self._looking}
        for place, manifest in enumerate(self._manifests):
            if manifest.input.features:
                self._readers[places[manifest.input.features]].append((place, self._runtimes[place]))
        self.sizes = [self._manifests[place].input.size for place in self._looking]
        """Sides in pixels of the squares that are looked at, in order."""

    @property
    def labels(self) -> int:
        """Of all models."""
        return sum(self._labels)

    def submit(self, squares: Sequence[PixelArray], *, alone: bool) -> list[Future[ImageScores]]:
        """Start scoring images. `squares`: of each of `sizes`, those of all images, `[N, S, S, 3]`.

        See `Runtime.submit`.
        """
        if len(self._runtimes) == 1:
            return self._runtimes[0].submit(squares[0], alone=alone)
        images = [_Image(self._labels) for _ in range(len(squares[0]))]
        for place, pixels in zip(self._looking, squares, strict=True):
            for image, future in zip(images, self._runtimes[place].submit(pixels, alone=False), strict=True):
                future.add_done_callback(_Passing(image, place, self._readers[place]))
        return [image.scored for image in images]

    def score(self, squares: Sequence[PixelArray]) -> Scores:
        """Score images and wait for all of them: float32 `[N, labels]`. Raises `Misconfigured`."""
        return np.stack([future.result().scores for future in self.submit(squares, alone=True)])


class _Image:
    """The scores of one image as they come in, from any thread."""

    def __init__(self, labels: Sequence[int]) -> None:
        self.scored: Future[ImageScores] = Future()
        self._starts = np.concatenate([[0], np.cumsum(labels)])
        self._scores = np.zeros(self._starts[-1], np.float32)
        self._awaited = len(labels)
        self._ended = False
        self._lock = threading.Lock()

    def add(self, place: int, future: Future[ImageScores]) -> None:
        """Those of one model. The first error is the image's."""
        error = future.exception()
        with self._lock:
            if error is None:
                self._scores[self._starts[place] : self._starts[place + 1]] = future.result().scores
            self._awaited -= 1
            if self._ended or not (error or self._awaited == 0):
                return
            self._ended = True
        if error is not None:
            self.scored.set_exception(error)
        else:
            self.scored.set_result(ImageScores(self._scores))


class _Passing:
    """Passes the features of one image on to the models that read them."""

    def __init__(self, image: _Image, place: int, readers: Sequence[tuple[int, Runtime]]) -> None:
        self._image = image
        self._place = place
        self._readers = readers

    def __call__(self, future: Future[ImageScores]) -> None:
        if future.exception() is None:
            features = future.result().features
            for place, reader in self._readers:
                if features is not None:
                    [read] = reader.submit(features[None], alone=False)
                    read.add_done_callback(partial(self._image.add, place))
        self._image.add(self._place, future)
