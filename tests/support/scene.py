"""The setting of a fault test: a running service, its DMS, and a ledger of every event."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.fault_injection import FaultInjector
from tests.support.ledger import Ledger
from tests.support.polling import until
from tests.support.processes import children_started_by
from tests.support.service import Dms, RunningService, running_service
from worker.supervision.lifecycle import WORKING_PHASE_NAMES

QUICK = {
    "AMQP__HEARTBEAT_S": "2",
    "AMQP__CONNECTION_TIMEOUT_S": "2",
    "AMQP__CONFIRM_TIMEOUT_S": "5",
    "AMQP__RECONNECT_MAX_S": "2",
    "RETRY__DELAYS_S": "[1, 2]",
    "TENSORFLOW__BATCH_TIMEOUT_S": "3",
    "TENSORFLOW__START_TIMEOUT_S": "10",
    "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "1000",
    "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "5",
    "DECODER__CHILDREN": "2",
    # A second of processor time takes many seconds on a busy machine, and its limit must come first all the same.
    "DECODER__TIMEOUT_S": "20",
    "DECODER__MAXIMUM_CPU_S": "1",
    "DECODER__MAXIMUM_MEMORY_BYTES": "192MiB",
    "SHUTDOWN_GRACE_S": "15",
}
"""Deadlines short enough for a test to wait for, and a relaunch rule that several faults in a row do not exceed."""


@dataclass
class Scene:
    """One service under test. `photographs` are good images; tests may write others to `folder`, which is a path root.

    `faults` injects faults into its model child.
    """

    service: RunningService
    ledger: Ledger
    photographs: dict[str, Path]
    folder: Path
    faults: FaultInjector
    log_begins_at: int = 0

    @property
    def dms(self) -> Dms:
        return self.ledger.dms

    @property
    def good(self) -> Path:
        """A photograph that is certain to be tagged."""
        return self.photographs["coffee"]

    def load(self, number: int = 100) -> list[str]:
        """Publish events for good photographs."""
        return self.ledger.publish(self.good, number)

    def under_load(self, number: int = 150) -> list[str]:
        """Publish events, and return when some have ended and most have not.

        On a busy machine events may end as fast as they are published and their results gathered: so the service
        starts to consume only when all are published, and the results stay in their queue.
        """
        with self.service.paused():
            ids = self.load(number)
        until(lambda: self.dms.depth("results"), "the first of the events ended")
        return ids

    def child(self, kind: str) -> psutil.Process:
        """A child of a kind that has started."""
        return until(lambda: self.children(kind), f"there is a {kind} child")[0]

    def children(self, kind: str) -> list[psutil.Process]:
        """All children of a kind that have started and live, according to the service's status."""
        status = self.service.status() or {}
        return [
            psutil.Process(each["pid"])
            for each in status.get("children", [])
            if each["name"].startswith(kind) and each["phase"] in WORKING_PHASE_NAMES and psutil.pid_exists(each["pid"])
        ]

    def lines(self) -> list[dict[str, Any]]:
        """The lines that the service has logged since this test began."""
        with self.service.log.open("rb") as log:
            log.seek(self.log_begins_at)
            return [json.loads(line) for line in log if line.startswith(b"{") and line.endswith(b"}\n")]

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The log lines of an event since this test began, with these fields."""
        return [
            line
            for line in self.lines()
            if line["event"] == event and all(line.get(name) == value for name, value in fields.items())
        ]

    def crash(self, **fields: Any) -> dict[str, Any]:
        """The log line of a model child's crash; waits for it."""
        return until(lambda: self.logged("child crashed", **fields), f"a crash with {fields} was logged")[0]

    def reconnect(self, url: str) -> None:
        """Connect the DMS again after the broker was gone; the ledger is kept."""
        prefix = self.dms.prefix
        self.dms.close()
        self.ledger.dms = Dms(url, prefix)

    def ready(self) -> None:
        """Wait until the service consumes events and its model is ready."""
        until(lambda: (self.service.status() or {}).get("ready"), f"it consumes events; {self.service.status()}")
        until(lambda: self.children("model"), "its model child is ready")

    def reset(self) -> None:
        """Prepare for the next test, also after one that failed: no event in hand or queued, no old log lines."""

        def idle() -> bool:
            in_hand = (self.service.status() or {})["broker"]["unsettled"]
            is_idle = not in_hand and self.dms.depth("images.live") == 0
            self.ledger.gather()
            return is_idle

        until(idle, "the events of the test before have ended")
        self.ledger = Ledger(self.dms)
        self.faults.clear()
        self.log_begins_at = self.service.log.stat().st_size


@contextmanager
def scene(
    url: str, prefix: str, folder: Path, photographs: dict[str, Path], *, dms_url: str | None = None, **settings: str
) -> Iterator[Scene]:
    """A service for one test or module, ready, with short deadlines and `settings` added.

    `dms_url`: how the DMS reaches the broker when the service goes through a proxy. When the block ends without an
    error and the service still runs, it must exit with status 0 on SIGTERM. No process may be left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    faults = FaultInjector(folder / "fault-injection")
    roots = json.dumps([str(next(iter(photographs.values())).parent), str(folder)])
    with (
        environment(PYTHONPATH=faults.python_path),
        running_service(url, prefix, folder, **QUICK | {"SOURCES__PATH_ROOTS": roots} | settings) as service,
    ):
        it = Scene(service, None, photographs, folder, faults)  # type: ignore[arg-type] # the service declares the queues
        it.ready()
        it.ledger = Ledger(Dms(dms_url or url, prefix))
        try:
            yield it
        finally:
            it.dms.close()
        if service.process.poll() is None:
            assert service.stop() == 0, service.logged()[-4000:]
        until(lambda: children_started_by(service.process.pid) == [], "no process is left", within_s=10)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set these for the processes that are started in the block; PYTHONPATH is put before the existing one."""
    before = {name: os.environ.get(name) for name in variables}
    if before.get("PYTHONPATH"):
        variables["PYTHONPATH"] += os.pathsep + str(before["PYTHONPATH"])
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
