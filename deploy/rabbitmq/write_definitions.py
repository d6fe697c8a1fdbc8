# ruff: noqa: INP001 - run by path
"""Writes definitions.json: Autotag's exchanges, queues and bindings, for a broker whose administrator declares them.

`python deploy/rabbitmq/write_definitions.py` writes the checked-in file; with a queue prefix as argument, it prints the
definitions for that prefix.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from worker.amqp.topology import definitions, topology
from worker.settings import RetrySettings, Settings

FILE = Path(__file__).with_name("definitions.json")


def text(prefix: str) -> str:
    """The definitions for a queue prefix and the default retry delays, as JSON."""
    return json.dumps(definitions(topology(prefix, RetrySettings().delays_s)), indent=2) + "\n"


def main() -> None:
    """Write the file, or print the definitions for the prefix on the command line."""
    if len(sys.argv) > 1:
        sys.stdout.write(text(sys.argv[1]))
    else:
        FILE.write_text(text(Settings().amqp.queue_prefix))


if __name__ == "__main__":
    main()
