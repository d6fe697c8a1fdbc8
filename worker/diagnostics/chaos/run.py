"""The chaos run: starts workers, publishes, injects the scheduled faults, waits until every event has ended, counts."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from worker.amqp.connection import connected
from worker.amqp.parameters import addresses
from worker.amqp.topology import Topology, topology
from worker.diagnostics.chaos.client import ChaosClient
from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.processes import WorkerProcess, cut_connections, kill_child
from worker.diagnostics.chaos.schedule import Fault, FaultKind, schedule
from worker.diagnostics.chaos.workload import photographs_in, plan
from worker.errors import TryLater
from worker.settings import AmqpSettings

RETRY_DELAYS_S = (0.5, 1.0)
SHUTDOWN_GRACE_S = 20.0

SETTINGS = {
    "AUTOTAG_AMQP__RECONNECT_MAX_S": "2",
    "AUTOTAG_AMQP__CONNECTION_TIMEOUT_S": "3",
    "AUTOTAG_DECODER__CHILDREN": "1",
    "AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED": "true",
    "AUTOTAG_HTTP__ENABLED": "false",
    "AUTOTAG_LOG__FORMAT": "json",
    "AUTOTAG_RETRY__DELAYS_S": json.dumps(RETRY_DELAYS_S),
    "AUTOTAG_RETRY__MAXIMUM_NUMBER_OF_ATTEMPTS": "3",
    "AUTOTAG_SHUTDOWN_GRACE_S": str(SHUTDOWN_GRACE_S),
    # The run causes more crashes than a sound model ever has: the relaunch rule must neither disable nor delay it here.
    "AUTOTAG_TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "1000",
    "AUTOTAG_TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "2",
    "AUTOTAG_TENSORFLOW__THREADS": "1",
}
"""The workers' settings. The operator's own are used for the connection to the broker only."""

_READY_TIMEOUT_S = 180.0
_FAULT_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """The options of a run. `folder` receives the workers' files, and must be empty or not exist yet."""

    amqp: AmqpSettings
    photographs: Path
    folder: Path
    events: int
    seed: int
    workers: int = 2
    model: str = "efficientnet-lite0"
    stall_timeout_s: float = 120.0
    """When no event has ended for this long, those that have not are lost."""
    restart_broker: Callable[[float], Awaitable[bool]] | None = None
    """Kills the broker, and starts it again after the given seconds; returns whether it was killed. None: no kills."""
    on_declared: Callable[[], Awaitable[None]] | None = None
    """Awaited once the queues are declared, before the first event is published."""

    @property
    def kinds(self) -> list[FaultKind]:
        """The kinds of faults to inject."""
        return [kind for kind in FaultKind if kind is not FaultKind.BROKER or self.restart_broker is not None]


