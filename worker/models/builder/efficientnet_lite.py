"""EfficientNet-Lite as a Keras model, with the batch norms folded into the convolutions.

The architecture is EfficientNet without squeeze-and-excite and with ReLU6, as published by its authors
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Only the builder process imports
this; TensorFlow is loaded inside `build_keras`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import Misconfigured

_Array = npt.NDArray[Any]

# The weights were trained with this epsilon; torch's own default (1e-5) costs about a point of accuracy.
BATCH_NORM_EPSILON = 1e-3
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
FEATURES = HEAD_CHANNELS
"""The length of the second output: the head's channels, each averaged over the image."""
CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Variant:
    """One size of the family: how wide, how deep, and the side of its square input in pixels."""

    width: float
    depth: float
    size: int


VARIANTS = {
    "efficientnet-lite0": Variant(1.0, 1.0, 224),
    "efficientnet-lite1": Variant(1.0, 1.1, 240),
    "efficientnet-lite2": Variant(1.1, 1.2, 260),
}


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual: expand, depthwise convolution, project; `skip` adds the input to the output."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int

    @property
    def skip(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.channels_in == self.channels_out


# repeats, kernel, stride of the first, expansion, channels in, channels out
_GROUPS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


def blocks(variant: Variant) -> Iterator[Block]:
    """The blocks of one size, first to last. The depth does not scale the first and the last group."""
    last = len(_GROUPS) - 1
    for index, (repeats, kernel, stride, expansion, channels_in, channels_out) in enumerate(_GROUPS):
        # The stem's width is fixed in this family, and so is the input of the first block.
        wide_in = STEM_CHANNELS if index == 0 else scaled_channels(channels_in, variant.width)
        wide_out = scaled_channels(channels_out, variant.width)
        times = repeats if index in (0, last) else ceil(repeats * variant.depth)
        yield Block(kernel, stride, expansion, wide_in, wide_out)
        for _ in range(times - 1):
            yield Block(kernel, 1, expansion, wide_out, wide_out)


def scaled_channels(channels: int, width: float) -> int:
    """Scale and round to a multiple of 8, but never down by more than a tenth."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class _Weights:
    """Returns folded weights by their names in the state dict, and detects weights that were never used."""

    def __init__(self, state: dict[str, _Array]) -> None:
        self._state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}

    def take(self, name: str) -> _Array:
        try:
            return self._state.pop(name).astype(np.float64)
        except KeyError:
            raise Misconfigured(f"the weights lack {name!r}", reason="weights_refused") from None

    def folded(self, convolution: str, norm: str, *, depthwise: bool = False) -> list[_Array]:
        """Kernel and bias of a convolution with its batch norm folded in, computed in float64."""
        kernel = self.take(f"{convolution}.weight")  # output, input, height, width
        factor = self.take(f"{norm}.weight") / np.sqrt(self.take(f"{norm}.running_var") + BATCH_NORM_EPSILON)
        bias = self.take(f"{norm}.bias") - self.take(f"{norm}.running_mean") * factor
        order = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        return [(kernel * factor[:, None, None, None]).transpose(order).astype(np.float32), bias.astype(np.float32)]

    def dense(self, name: str) -> list[_Array]:
        return [self.take(f"{name}.weight").T.astype(np.float32), self.take(f"{name}.bias").astype(np.float32)]

    def check_all_used(self) -> None:
        if self._state:
            raise Misconfigured(
                f"the weights hold {len(self._state)} tensors the architecture has no place for, "
                f"among them {next(iter(self._state))!r}",
                reason="weights_refused",
            )


def build_keras(variant: Variant, state: dict[str, _Array]) -> Any:
    """Build the Keras model, from normalised float32 images `[N, S, S, 3]` to `logits` and `features`.

    These are `[N, 1000]` and `[N, 1280]`. Raises `Misconfigured` if the weights do not fit the architecture.
    """
    import keras

    layers = keras.layers
    weights = _Weights(state)
    pending: list[tuple[Any, list[_Array]]] = []

    def apply(layer: Any, values: list[_Array], tensor: Any) -> Any:
        pending.append((layer, values))
        return layer(tensor)

    def convolve(tensor: Any, name: str, norm: str, channels: int, kernel: int, stride: int) -> Any:
        layer = layers.Conv2D(channels, kernel, stride, padding="same", name=name.strip("_").replace(".", "_"))
        return apply(layer, weights.folded(name, norm), tensor)

    def depthwise(tensor: Any, name: str, norm: str, kernel: int, stride: int) -> Any:
        layer = layers.DepthwiseConv2D(kernel, stride, padding="same", name=name.strip("_").replace(".", "_"))
        return apply(layer, weights.folded(name, norm, depthwise=True), tensor)

    image = keras.Input((variant.size, variant.size, 3), name="image")
    tensor = layers.ReLU(6.0)(convolve(image, "_conv_stem", "_bn0", STEM_CHANNELS, 3, 2))
    for index, block in enumerate(blocks(variant)):
        prefix, entered = f"_blocks.{index}", tensor
        if block.expansion != 1:
            widened = block.channels_in * block.expansion
            tensor = convolve(tensor, f"{prefix}._expand_conv", f"{prefix}._bn0", widened, 1, 1)
            tensor = layers.ReLU(6.0)(tensor)
        tensor = depthwise(tensor, f"{prefix}._depthwise_conv", f"{prefix}._bn1", block.kernel, block.stride)
        tensor = layers.ReLU(6.0)(tensor)
        tensor = convolve(tensor, f"{prefix}._project_conv", f"{prefix}._bn2", block.channels_out, 1, 1)
        tensor = layers.Add()([tensor, entered]) if block.skip else tensor
    tensor = layers.ReLU(6.0)(convolve(tensor, "_conv_head", "_bn1", HEAD_CHANNELS, 1, 1))
    features = layers.GlobalAveragePooling2D(name="features")(tensor)
    logits = apply(layers.Dense(CLASSES, name="logits"), weights.dense("_fc"), features)
    weights.check_all_used()

    model = keras.Model(image, {"logits": logits, "features": features})
    for layer, values in pending:
        layer.set_weights(values)
    return model
