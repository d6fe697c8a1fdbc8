"""Everybody who tags from a queue, behind one small interface, so that one function measures them all.

A contestant is started once and stays up through all rounds; while another is measured it waits at its empty queue.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pika
from environments import BENCH
from processes import Groups, tree
from queues import Outgoing, Queues
from service_under_test import AutotagService, by_path, written_at_s

from worker.models.manifest import ModelPackage
from worker.settings import AmqpSettings

START_WITHIN_S = 120.0
PREFETCH = AmqpSettings().prefetch
_STOP_WITHIN_S = 15.0


class Contestant(Protocol):
    """Takes images from a queue and publishes their tags."""

    name: str
    in_hand: int
    """How many images it takes at once, at most: until so many are finished, a run is not steady."""

    def fill(self, files: Sequence[Path], count: int) -> None:
        """Put `count` images into its queue, the files in turn."""
        ...

    def finished_s(self, count: int, within_s: float) -> list[float]:
        """Wait for `count` results; when each was written, as `time.time` counts. Raises TimeoutError."""
        ...

    def groups(self) -> Groups:
        """Its processes."""
        ...


class Autotag:
    """Autotag itself."""

    def __init__(self, name: str, service: AutotagService) -> None:
        self.name = name
        self.in_hand = PREFETCH
        self.service = service

    def fill(self, files: Sequence[Path], count: int) -> None:
        """See `Contestant`."""
        self.service.publish(by_path(files, count))

    def finished_s(self, count: int, within_s: float) -> list[float]:
        """See `Contestant`."""
        return [written_at_s(result) for result in self.service.results(count, within_s)]

    def groups(self) -> Groups:
        """See `Contestant`."""
        return self.service.groups()


@dataclass(frozen=True, slots=True)
class Served:
    """The model that everybody serves, in the forms that they take it in."""

    saved_model: Path
    keras_file: Path
    package: ModelPackage

    def environment(self, runtime: str) -> dict[str, str]:
        """What a competitor needs to know about the model."""
        files = {"keras": self.keras_file, "savedmodel": self.saved_model, "litert": self.package.model_path}
        return {
            "BENCH_RUNTIME": runtime,
            "BENCH_MODEL": str(files[runtime]),
            "BENCH_SIZE": str(self.package.manifest.input.size),
            "BENCH_LABELS": str(self.package.directory / self.package.manifest.labels.file),
            "BENCH_TEMPERATURE": str(self.package.manifest.output.temperature),
        }


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of competitor: how its processes are started, and how it wants its messages."""

    name: str
    title: str
    runtime: str
    """See `peers/runtimes.py`."""
    commands: Callable[[Path, str, int, int], list[list[str]]]
    """From its Python, the name of its queue, a free port and the number of cores to command lines."""
    message: Callable[[str, str], tuple[bytes, pika.BasicProperties]]
    """From its queue and an image's path to a message."""
    written_at_s: Callable[[dict[str, Any]], float]
    """From the JSON of what it published to when that was."""
    in_hand: int

    @property
    def threads(self) -> str:
        """How many threads its model may have: one where there is a process for each core, else TensorFlow's choice."""
        return "0" if self.commands is _pika else "1"