@dataclass(slots=True)
class ChaosReport:
    """The counts of a run; see `Ledger` for their meaning. Its fields are the keys of `autotag chaos --json`."""

    seed: int
    events: int
    results: int = 0
    dead_letters: int = 0
    lost: int = 0
    differing_duplicates: int = 0
    duplicates: int = 0
    strangers: int = 0
    misjudged: int = 0
    blamed: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    kills_planned: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    workers_ended_well: bool = False
    seconds: float = 0.0
    lost_ids: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every event ended as expected, no duplicates differ, and every scheduled fault happened."""
        return (
            not (self.lost or self.differing_duplicates or self.strangers or self.misjudged)
            and self.kills == self.kills_planned
            and self.workers_ended_well
        )

    def as_json(self) -> dict[str, object]:
        """Every field, and `sound`."""
        return asdict(self) | {"sound": self.sound}


@dataclass(frozen=True, slots=True)
class ChaosProgress:
    """The progress of a run, for display. `now` describes the present step."""

    ended: int
    events: int
    published: int
    kills: int
    now: str


class ChaosRun:
    """One run. `on_progress` is called often, from the event loop."""

    def __init__(self, options: ChaosOptions, on_progress: Callable[[ChaosProgress], None] = lambda _: None) -> None:
        self._options = options
        self._on_progress = on_progress
        photographs = photographs_in(options.photographs)
        (options.folder / "bad").mkdir(parents=True)
        self._planned = plan(options.seed, options.events, photographs, options.folder / "bad")
        self._ledger = Ledger(self._planned)
        self._topology = topology(options.amqp.queue_prefix, RETRY_DELAYS_S)
        self._client = ChaosClient(options.amqp, self._topology, self._planned, self._ledger)
        self._workers = [
            WorkerProcess(options.folder / f"worker-{n}", self._environment()) for n in range(options.workers)
        ]
        self._restarts: set[asyncio.Task[None]] = set()
        self._kills: Counter[FaultKind] = Counter()
        self._unavailable: dict[FaultKind, str] = {}
        self._now = "starting"

    async def run(self) -> ChaosReport:
        """Run to the end. Raises TryLater when a worker does not become ready."""
        began_s = time.monotonic()
        faults = schedule(self._options.seed, self._options.events, self._options.kinds)
        try:
            await self._start_workers()
            client = asyncio.create_task(self._client.run())
            try:
                await self._inject_all(faults)
                await self._wait_for_all_events()
            finally:
                client.cancel()
                await asyncio.gather(client, return_exceptions=True)
            ended_well = await self._stop_workers()
        finally:
            for worker in self._workers:
                if worker.process is not None and worker.running:
                    worker.process.kill()
                    worker.process.wait()
        return self._report(faults, ended_well, time.monotonic() - began_s)

    async def delete_queues(self) -> None:
        """Delete the queues and exchanges that were declared for this run."""
        async with connected(self._options.amqp, "autotag-chaos") as connection:
            channel = await connection.channel()
            for queue in self._topology.queues:
                await channel.call(channel.raw.queue_delete, queue=queue.name, action=f"deleting {queue.name}")
            for exchange in self._topology.exchanges:
                await channel.call(
                    channel.raw.exchange_delete, exchange=exchange.name, action=f"deleting {exchange.name}"
                )

    @property
    def topology(self) -> Topology:
        """The queues and exchanges of this run."""
        return self._topology

    def _environment(self) -> dict[str, str]:
        options = self._options
        roots = [str(options.photographs.resolve()), str((options.folder / "bad").resolve())]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AUTOTAG_") or name == "AUTOTAG_CACHE_DIR"
        }
        amqp = options.amqp
        secrets = {} if amqp.password is None else {"AUTOTAG_AMQP__PASSWORD": amqp.password.get_secret_value()}
        connection = {
            f"AUTOTAG_AMQP__{name.upper()}": str(value)
            for name in ("username", "ca_file", "cert_file", "key_file")
            if (value := getattr(amqp, name)) is not None
        }
        return (
            inherited
            | SETTINGS
            | secrets
            | connection
            | {
                "AUTOTAG_AMQP__URL": amqp.url.get_secret_value(),
                "AUTOTAG_AMQP__QUEUE_PREFIX": amqp.queue_prefix,
                "AUTOTAG_SOURCES__PATH_ROOTS": json.dumps(roots),
                "AUTOTAG_TENSORFLOW__MODEL": options.model,
            }
        )

    # ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start_workers(self) -> None:
        for worker in self._workers:
            worker.start()
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        for worker in self._workers:
            while (status := await worker.status()) is None or not status.ready:
                if not worker.running or time.monotonic() > deadline_s:
                    raise TryLater(f"a worker did not become ready; it said: {worker.log_tail}", reason="not_ready")
                self._report_progress()
                await asyncio.sleep(0.2)
        if self._options.on_declared is not None:
            await self._options.on_declared()

    async def _inject_all(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._now = f"next: {fault.kind.value.replace('_', ' ')}"
            await self._wait_until_ended(fault.after_events)
            if fault.kind in self._unavailable:
                continue
            deadline_s = time.monotonic() + _FAULT_TIMEOUT_S
            while not await self._inject(fault):
                if time.monotonic() > deadline_s or fault.kind in self._unavailable:
                    break  # the report then has fewer kills than planned
                await asyncio.sleep(_POLL_INTERVAL_S)
            else:
                self._kills[fault.kind] += 1
            self._report_progress()

    async def _inject(self, fault: Fault) -> bool:
        """Inject a fault; returns whether it took effect on a running target."""
        if fault.kind is FaultKind.BROKER:
            assert self._options.restart_broker is not None  # noqa: S101 - otherwise no such fault is scheduled
            return await self._options.restart_broker(fault.pause_s)
        alive = [worker for worker in self._workers if worker.running]
        if fault.kind in (FaultKind.PARENT, FaultKind.CONNECTION):  # only when there is something to lose
            alive = [worker for worker in alive if (status := await worker.status()) and status.events_in_hand]
        if not alive:
            return False
        worker = alive[int(fault.pick * len(alive))]
        match fault.kind:
            case FaultKind.PARENT:
                return await self._kill_parent(worker, fault.pause_s)
            case FaultKind.CONNECTION:
                return self._cut_connection(worker)
        pids = await worker.children("model" if fault.kind is FaultKind.MODEL_CHILD else "decoder")
        return bool(pids) and await kill_child(pids[int(fault.pick * len(pids))])

    async def _kill_parent(self, worker: WorkerProcess, pause_s: float) -> bool:
        if not await worker.kill():
            return False
        restart = asyncio.create_task(self._restart(worker, pause_s))
        self._restarts.add(restart)
        restart.add_done_callback(self._restarts.discard)
        return True

    async def _restart(self, worker: WorkerProcess, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        worker.start()

    def _cut_connection(self, worker: WorkerProcess) -> bool:
        if worker.process is None:
            return False
        try:
            return cut_connections(worker.process.pid, addresses(self._options.amqp)[0].port) > 0
        except PermissionError as error:
            reason = f"this kernel does not let connections be cut from outside ({error})"
            self._unavailable[FaultKind.CONNECTION] = reason
            return False

    async def _wait_until_ended(self, number: int) -> None:
        """Wait until `number` events have ended, or none has for `stall_timeout_s`."""
        ended, progress_at_s = self._ledger.ended, time.monotonic()
        while self._ledger.ended < number:
            self._report_progress()
            await asyncio.sleep(_POLL_INTERVAL_S)
            if self._ledger.ended > ended:
                ended, progress_at_s = self._ledger.ended, time.monotonic()
            elif time.monotonic() - progress_at_s > self._options.stall_timeout_s:
                return

    async def _wait_for_all_events(self) -> None:
        self._now = "waiting for the rest"
        await self._wait_until_ended(self._options.events)
        if self._restarts:
            await asyncio.wait(self._restarts)
        # Duplicates may still be on their way; they must be counted too, since they must not differ.
        await asyncio.sleep(2.0)

    async def _stop_workers(self) -> bool:
        """Stop all workers; returns whether each ended with status 0."""
        self._now = "stopping the workers"
        self._report_progress()
        statuses = await asyncio.gather(*(worker.stop(SHUTDOWN_GRACE_S + 5) for worker in self._workers))
        return all(status == 0 for status in statuses)

    def _report_progress(self) -> None:
        self._on_progress(
            ChaosProgress(
                self._ledger.ended,
                self._options.events,
                self._client.published,
                sum(self._kills.values()),
                self._now,
            )
        )

    def _report(self, faults: Sequence[Fault], ended_well: bool, took_s: float) -> ChaosReport:
        ledger = self._ledger
        planned = Counter(fault.kind for fault in faults if fault.kind not in self._unavailable)
        return ChaosReport(
            seed=self._options.seed,
            events=self._options.events,
            results=ledger.results,
            dead_letters=ledger.dead_letters,
            lost=len(ledger.lost),
            differing_duplicates=ledger.differing_duplicates,
            duplicates=ledger.duplicates,
            strangers=len(ledger.strangers),
            misjudged=ledger.misjudged,
            blamed=ledger.blamed,
            kills={kind.value: self._kills[kind] for kind in planned},
            kills_planned={kind.value: number for kind, number in planned.items()},
            left_out={kind.value: why for kind, why in self._unavailable.items()},
            workers_ended_well=ended_well,
            seconds=round(took_s, 1),
            lost_ids=ledger.lost[:20],
        )
