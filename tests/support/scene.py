"""The scene of a fault: a running service, its DMS, and an account of every event."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.ledger import Ledger
from tests.support.orders import Orders
from tests.support.service import Dms, RunningService, running_service, until

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
    "DECODER__TIMEOUT_S": "5",
    "DECODER__MAXIMUM_CPU_S": "1",
    "DECODER__MAXIMUM_MEMORY_BYTES": "192MiB",
    "SHUTDOWN_GRACE_S": "15",
}
"""Deadlines short enough for a test to wait for, and a relaunch rule that several faults in a row do not use up."""


@dataclass
class Scene:
    """One service among its faults. `photographs` are good images; `folder` may take others, it is a path root too."""

    service: RunningService
    ledger: Ledger
    photographs: dict[str, Path]
    folder: Path
    orders: Orders
    log_begins_at: int = 0

    @property
    def dms(self) -> Dms:
        return self.ledger.dms

    @property
    def good(self) -> Path:
        """A photograph that is certainly tagged."""
        return self.photographs["coffee"]

    def load(self, number: int = 100) -> list[str]:
        """Publish events for good photographs."""
        return self.ledger.publish(self.good, number)

    def under_load(self, number: int = 150) -> list[str]:
        """Publish events, and return when some have ended and most have not.

        On a busy machine events may end as fast as they are published, and as fast as their results are gathered: so
        they are taken only when all are there, and the results are left where they are.
        """
        with self.service.paused():
            ids = self.load(number)
        until(lambda: self.dms.depth("results"), "the first of the events ended")
        return ids

    def child(self, kind: str) -> psutil.Process:
        """A child of a kind that has started."""
        return until(lambda: self.children(kind), f"there is a {kind} child")[0]

    def children(self, kind: str) -> list[psutil.Process]:
        """All that have started and take work, as the service itself says."""
        status = self.service.status() or {}
        return [
            psutil.Process(each["pid"])
            for each in status.get("children", [])
            if each["name"].startswith(kind)
            and each["phase"] in ("ready", "busy", "checking")
            and psutil.pid_exists(each["pid"])
        ]

    def lines(self) -> list[dict[str, Any]]:
        """What the service has logged since the scene began, line by line."""
        with self.service.log.open("rb") as log:
            log.seek(self.log_begins_at)
            return [json.loads(line) for line in log if line.startswith(b"{") and line.endswith(b"}\n")]

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The log's lines of an event since the scene began, those whose fields are as given."""
        return [
            line
            for line in self.lines()
            if line["event"] == event and all(line.get(name) == value for name, value in fields.items())
        ]

    def crash(self, **fields: Any) -> dict[str, Any]:
        """The crash of a model child that is in the log, or will be."""
        return until(lambda: self.logged("child crashed", **fields), f"a crash with {fields} was logged")[0]

    def meet_again(self, url: str) -> None:
        """Connect the DMS anew after the broker has gone; the account goes on."""
        prefix = self.dms.prefix
        self.dms.close()
        self.ledger.dms = Dms(url, prefix)

    def ready(self) -> None:
        """Wait until it takes events, with its model ready."""
        until(lambda: (self.service.status() or {}).get("ready"), f"it takes events; {self.service.status()}")
        until(lambda: self.children("model"), "its model child is ready")

    def come_to_rest(self) -> None:
        """Begin anew after another test, also one that failed: nothing in hand, nothing in the queues, a new log."""

        def at_rest() -> bool:
            in_hand = (self.service.status() or {})["broker"]["unsettled"]
            rest = not in_hand and self.dms.depth("images.live") == 0
            self.ledger.gather()
            return rest

        until(at_rest, "what another test left has ended")
        self.ledger = Ledger(self.dms)
        self.orders.withdraw()
        self.log_begins_at = self.service.log.stat().st_size


@contextmanager
def scene(
    url: str, prefix: str, folder: Path, photographs: dict[str, Path], *, dms_url: str | None = None, **settings: str
) -> Iterator[Scene]:
    """A service of one's own, ready, with quick deadlines; `settings` come on top. `dms_url`: a way around a proxy.

    When the block ends well, and the service still runs, it must end well too, on SIGTERM. No process may be left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orders = Orders(folder / "orders-to-misbehave")
    roots = json.dumps([str(next(iter(photographs.values())).parent), str(folder)])
    with (
        environment(PYTHONPATH=orders.python_path),
        running_service(url, prefix, folder, **QUICK | {"SOURCES__PATH_ROOTS": roots} | settings) as service,
    ):
        it = Scene(service, None, photographs, folder, orders)  # type: ignore[arg-type] # the queues come first
        it.ready()
        it.ledger = Ledger(Dms(dms_url or url, prefix))
        try:
            yield it
        finally:
            it.dms.close()
        if service.process.poll() is None:
            assert service.stop() == 0, service.logged()[-4000:]
        assert orphans_of(service.process.pid) == []


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Have these in the environment of the processes that are started in the block; PYTHONPATH comes before its own."""
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


def orphans_of(parent_pid: int) -> list[psutil.Process]:
    """Living children that `parent_pid` has started, whoever their parent is now: their command ends in its number."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if (
                any(word.startswith("worker.children.") for word in words)
                and words[-1] == str(parent_pid)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one whose number has been given to another counts as gone."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; that the process was alive is a part of every proof."""
    assert not gone(process), f"{process} was gone before it could be hurt"
    process.send_signal(number)
