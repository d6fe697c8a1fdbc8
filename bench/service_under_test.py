"""`autotag run` as the benchmark knows it: started with settings, fed, watched, hurt and stopped.

It runs as an operator would run it: the settings of the defaults, results confirmed, a line of log for each event.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pika
from processes import Groups, children, command_line
from queues import Outgoing, Queues

from worker.amqp.topology import Lane, topology
from worker.errors import TryLater
from worker.messages import EVENT_TYPE
from worker.operations.control import send_command
from worker.settings import RetrySettings

READY_WITHIN_S = 90.0
SETTLED_WITHIN_S = 120.0
_STOP_WITHIN_S = 40.0


class AutotagService:
    """One `autotag run`; a context manager. `settings`: environment names without AUTOTAG_.

    It has queues of its own, unless `prefix` names those of another.
    """

    def __init__(
        self,
        queues: Queues,
        url: str,
        folder: Path,
        *,
        model: str,
        images: Path,
        settings: Mapping[str, str] = {},
        prefix: str | None = None,
        cores: Iterable[int] | None = None,
    ) -> None:
        self.prefix = prefix or f"bench-{uuid.uuid4().hex[:8]}"
        self.layout = topology(self.prefix, RetrySettings().delays_s)
        self.log = folder / f"{self.prefix}-{uuid.uuid4().hex[:6]}.jsonl"
        self._control = folder / f"{self.log.stem}.sock"
        self._queues = queues
        self._shares_queues = prefix is not None
        self._cores = set(cores) if cores is not None else None
        own = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
        own |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
        chosen = {
            "AMQP__URL": url,
            "AMQP__QUEUE_PREFIX": self.prefix,
            "CONTROL_SOCKET": str(self._control),
            "STATE_DIR": str(folder / "state"),
            "HTTP__PORT": "0",
            "LOG__FORMAT": "json",
            "SOURCES__PATH_ROOTS": json.dumps([str(images)]),
            "SOURCES__URL_ALLOWED_HOSTS": "127.0.0.1",
            "SOURCES__URL_ALLOW_PRIVATE_ADDRESSES": "true",
            "DEFAULTS__TENSORFLOW__ENABLED": "true",
            "TENSORFLOW__MODEL": model,
        }
        if "TENSORFLOW__MODELS" in settings:  # in place of the one
            del chosen["TENSORFLOW__MODEL"]
        self._environment = own | {f"AUTOTAG_{name}": value for name, value in (chosen | dict(settings)).items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._kinds: dict[int, str] = {}
        self.started_at_s = 0.0

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Self:
        """Launch it, without waiting."""
        with self.log.open("ab") as output:
            self.started_at_s = time.time()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"], env=self._environment, stdout=output, stderr=output
            )
        if self._cores is not None:
            os.sched_setaffinity(self._process.pid, self._cores)  # its children inherit it
        return self

    def ready(self) -> Self:
        """Wait until it takes events."""
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not (self.status() or {}).get("ready"):
            if time.monotonic() > deadline_s or self._running.poll() is not None:
                raise TimeoutError(f"the service did not become ready; its log: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Stop it in order, or with force if need be, and remove its queues."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if not self._shares_queues:
            self.remove_queues()

    def remove_queues(self) -> None:
        """Delete the queues of its prefix."""
        self._queues.delete(queue.name for queue in self.layout.queues)

    def __enter__(self) -> Self:
        return self.start().ready()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ── what it is made of ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None  # noqa: S101 - it has been started
        return self._process

    @property
    def pid(self) -> int:
        """The parent's process id."""
        return self._running.pid

    def children(self, kind: str) -> list[int]:
        """Process ids of its children of a kind, `model` or `decoder`."""
        return [pid for pid in children(self.pid) if self._kind(pid) == kind]

    def groups(self) -> Groups:
        """Who uses processor time: parent, decoders, model."""
        return {
            "parent": lambda: [self.pid],
            "decoders": lambda: self.children("decoder"),
            "model": lambda: self.children("model"),
        }

    def pids(self) -> list[int]:
        """All of its processes."""
        return [self.pid, *children(self.pid)]

    def status(self) -> dict[str, Any] | None:
        """What its control socket says, if it is there yet."""
        with suppress(TryLater):
            answer = asyncio.run(send_command(self._control, "status"))
            assert isinstance(answer, dict)  # noqa: S101 - of any version: `compare` measures older ones too
            return answer
        return None

    def _kind(self, pid: int) -> str | None:
        """What a child is for; remembered, since a watch asks several times a second."""
        if pid not in self._kinds:
            command = command_line(pid)
            found = next((word for word in command if word.startswith("worker.children.")), None)
            if found is None:
                return None  # it has not got so far as to be that
            self._kinds[pid] = found.removeprefix("worker.children.")
        return self._kinds[pid]

    # ── what it is given, and what it gives ──────────────────────────────────────────────────────────────────────────

    def publish(self, contents: Iterable[dict[str, str]], *, instances: int = 1) -> list[str]:
        """Publish an event for each content; the ids. They belong to `instances` instances in turn."""
        ids, messages = [], []
        for number, content in enumerate(contents):
            event_id, message = self.event(content, f"instance-{number % instances}" if instances > 1 else "default")
            ids.append(event_id)
            messages.append(message)
        self._queues.publish(messages)
        return ids

    def event(self, content: dict[str, str], instance: str = "default") -> tuple[str, Outgoing]:
        """A structured CloudEvent as a DMS would send it; its id, and the message."""
        event_id = str(uuid.uuid4())
        body = {
            "specversion": "1.0",
            "id": event_id,
            "source": "/bench",
            "type": EVENT_TYPE,
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
            "data": {"asset_id": f"asset-{event_id}", "instance": instance, "content": content},
        }
        properties = pika.BasicProperties(
            content_type="application/cloudevents+json", delivery_mode=2, message_id=event_id
        )
        return event_id, Outgoing(self.layout.images_exchange, Lane.LIVE.value, json.dumps(body).encode(), properties)

    def results(self, count: int, within_s: float = 60.0) -> list[dict[str, Any]]:
        """Wait for `count` results to lie in their queue, and take them. Raises when one is not about tags."""
        self._queues.wait_for(self.layout.results_queue, count, within_s)
        results = [json.loads(body) for body in self._queues.drain(self.layout.results_queue, count)]
        failed = [each for each in results if each["data"]["status"] not in {"tagged", "no_tags"}]
        if failed:
            raise RuntimeError(f"{len(failed)} events were not tagged, for one: {failed[0]['data']}")
        return results

    def settle(self) -> None:
        """Wait until nothing is left to do, and forget results that were not taken."""
        deadline_s = time.monotonic() + SETTLED_WITHIN_S
        lane = self.layout.lane_queue(Lane.LIVE)
        while self._queues.depth(lane) or (self.status() or {}).get("events_in_hand"):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the service still has events to do after {SETTLED_WITHIN_S:g} s")
            time.sleep(0.1)
        self._queues.purge(self.layout.results_queue)

    def first_result_s(self) -> float:
        """Wait for the first result that lies in their queue, take it, and say when it was written."""
        self._queues.wait_for(self.layout.results_queue, 1, READY_WITHIN_S)
        return written_at_s(json.loads(self._queues.drain(self.layout.results_queue, 1)[0]))

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of a kind."""
        lines = []
        with self.log.open() as log:
            for line in log:
                with suppress(ValueError):
                    fields = json.loads(line)
                    if fields.get("event") == event:
                        lines.append(fields)
        return lines


def written_at_s(result: dict[str, Any]) -> float:
    """When a result was written, as `time.time` counts."""
    return datetime.fromisoformat(result["time"]).timestamp()


def by_path(files: Sequence[Path], count: int) -> list[dict[str, str]]:
    """Contents by path, the files in turn."""
    return [{"path": str(files[number % len(files)])} for number in range(count)]
