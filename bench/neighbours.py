"""How long an instance's photographs take in the decoders while another instance's files take long, and alone.

    python bench/neighbours.py [--files N] [--children N]

Six files of each kind are given to the decoders at once; beside them one photograph after the other is decoded, for
twenty seconds at most. No broker and no model: what is measured is the waiting for a decoder.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import structlog  # noqa: E402
from demo import write_photographs  # noqa: E402

from tests.hostile.files import bombs  # noqa: E402
from worker.errors import AutotagError  # noqa: E402
from worker.images.content import Content  # noqa: E402
from worker.images.requests import Fit, Interpolation, PixelRecipe  # noqa: E402
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool  # noqa: E402
from worker.supervision.turns import Turn  # noqa: E402

_RECIPE = PixelRecipe(260, Fit.CROP, 1, Interpolation.BICUBIC)
_KINDS = (
    "JPEG of 10,000 scans",
    "BMP of 10 million short runs",
    "PNG of 49 megapixels, 16 bits",
    "PNG, 16 bits and a transparent colour",
    "WebP of 34 bytes and 49 megapixels",
    "WebP of 49 megapixels",
)
_ALONE, _LONGEST_S, _PAUSE_S = 50, 20.0, 0.02


async def _decode(pool: DecoderPool, data: bytes, instance: str) -> float:
    """Seconds that it took, whatever it came to."""
    begun_s = time.monotonic()
    with Content.from_bytes(data, "body") as content:
        try:
            decoded = await pool.decode(content, (_RECIPE,), "a file", Turn(instance))
        except AutotagError:
            return time.monotonic() - begun_s
    os.close(decoded.pixels_fd or -1)
    return time.monotonic() - begun_s


async def _measure(kind: str, photograph: bytes, files: int, children: int) -> str:
    data = bombs()[kind]()
    options = DecoderOptions(children=children, shared_memory_bytes=lambda: 2 << 30)
    async with DecoderPool(options) as pool:
        await pool.wait_started()
        alone = [await _decode(pool, photograph, "neighbour") for _ in range(_ALONE)]
        slow = [asyncio.create_task(_decode(pool, data, "slow")) for _ in range(files)]
        beside, begun_s = [], time.monotonic()
        while not all(task.done() for task in slow) and time.monotonic() - begun_s < _LONGEST_S:
            beside.append(await _decode(pool, photograph, "neighbour"))
            await asyncio.sleep(_PAUSE_S)
        done = sum(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    figures = (statistics.median(alone), max(alone), statistics.median(beside), max(beside))
    return f"| {kind} | " + " | ".join(f"{seconds:.3f}" for seconds in figures) + f" | {done} of {files} |"


def main() -> None:
    """Print a table."""
    arguments = argparse.ArgumentParser(description="One instance's photographs beside another's slow files.")
    arguments.add_argument("--files", type=int, default=6)
    arguments.add_argument("--children", type=int, default=2)
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        photograph = next(file for file in write_photographs(Path(folder)) if file.stem == "coffee").read_bytes()
    print("| six of | alone, median s | most | beside, median s | most | slow ones done |\n|---|---|---|---|---|---|")
    for kind in _KINDS:
        print(asyncio.run(_measure(kind, photograph, given.files, given.children)), flush=True)


if __name__ == "__main__":
    main()
