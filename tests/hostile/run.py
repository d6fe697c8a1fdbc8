"""The hostile files through a real decoder and a real service: `make hostile`, or `python -m tests.hostile.run`.

First each file goes through a decoder with the default settings, for the table of the worst time and memory a file.
Then all go through a service, among good photographs: every event must end in one way, every good one tagged, every
failure with a reason, and no crash of the model. The exit status is 1 if anything of that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from demo import write_photographs  # noqa: E402

from tests.hostile import files  # noqa: E402
from tests.support.scene import Scene, scene  # noqa: E402
from worker.errors import CannotBeDone  # noqa: E402
from worker.images.content import Content  # noqa: E402
from worker.images.requests import Fit, Interpolation, PixelRecipe  # noqa: E402
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool  # noqa: E402

_RECIPE = PixelRecipe(260, Fit.CROP, 1, Interpolation.BICUBIC)
_DEFAULTS = {
    "DECODER__MAXIMUM_CPU_S": "20",
    "DECODER__MAXIMUM_MEMORY_BYTES": "1GiB",
    "TENSORFLOW__BATCH_TIMEOUT_S": "30",
    "RETRY__DELAYS_S": "[1, 2]",
}
_GOOD_EVERY = 10
_MAXIMUM_REASONS = 3


@dataclass
class Kind:
    """What the files of a kind came to. Seconds and bytes are those of the worst one."""

    number: int = 0
    seconds: float = 0.0
    memory_bytes: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)

    def row(self, name: str) -> str:
        """A row of the table."""
        common = [f"{number} {outcome}" for outcome, number in self.outcomes.most_common(_MAXIMUM_REASONS)]
        more = len(self.outcomes) - len(common)
        said = ", ".join(common) + (f", {more} other reasons" if more else "")
        return f"| {name} | {self.number} | {self.seconds:.2f} | {self.memory_bytes / (1 << 20):.0f} | {said} |"


HEAD = "| file | number | worst, s | worst, MiB | came to |\n|---|---|---|---|---|"


def hostile(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """All files, each with the kind that it is counted under."""
    for name, make in files.bombs().items():
        yield name, make()
    for name, data in files.polyglots().items():
        yield f"{name}, at once", data
    for name, data in files.mutations(number, seed):
        yield f"{name}, mutated", data


class PeakMemory:
    """The most resident memory that any process below this one had, looked at all the time in a thread of its own."""

    def __init__(self) -> None:
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> int:
        """The most since the last time."""
        most, self._most = self._most, 0
        return most

    def _look(self) -> None:
        while not self._ended.wait(0.001):
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        self._most = max(self._most, child.memory_info().rss)


async def through_a_decoder(number: int, seed: int) -> dict[str, Kind]:
    """Time, memory and outcome by kind, one file after the other."""
    found: dict[str, Kind] = collections.defaultdict(Kind)
    async with DecoderPool(DecoderOptions(sandbox="best")) as pool:
        await pool.wait_started()
        with PeakMemory() as memory:
            for done, (name, data) in enumerate(hostile(number, seed), 1):
                kind = found[name]
                memory.take()
                begun_s = time.monotonic()
                kind.outcomes[await _outcome(pool, data)] += 1
                kind.number += 1
                kind.seconds = max(kind.seconds, time.monotonic() - begun_s)
                kind.memory_bytes = max(kind.memory_bytes, memory.take())
                if done % 1000 == 0:
                    print(f"{done} files through a decoder", file=sys.stderr, flush=True)
    return found


async def _outcome(pool: DecoderPool, data: bytes) -> str:
    with Content.from_bytes(data, "body") as content:
        try:
            decoded = await pool.decode(content, (_RECIPE,), "a file")
        except CannotBeDone as refusal:
            return refusal.reason
    os.close(decoded.pixels_fd or -1)
    return "decoded"


def through_a_service(url: str, number: int, seed: int, folder: Path) -> list[str]:
    """What was not as it should be; each event published once, good ones among them."""
    prefix = f"hostile-{os.getpid()}"
    (folder / "photographs").mkdir()
    photographs = {file.stem: file for file in write_photographs(folder / "photographs")}
    with scene(url, prefix, folder / "files", photographs, **_DEFAULTS) as it:
        good: list[str] = []
        bad: dict[str, str] = {}
        for place, (name, data) in enumerate(hostile(number, seed)):
            if place % _GOOD_EVERY == 0:
                good += it.load(1)
            file = it.folder / f"{place}.bin"
            file.write_bytes(data)
            (event,) = it.ledger.publish(file, asset_id=f"{name} {place}")
            bad[event] = name
        print(f"{len(bad)} hostile and {len(good)} good events published", file=sys.stderr, flush=True)
        it.ledger.settle(within_s=600 + number)
        return _faults(it, good, bad)


def _faults(it: Scene, good: list[str], bad: dict[str, str]) -> list[str]:
    faults = []
    if it.ledger.statuses(good) != {"tagged"}:
        faults.append(f"good photographs came to {it.ledger.statuses(good)}")
    ended = collections.Counter[str]()
    for event, name in bad.items():
        result = it.ledger.results[event][-1].data
        ended[result["status"]] += 1
        if result["status"] == "failed" and not str(result["reason"]).startswith(("image_", "content_empty")):
            faults.append(f"{name}: failed with {result['reason']}: {result['message']}")
    crashes = it.logged("child crashed")
    if crashes:
        faults.append(f"{len(crashes)} crashes were counted: {crashes[0]}")
    print(f"service: {len(good)} good ones tagged, hostile ones {dict(ended)}, {len(crashes)} crashes", flush=True)
    return faults


def main() -> int:
    """Run both parts. The exit status says whether all was as it should be."""
    arguments = argparse.ArgumentParser(description="Hostile files through a decoder and a service.")
    arguments.add_argument("--files", type=int, default=10_000, help="mutated files, beside the bombs and polyglots")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--table", type=Path, help="also write the table to this file")
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    url = os.environ.get("AUTOTAG_AMQP__URL")
    if not url:
        arguments.error("no broker: run `make hostile`, which starts one, or set AUTOTAG_AMQP__URL")
    kinds = asyncio.run(through_a_decoder(given.files, given.seed))
    table = "\n".join([HEAD, *(kind.row(name) for name, kind in kinds.items())])
    print(table, flush=True)
    if given.table:
        given.table.write_text(table + "\n")
    with tempfile.TemporaryDirectory(prefix="autotag-hostile-") as folder:
        faults = through_a_service(url, given.files, given.seed, Path(folder))
    for fault in faults:
        print(f"fault: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