class Peer:
    """A competitor at work; a context manager.

    It is stopped (SIGSTOP) while it has nothing to do: some wait so busily that they would slow the others down.
    """

    def __init__(self, kind: Kind, queues: Queues, url: str, python: Path, served: Served, log: Path) -> None:
        self.name = kind.name
        self.in_hand = kind.in_hand
        self._kind = kind
        self._queues = queues
        self._queue = f"bench-{kind.name}-{uuid.uuid4().hex[:6]}"
        self._results = f"{self._queue}.results"
        self._python = python
        self._log = log
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
        self._environment |= served.environment(kind.runtime) | {
            "BENCH_THREADS": kind.threads,
            "BENCH_URL": url,
            "BENCH_QUEUE": self._queue,
            "BENCH_RESULTS": self._results,
            "PYTHONPATH": str(BENCH / "peers"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        # What Dramatiq declares for a queue, which matters to no other.
        later = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{self._queue}.XQ"}
        if self._kind.message is _dramatiq:
            self._queues.declare(self._queue, later)
            self._queues.declare(self._results, later | {"x-dead-letter-routing-key": f"{self._results}.XQ"})
        else:
            self._queues.declare(self._queue)
            self._queues.declare(self._results)
        cores = len(os.sched_getaffinity(0))
        with self._log.open("ab") as output:
            for command in self._kind.commands(self._python, self._queue, _free_port(), cores):
                self._processes.append(
                    subprocess.Popen(
                        command,
                        env=self._environment,
                        cwd=BENCH / "peers",
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                )
        return self

    def ready(self, file: Path) -> Self:
        """Wait until it has tagged one image for each of its workers, and then some."""
        count = 16
        self.fill([file], count)
        self.finished_s(count, START_WITHIN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGCONT)
        for process in self._processes:
            _end(process)
        with suppress(Exception):
            self._queues.delete(
                [f"{queue}{end}" for queue in (self._queue, self._results) for end in ("", ".DQ", ".XQ")]
            )

    def fill(self, files: Sequence[Path], count: int) -> None:
        """See `Contestant`."""
        self._signal(signal.SIGCONT)
        messages = []
        for number in range(count):
            body, properties = self._kind.message(self._queue, str(files[number % len(files)]))
            messages.append(Outgoing("", self._queue, body, properties))
        self._queues.publish(messages)

    def finished_s(self, count: int, within_s: float) -> list[float]:
        """See `Contestant`."""
        try:
            self._queues.wait_for(self._results, count, within_s)
        except TimeoutError as error:
            raise TimeoutError(f"{self.name}: {error}; its log: {self._log.read_text()[-3000:]}") from error
        written_at_s = [self._kind.written_at_s(json.loads(body)) for body in self._queues.drain(self._results, count)]
        self._signal(signal.SIGSTOP)
        return written_at_s

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)  # each leads a group of its own

    def groups(self) -> Groups:
        """See `Contestant`."""
        return {"workers": lambda: [pid for process in self._processes for pid in tree(process.pid)]}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a competitor to end, then end its process group, which is its alone."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


# ── the messages that each framework puts on the wire ────────────────────────────────────────────────────────────────


def _plain(_queue: str, path: str) -> tuple[bytes, pika.BasicProperties]:
    return json.dumps({"path": path}).encode(), pika.BasicProperties(delivery_mode=2)


def _celery(_queue: str, path: str) -> tuple[bytes, pika.BasicProperties]:
    """A task message of version 2 of Celery's protocol."""
    task = str(uuid.uuid4())
    headers = {
        "lang": "py",
        "task": "tag",
        "id": task,
        "root_id": task,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "argsrepr": "(...)",
        "kwargsrepr": "{}",
        "origin": "bench",
    }
    body = json.dumps([[path], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    properties = pika.BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=task,
        delivery_mode=2,
        headers=headers,
    )
    return body.encode(), properties


def _dramatiq(queue: str, path: str) -> tuple[bytes, pika.BasicProperties]:
    message = {
        "queue_name": queue,
        "actor_name": "tag",
        "args": [path],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps(message).encode(), pika.BasicProperties(delivery_mode=2)


def _own_time(result: dict[str, Any]) -> float:
    return float(result["time"])


def _time_in_message(message: dict[str, Any]) -> float:
    return float(message["args"][0]["time"])


def _dramatiq_worker(python: Path, queue: str, _port: int, cores: int) -> list[list[str]]:
    options = ["--queues", queue, "--processes", str(cores), "--threads", "2", "--skip-logging"]
    return [[str(python), "-m", "dramatiq", "dramatiq_tagging", *options]]


def _pika(python: Path, _queue: str, _port: int, _cores: int) -> list[list[str]]:
    return [[str(python), "pika_keras.py"]]


def _celery_worker(python: Path, _queue: str, _port: int, _cores: int) -> list[list[str]]:
    options = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    return [[str(python), "-m", "celery", "-A", "celery_tensorflow", "worker", *options]]


def _litserve(python: Path, _queue: str, port: int, _cores: int) -> list[list[str]]:
    return [[str(python), script, str(port)] for script in ("litserve_server.py", "litserve_consumer.py")]


KINDS = (
    Kind("pika_keras", "pika, Pillow, Keras predict", "keras", _pika, _plain, _own_time, 1),
    Kind("celery_tensorflow", "Celery prefork, Keras predict", "keras", _celery_worker, _celery, _own_time, 2),
    Kind("dramatiq_tensorflow", "Dramatiq, Keras predict", "keras", _dramatiq_worker, _dramatiq, _time_in_message, 4),
    Kind("litserve_tensorflow", "LitServe behind pika, Keras predict", "keras", _litserve, _plain, _own_time, 16),
    Kind("dramatiq_litert", "Dramatiq, LiteRT int8", "litert", _dramatiq_worker, _dramatiq, _time_in_message, 4),
    Kind("celery_savedmodel", "Celery prefork, traced SavedModel", "savedmodel", _celery_worker, _celery, _own_time, 2),
    Kind(
        "dramatiq_savedmodel",
        "Dramatiq, traced SavedModel",
        "savedmodel",
        _dramatiq_worker,
        _dramatiq,
        _time_in_message,
        4,
    ),
    Kind(
        "litserve_savedmodel", "LitServe behind pika, traced SavedModel", "savedmodel", _litserve, _plain, _own_time, 16
    ),
)

REQUIREMENTS = tuple(sorted((BENCH / "peers").glob("*.requirements.txt")))


def enter_peers(
    stack: ExitStack,
    kinds: Iterable[Kind],
    queues: Queues,
    url: str,
    python: Path,
    served: Served,
    folder: Path,
    file: Path,
) -> list[Peer]:
    """Start competitors, all at once, and wait until each has tagged something."""
    peers = [
        stack.enter_context(Peer(kind, queues, url, python, served, folder / f"{kind.name}.log")) for kind in kinds
    ]
    for peer in peers:
        peer.ready(file)
    return peers
