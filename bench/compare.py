"""Compares settings, or checkouts, of the service with each other and with the bare limit, in interleaved rounds.

    scripts/private_broker.py run -- python bench/compare.py [--model NAME] [--kind KIND] [--rounds N] [--seconds N] \
        limit now 'small batches:TENSORFLOW__BATCH_SIZE=8' 'before:in=../other-checkout'

A variant is a name and, after colons, settings without AUTOTAG_, `in=FOLDER` for the code of another checkout, or
`with=COMMAND` for a command to start it with (`with=chrt --batch 0`). `limit` is the bare loop.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import workloads  # noqa: E402
from contestants import Autotag  # noqa: E402
from footprint import NO_RECYCLING  # noqa: E402
from limit import LimitProcess, Order  # noqa: E402
from measuring import paired, shuffled_rounds, summarise  # noqa: E402
from processes import listener  # noqa: E402
from queues import Queues  # noqa: E402
from recovery import NO_LIMIT  # noqa: E402
from service_under_test import AutotagService  # noqa: E402
from throughput import Run, Track  # noqa: E402

_LIMIT = "limit"


class Variant(AutotagService):
    """A service with another checkout's code, or started by a command."""

    code = ROOT
    command: tuple[str, ...] = ()

    def start(self) -> Self:
        """Launch it, without waiting."""
        self._environment["PYTHONPATH"] = str(self.code)
        with self.log.open("ab") as output:
            self.started_at_s = time.time()
            self._process = subprocess.Popen(
                [*self.command, sys.executable, "-m", "worker", "run"],
                env=self._environment,
                cwd=self.code,
                stdout=output,
                stderr=output,
            )
        return self


def read_variant(text: str) -> tuple[str, dict[str, str]]:
    """Its name, and what differs in it. Raises ValueError."""
    name, *parts = text.split(":")
    differences = dict(part.split("=", 1) for part in parts)
    return name, differences


def main() -> None:
    """Parse the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Compare variants of the service in interleaved rounds.")
    parser.add_argument("variants", nargs="+", metavar="NAME[:WHAT=VALUE…]")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--kind", default="web", help="of photographs: web, 1mp, 12mp, 24mp, collage24 or png")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run of one variant")
    arguments = parser.parse_args()
    variants = dict(read_variant(text) for text in arguments.variants)
    url = os.environ["AUTOTAG_AMQP__URL"]
    with Queues(url) as queues, tempfile.TemporaryDirectory(prefix="autotag-compare-") as folder, ExitStack() as stack:
        pictures = workloads.make(ROOT / "bench" / "out" / "images")
        files = pictures.files(arguments.kind)
        contestants: dict[str, Autotag] = {}
        for name, differences in variants.items():
            if name != _LIMIT:
                service = _service(queues, url, Path(folder), arguments.model, pictures.folder, differences)
                contestants[name] = Autotag(name, stack.enter_context(service))
                contestants[name].in_hand = int(differences.get("AMQP__PREFETCH", contestants[name].in_hand))
        limit = stack.enter_context(LimitProcess(arguments.model)) if _LIMIT in variants else None
        track = Track(listener(queues.port) if queues.local else None)
        for contestant in contestants.values():
            track.warm_up(contestant, files)
        found: dict[str, list[Run]] = {name: [] for name in variants}
        for order in shuffled_rounds(list(variants), arguments.rounds, int(time.time())):
            for name in order:
                if name in contestants:
                    found[name].append(track.measure(contestants[name], files, arguments.seconds))
                elif limit is not None:
                    bare = limit.measure(Order(str(files[0].parent), arguments.seconds))
                    found[name].append(Run(bare.images_per_s, bare.images, bare.seconds, {"all": bare.cpu_ms}, 0.0))
        for name in variants:
            print(_line(name, found))


def _service(
    queues: Queues, url: str, folder: Path, model: str, images: Path, differences: Mapping[str, str]
) -> Variant:
    settings = {name: value for name, value in differences.items() if name.isupper()}
    service = Variant(queues, url, folder, model=model, images=images, settings=NO_LIMIT | NO_RECYCLING | settings)
    service.code = Path(differences.get("in", ROOT)).resolve()
    service.command = tuple(differences.get("with", "").split())
    return service


def _line(name: str, found: Mapping[str, list[Run]]) -> str:
    runs = found[name]
    costs: dict[str, Any] = {group: summarise(run.cpu_ms[group] for run in runs).median for group in runs[0].cpu_ms}
    own = summarise(run.own_cpu_ms for run in runs).median
    words = [
        f"{name:16} {summarise(run.images_per_s for run in runs).median:7.1f} images/s {own:6.2f} CPU-ms:",
        ", ".join(f"{group} {cost:.2f}" for group, cost in costs.items()),
    ]
    if _LIMIT in found and name != _LIMIT:
        bare = found[_LIMIT]
        speed = paired([run.images_per_s for run in runs], [run.images_per_s for run in bare]).median
        cost = paired([run.own_cpu_ms for run in bare], [run.own_cpu_ms for run in runs]).median
        words.append(f"  of the limit {speed:.2f}, in CPU time {cost:.2f}")
    foreign = summarise(run.foreign_share for run in runs).median
    return " ".join([*words, f" (others {foreign:.0%})"])


if __name__ == "__main__":
    main()
