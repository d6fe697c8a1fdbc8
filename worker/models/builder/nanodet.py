"""NanoDet-g as a TensorFlow function, from the two files of its TensorFlow.js form: the graph, and the weights.

The graph was made from one whose tensors have their channels first, so each of its convolutions stands between two
transpositions, which cannot be quantised. Here every tensor has its channels last and the transpositions are dropped.
Of its outputs only the scores are used: as a tagger needs no boxes, the highest score of each class anywhere is all.

Architecture and weights: https://github.com/RangiLyu/nanodet (Apache-2.0). Only the builder process imports this;
TensorFlow is loaded inside `build_detector`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import Misconfigured

_Array = npt.NDArray[Any]

CLASSES = 80
STRIDES = 3
"""Grids of cells: of 8, 16 and 32 pixels."""

NOMINAL_SIZE = 416
"""The side of the square that the graph was written for, in pixels; any multiple of 32 will do."""

MEAN, SCALE = 116.0, 57.12
"""The input is (pixel - MEAN) / SCALE in RGB. What the network was trained with differs a little for each channel, and
has them in the order blue, green, red: the first convolution makes up for both."""

_TRAINED_MEAN, _TRAINED_SCALE = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)

_CHANNELS_FIRST = {0: 0, 1: 3, 2: 1, 3: 2}
"""Where an axis of the graph is here."""


@dataclass(frozen=True, slots=True)
class _Graph:
    nodes: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, _Array]

    def inputs(self, name: str) -> list[str]:
        return [each.partition(":")[0].lstrip("^") for each in self.nodes[name].get("input", ())]

    def attribute(self, name: str, which: str) -> Any:
        return self.nodes[name]["attr"][which]


def read_graph(description: bytes, weights: bytes) -> _Graph:
    """The graph and its weights, as numbers. Raises `Misconfigured` if the files are not what they should be."""
    try:
        model = json.loads(description)
        nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        found, offset = {}, 0
        for group in model["weightsManifest"]:
            for each in group["weights"]:
                stored = np.dtype(each.get("quantization", each)["dtype"]).newbyteorder("<")
                count = prod(each["shape"])
                found[each["name"]] = np.frombuffer(weights, stored, count, offset).reshape(each["shape"])
                offset += count * stored.itemsize
    except (ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"the files of NanoDet are not as expected: {error}", reason="weights_refused") from error
    if offset != len(weights):
        raise Misconfigured(f"NanoDet has {len(weights)} bytes of weights, not {offset}", reason="weights_refused")
    return _Graph(nodes, found)


def build_detector(graph: _Graph, size: int) -> Callable[[Any], Any]:
    """A function from normalised float32 images `[1, S, S, 3]` in RGB to logits `[1, 80]`, to be traced.

    Each is the highest of its class in any cell. Raises `Misconfigured` for an operation that the graph does not have.
    """
    import tensorflow as tf

    def detect(image: Any) -> Any:
        values = _Values(tf, graph, size, image)
        sigmoids = [name for name, node in graph.nodes.items() if node["op"] == "Sigmoid"]
        if len(sigmoids) != STRIDES:
            raise Misconfigured(f"the graph of NanoDet has {len(sigmoids)} outputs of scores", reason="weights_refused")
        # The sigmoid is left to the reader of the output: it changes no order.
        highest = [tf.reduce_max(values.of(graph.inputs(name)[0]), axis=[1, 2]) for name in sigmoids]
        return tf.maximum(tf.maximum(highest[0], highest[1]), highest[2])

    return detect


class _Values:
    """The tensors of the graph for one image, each made when first asked for, with its channels last."""

    def __init__(self, tf: Any, graph: _Graph, size: int, image: Any) -> None:
        self._tf = tf
        self._graph = graph
        self._size = size
        self._image = image
        self._made: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Any:
        operation = self._graph.nodes[name]["op"]
        make = _OPERATIONS.get(operation)
        if make is None:
            raise Misconfigured(f"the graph of NanoDet has an unknown operation {operation}", reason="weights_refused")
        return make(self, name, self._graph.inputs(name))

    def _placeholder(self, _name: str, _inputs: list[str]) -> Any:
        return self._image

    def _transpose(self, _name: str, inputs: list[str]) -> Any:
        return self.of(inputs[0])

    def _add(self, _name: str, inputs: list[str]) -> Any:
        bias = self._graph.weights.get(inputs[1])
        if bias is None:
            return self.of(inputs[0]) + self.of(inputs[1])
        return self._tf.nn.bias_add(self.of(inputs[0]), self._bias(inputs[0], bias.astype(np.float32)))

    def _convolution(self, name: str, inputs: list[str]) -> Any:
        strides = [int(each) for each in self._graph.attribute(name, "strides")["list"]["i"]]
        return self._convolved(inputs[0], self._kernel(inputs), strides)

    def _leaky_relu(self, name: str, inputs: list[str]) -> Any:
        return self._tf.nn.leaky_relu(self.of(inputs[0]), self._graph.attribute(name, "alpha")["f"])

    def _pad(self, _name: str, inputs: list[str]) -> Any:
        """With zeros, also where the graph has minus infinity, before the highest are taken of an activation.

        That is nearly the same at the edge, as what is below zero is small there, and can be quantised.
        """
        of_axis = self._graph.weights[inputs[1]]
        return self._tf.pad(self.of(inputs[0]), np.stack([of_axis[axis] for axis in (0, 2, 3, 1)]))

    def _highest(self, _name: str, inputs: list[str]) -> Any:
        return self._tf.nn.max_pool2d(self.of(inputs[0]), 3, 2, "VALID")

    def _concatenation(self, _name: str, inputs: list[str]) -> Any:
        axis = _CHANNELS_FIRST[int(self._graph.weights[inputs[-1]])]
        return self._tf.concat([self.of(each) for each in inputs[:-1]], axis)

    def _resized(self, _name: str, inputs: list[str]) -> Any:
        sides = [int(side) * self._size // NOMINAL_SIZE for side in self._graph.weights[inputs[1]]]
        resize = self._tf.raw_ops.ResizeBilinear
        return resize(images=self.of(inputs[0]), size=sides, half_pixel_centers=True)

    def _scores(self, _name: str, inputs: list[str]) -> Any:
        return self.of(inputs[0])[..., :CLASSES]  # the rest are the boxes

    def _convolved(self, source: str, kernel: _Array, strides: list[int]) -> Any:
        """A convolution of stride 1 pads by itself; one of stride 2 would pad at one end only."""
        tf = self._tf
        padded = source
        while self._graph.nodes[padded]["op"] == "Transpose":
            padded = self._graph.inputs(padded)[0]
        if strides == [1, 1, 1, 1] and self._graph.nodes[padded]["op"] == "Pad":
            return tf.nn.conv2d(self.of(self._graph.inputs(padded)[0]), kernel, strides, "SAME")
        return tf.nn.conv2d(self.of(source), kernel, strides, "VALID")

    def _kernel(self, inputs: list[str]) -> _Array:
        kernel = self._graph.weights[inputs[1]].astype(np.float32)
        if not self._reads_the_image(inputs[0]):
            return kernel
        factors = np.array([SCALE / scale for scale in _TRAINED_SCALE], np.float32)
        return np.ascontiguousarray((kernel * factors[None, None, :, None])[:, :, ::-1])

    def _bias(self, convolution: str, bias: _Array) -> _Array:
        """With what the first convolution has to make up for in the means."""
        inputs = self._graph.inputs(convolution)
        if not self._reads_the_image(inputs[0]):
            return bias
        kernel = self._graph.weights[inputs[1]].astype(np.float64)
        off = [(MEAN - mean) / scale for mean, scale in zip(_TRAINED_MEAN, _TRAINED_SCALE, strict=True)]
        return np.asarray(bias + (kernel * np.array(off)[None, None, :, None]).sum(axis=(0, 1, 2)), np.float32)

    def _reads_the_image(self, name: str) -> bool:
        while self._graph.nodes[name]["op"] in {"Transpose", "Pad"}:
            name = self._graph.inputs(name)[0]
        return bool(self._graph.nodes[name]["op"] == "Placeholder")


_OPERATIONS: Mapping[str, Callable[[_Values, str, list[str]], Any]] = {
    "Placeholder": _Values._placeholder,
    "Transpose": _Values._transpose,
    "Add": _Values._add,
    "AddV2": _Values._add,
    "Conv2D": _Values._convolution,
    "LeakyRelu": _Values._leaky_relu,
    "Pad": _Values._pad,
    "PadV2": _Values._pad,
    "MaxPool": _Values._highest,
    "ConcatV2": _Values._concatenation,
    "ResizeBilinear": _Values._resized,
    "SplitV": _Values._scores,
}
