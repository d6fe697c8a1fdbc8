"""The chaos run of `make chaos`: that of `autotag chaos`, with everything that command lacks.

A private broker that is killed too, stand-ins for the cloud services, and a web server for images fetched by URL.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from demo import write_photographs
from rabbitmq_node import BrokerError, PrivateBroker

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.chaos_services import chaos_services
from worker.cli.chaos import run, show
from worker.diagnostics.chaos.run import ChaosOptions
from worker.errors import AutotagError
from worker.settings import AmqpSettings

LABELS = {
    "astronaut.jpg": "football helmet",
    "chelsea.jpg": "tiger cat",
    "coffee.jpg": "espresso",
    "motorcycle_left.jpg": "moped",
    "rocket.jpg": "missile",
}
"""What efficientnet-lite0 says of the photographs of `make demo`, measured without anything being killed."""


def main() -> int:
    """Parse the command line, run, print the report. Returns 0 only if the run was sound, and 2 if it did not begin."""
    parser = argparse.ArgumentParser(description="Kill everything at random under load, and count every event.")
    parser.add_argument("--events", type=int, default=10_000, help="how many events to publish")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same faults")
    parser.add_argument("--workers", type=int, default=2, help="how many services share the work")
    parser.add_argument("--photographs", type=Path, help="a directory of photographs; five that are at hand otherwise")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="autotag-chaos-") as folder, PrivateBroker() as node:
            photographs = (arguments.photographs or _photographs(Path(folder))).resolve()
            with chaos_services(photographs, arguments.seed, arguments.events) as services:
                options = ChaosOptions(
                    amqp=AmqpSettings.model_validate({"url": node.url, "queue_prefix": "chaos"}),
                    photographs=photographs,
                    folder=Path(folder) / "run",
                    events=arguments.events,
                    seed=arguments.seed,
                    workers=arguments.workers,
                    google_endpoint=services.google,
                    microsoft_endpoint=services.microsoft,
                    served=services.served,
                    labels={} if arguments.photographs else LABELS,
                    restart_broker=lambda pause_s: asyncio.to_thread(kill_and_restart, node, pause_s),
                    on_declared=lambda: asyncio.to_thread(node.flush_metadata),
                )
                report = run(options)
    except (AutotagError, BrokerError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    show(report, as_json=arguments.json)
    return 0 if report.sound else 1


def kill_and_restart(node: PrivateBroker, pause_s: float) -> bool:
    """Kill the broker with SIGKILL and start it `pause_s` later; returns whether it was running and ended."""
    if not node.running:
        return False
    node.kill()
    gone = not node.running
    time.sleep(pause_s)
    node.start()
    return gone


def _photographs(folder: Path) -> Path:
    directory = folder / "photographs"
    directory.mkdir()
    write_photographs(directory)
    return directory


if __name__ == "__main__":
    sys.exit(main())
