"""Runs a command beside a RabbitMQ broker, starting a private one where none is named.

    python scripts/private_broker.py run -- COMMAND…

COMMAND gets AUTOTAG_AMQP__URL; its exit status is returned. A broker named already in AUTOTAG_AMQP__URL (in the
environment or in `.env`) is used when it answers. Otherwise a private node runs as long as the command does. Where
AUTOTAG_TEST_BROKER names a major version (3 or 4), a named broker of another version is not used.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import rabbitmq_container
from guardian import PR_SET_PDEATHSIG, prctl
from ports import accepts_connections, broker_version
from rabbitmq_container import ContainerBroker
from rabbitmq_install import NotInstalledError, wanted_version
from rabbitmq_node import BrokerError, PrivateBroker

URL_VARIABLE = "AUTOTAG_AMQP__URL"


def named_url() -> tuple[str, str] | None:
    """The broker's URL if one is set, and its origin: the environment, or `.env` in the current directory."""
    if url := os.environ.get(URL_VARIABLE):
        return url, "environment"
    with contextlib.suppress(FileNotFoundError):
        for line in Path(".env").read_text().splitlines():
            key, _, value = line.strip().removeprefix("export ").partition("=")
            if key.strip() == URL_VARIABLE and value.strip():
                return value.strip().strip("'\""), ".env"
    return None


@contextlib.contextmanager
def some_broker() -> Iterator[str]:
    """URL of a broker for the length of the block: the named one if it answers, else a node, else a container."""
    if named := named_url():
        url, origin = named
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or (5671 if parts.scheme == "amqps" else 5672)
        trouble = objection(host, port, tls=parts.scheme == "amqps")
        if trouble is None:
            log(f"using {host}:{port}, named by {URL_VARIABLE} ({origin})")
            yield url
            return
        log(f"{host}:{port}, named by {URL_VARIABLE} ({origin}), {trouble}; starting a private one instead")
    started_s = time.monotonic()
    with private_or_container() as broker:
        took_s = time.monotonic() - started_s
        log(f"a private RabbitMQ at 127.0.0.1:{urlsplit(broker.url).port}, ready in {took_s:.1f} s")
        yield broker.url


def objection(host: str, port: int, *, tls: bool) -> str | None:
    """Why a named broker cannot be used; None if it can."""
    wanted = wanted_version()
    version = broker_version(port, host) if not tls else "" if accepts_connections(port, host) else None
    if version is None:
        return "does not answer"
    if wanted is not None and version.partition(".")[0] != str(wanted):
        return f"has version {version or 'unknown'}, not {wanted}"
    return None


def private_or_container() -> PrivateBroker | ContainerBroker:
    """A broker, not yet started: enter it to start it. Raises NotInstalledError if neither kind is available here."""
    try:
        return PrivateBroker()
    except NotInstalledError as error:
        engine = rabbitmq_container.engine()
        if engine is None:
            error.add_note("Neither docker nor podman answers here, so there is no container to use instead.")
            raise
        image = rabbitmq_container.image(wanted_version())
        log(f"RabbitMQ is not installed; using {image} with {engine}")
        return ContainerBroker(engine, image)


def log(message: str) -> None:
    """Print a message on standard error, since standard output belongs to the command."""
    print(f"broker: {message}", file=sys.stderr, flush=True)


def run(command: Sequence[str]) -> int:
    """Run a command beside a broker. Returns its exit status, or 128 + N if signal N ended it, as a shell does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until the command runs: clean up and exit
    with some_broker() as url:
        runner = os.getpid()

        def die_with_the_runner() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # without its broker the command has no purpose
            if os.getppid() != runner:  # the runner ended before the line above
                os._exit(143)

        process = subprocess.Popen(command, env=os.environ | {URL_VARIABLE: url}, preexec_fn=die_with_the_runner)  # noqa: PLW1509 - one thread
        # The terminal sends Ctrl-C to the command too, and its reaction decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        status = process.wait()
    return status if status >= 0 else 128 - status


def main() -> int:
    """Parse the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Run a command beside a RabbitMQ broker.")
    commands = parser.add_subparsers(required=True)
    run_parser = commands.add_parser("run", help=f"run a command with {URL_VARIABLE} set")
    run_parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    try:
        return run(arguments.command)
    except FileNotFoundError as error:
        log(f"no such command: {error.filename}")
        return 127
    except (BrokerError, NotInstalledError, OSError) as error:
        log("\n".join([str(error), *getattr(error, "__notes__", [])]))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
