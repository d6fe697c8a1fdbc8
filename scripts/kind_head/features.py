"""The pooled features of the built-in model, from a file's bytes by the product's own decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from worker.children import opening, rendering
from worker.children.demand import Demand, Granted
from worker.errors import CannotBeDone
from worker.images.content import Content
from worker.images.requests import PixelRecipe
from worker.models.manifest import ModelPackage

MODEL = "efficientnet-lite2"
_ALL = Granted(1 << 40, may_have_more=False, quick_s=None)
_MAXIMUM = 1 << 28

Features = npt.NDArray[np.float32]
Extract = Callable[[bytes], Features]


def decoded(data: bytes, recipe: PixelRecipe) -> npt.NDArray[np.uint8]:
    """Pixels `[S, S, 3]` as a decoder child renders them. Raises `CannotBeDone`."""
    with (
        Content.from_bytes(data, "body") as content,
        opening.opened(
            content.fd, Demand(_ALL), formats=opening.readable(), maximum_pixels=_MAXIMUM, maximum_bytes=_MAXIMUM
        ) as (picture, _),
    ):
        pixels = np.frombuffer(rendering.pixels(picture, [recipe]), np.uint8)
    return pixels.reshape(recipe.size, recipe.size, 3)


def extractor(package: ModelPackage) -> Extract:
    """A function from a file's bytes to features `[1280]`. It raises `CannotBeDone` for what cannot be decoded."""
    interpreter = Interpreter(model_path=str(package.model_path), num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    named = {tensor["name"]: tensor["index"] for tensor in interpreter.get_output_details()}
    output = named[str(package.manifest.output.features)]
    recipe = package.manifest.recipe()

    def extract(data: bytes) -> Features:
        interpreter.set_tensor(entry, decoded(data, recipe)[None])
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output)[0], np.float32)

    return extract


def of_files(paths: Iterable[Path], extract: Extract) -> tuple[Features, list[str]]:
    """Features of files `[N, 1280]` and their names; what cannot be decoded is left out."""
    rows, names = [], []
    for path in paths:
        try:
            rows.append(extract(path.read_bytes()))
            names.append(str(path))
        except CannotBeDone as error:
            print(f"left out: {path.name}: {error}")
    return np.stack(rows), names
