"""What the competitors share: the decoding, the naming of tags, and the form of a result. Nothing of Autotag's.

The environment configures them: BENCH_URL, BENCH_QUEUE and BENCH_RESULTS name the broker and the queues,
BENCH_MODEL the model, BENCH_SIZE the side of its input, BENCH_LABELS the file of its labels, BENCH_TEMPERATURE what its
logits are divided by. With them everybody does the same work: the middle square of the picture, bicubic, and every
label of at least 0.1.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

URL = os.environ["BENCH_URL"]
PIKA_URL = f"{URL}?heartbeat=0"  # they are stopped while others are measured
QUEUE = os.environ["BENCH_QUEUE"]
RESULTS = os.environ["BENCH_RESULTS"]
MODEL = os.environ["BENCH_MODEL"]
SIZE = int(os.environ["BENCH_SIZE"])
TEMPERATURE = float(os.environ["BENCH_TEMPERATURE"])
LABELS = Path(os.environ["BENCH_LABELS"]).read_text().splitlines()
THRESHOLD = 0.1
MARGIN = 32


def load(path: str) -> np.ndarray:
    """An image as uint8 RGB, `[size, size, 3]`: its middle square."""
    with Image.open(path) as image:
        return crop(image)


def crop(image: Image.Image) -> np.ndarray:
    """The middle square of an opened image."""
    side = min(image.size) * SIZE / (SIZE + MARGIN)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.convert("RGB").resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(square)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Pixels as the float model takes them."""
    return (pixels.astype(np.float32) - 127.0) / 128.0


def tags(logits: np.ndarray) -> list[dict[str, object]]:
    """The labels of at least the threshold, best first."""
    scaled = logits / TEMPERATURE
    powers = np.exp(scaled - scaled.max())
    confidences = powers / powers.sum()
    best = np.argsort(-confidences)
    return [
        {"name": LABELS[index], "confidence": round(float(confidences[index]), 4)}
        for index in best[confidences[best] >= THRESHOLD]
    ]


def result(asset: str, found: list[dict[str, object]]) -> dict[str, object]:
    """What is published about an image."""
    return {"asset": asset, "tags": found, "time": time.time()}


def result_body(asset: str, found: list[dict[str, object]]) -> bytes:
    """The same as JSON."""
    return json.dumps(result(asset, found)).encode()
