"""The chaos run: start workers, publish, strike as the schedule says, wait until every event has ended, and count."""

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
from worker.amqp.parameters import address
from worker.amqp.topology import Topology, topology
from worker.diagnostics.chaos.client import Client
from worker.diagnostics.chaos.fleet import Worker, cut_connections, kill_child
from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.material import photographs_in, plan
from worker.diagnostics.chaos.schedule import Blow, Kind, schedule
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
    # More crashes than any sound model has in a day: the relaunch rule must neither disable it nor slow it down here.
    "AUTOTAG_TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "1000",
    "AUTOTAG_TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "2",
    "AUTOTAG_TENSORFLOW__THREADS": "1",
}
"""What the workers run with, whatever the operator's own settings are."""

_READY_WITHIN_S = 180.0
_STRIKE_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Options:
    """What is run. `broker_blow` kills the broker, waits for so many seconds, and starts it again; None: it is spared.

    `broker_settled` is awaited when the queues have been declared. `patience_s`: without any progress for so long, what
    has not ended is lost.
    """

    amqp: AmqpSettings
    photographs: Path
    folder: Path
    events: int
    seed: int
    workers: int = 2
    model: str = "efficientnet-lite0"
    patience_s: float = 120.0
    broker_blow: Callable[[float], Awaitable[bool]] | None = None
    broker_settled: Callable[[], Awaitable[None]] | None = None

    @property
    def kinds(self) -> list[Kind]:
        """What is struck."""
        return [kind for kind in Kind if kind is not Kind.BROKER or self.broker_blow is not None]


@dataclass(slots=True)
class Report:
    """The count. `sound` when every event has ended, no duplicates differ, and every blow really fell."""

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
        """Whether all is as promised."""
        return (
            not (self.lost or self.differing_duplicates or self.strangers or self.misjudged)
            and self.kills == self.kills_planned
            and self.workers_ended_well
        )

    def as_json(self) -> dict[str, object]:
        """Every figure, and the verdict."""
        return asdict(self) | {"sound": self.sound}


@dataclass(frozen=True, slots=True)
class ChaosProgress:
    """How far a run has come, for people."""

    ended: int
    events: int
    published: int
    kills: int
    now: str


class ChaosRun:
    """One run; `tell` hears how far it has come."""

    def __init__(self, options: Options, tell: Callable[[ChaosProgress], None] = lambda _: None) -> None:
        self._options = options
        self._tell = tell
        photographs = photographs_in(options.photographs)
        (options.folder / "bad").mkdir(parents=True)
        self._planned = plan(options.seed, options.events, photographs, options.folder / "bad")
        self._ledger = Ledger(self._planned)
        self._layout = topology(options.amqp.queue_prefix, RETRY_DELAYS_S)
        self._client = Client(options.amqp, self._layout, self._planned, self._ledger)
        self._workers = [Worker(options.folder / f"worker-{n}", self._environment()) for n in range(options.workers)]
        self._restarts: set[asyncio.Task[None]] = set()
        self._kills: Counter[Kind] = Counter()
        self._left_out: dict[Kind, str] = {}
        self._now = "starting"

    async def run(self) -> Report:
        """Run to the end. Raises TryLater when it cannot even begin."""
        began_s = time.monotonic()
        blows = schedule(self._options.seed, self._options.events, self._options.kinds)
        try:
            await self._begin()
            client = asyncio.create_task(self._client.run())
            try:
                await self._strike_all(blows)
                await self._wait_for_the_rest()
            finally:
                client.cancel()
                await asyncio.gather(client, return_exceptions=True)
            ended_well = await self._end()
        finally:
            for worker in self._workers:
                if worker.process is not None and worker.running:
                    worker.process.kill()
                    worker.process.wait()
        return self._report(blows, ended_well, time.monotonic() - began_s)

    async def delete_queues(self) -> None:
        """Take away what was declared for this run alone."""
        async with connected(self._options.amqp, "autotag-chaos") as link:
            channel = await link.channel()
            for queue in self._layout.queues:
                await channel.call(channel.raw.queue_delete, queue=queue.name, doing=f"deleting {queue.name}")
            for exchange in self._layout.exchanges:
                await channel.call(
                    channel.raw.exchange_delete, exchange=exchange.name, doing=f"deleting {exchange.name}"
                )

    @property
    def layout(self) -> Topology:
        """The queues of this run."""
        return self._layout

    def _environment(self) -> dict[str, str]:
        options = self._options
        roots = [str(options.photographs.resolve()), str((options.folder / "bad").resolve())]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AUTOTAG_") or name == "AUTOTAG_CACHE_DIR"
        }
        amqp = options.amqp
        secrets = {} if amqp.password is None else {"AUTOTAG_AMQP__PASSWORD": amqp.password.get_secret_value()}
        named = {
            f"AUTOTAG_AMQP__{name.upper()}": str(value)
            for name in ("username", "ca_file", "cert_file", "key_file")
            if (value := getattr(amqp, name)) is not None
        }
        return (
            kept
            | SETTINGS
            | secrets
            | named
            | {
                "AUTOTAG_AMQP__URL": amqp.url.get_secret_value(),
                "AUTOTAG_AMQP__QUEUE_PREFIX": amqp.queue_prefix,
                "AUTOTAG_SOURCES__PATH_ROOTS": json.dumps(roots),
                "AUTOTAG_TENSORFLOW__MODEL": options.model,
            }
        )

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _begin(self) -> None:
        for worker in self._workers:
            worker.start()
        deadline_s = time.monotonic() + _READY_WITHIN_S
        for worker in self._workers:
            while (status := await worker.status()) is None or not status.ready:
                if not worker.running or time.monotonic() > deadline_s:
                    raise TryLater(f"a worker did not become ready; it said: {worker.last_words}", reason="not_ready")
                self._progress()
                await asyncio.sleep(0.2)
        if self._options.broker_settled is not None:
            await self._options.broker_settled()

    async def _strike_all(self, blows: Sequence[Blow]) -> None:
        for blow in blows:
            self._now = f"next: {blow.kind.value.replace('_', ' ')}"
            await self._ended_at_least(blow.after)
            if blow.kind in self._left_out:
                continue
            deadline_s = time.monotonic() + _STRIKE_WITHIN_S
            while not await self._strike(blow):
                if time.monotonic() > deadline_s or blow.kind in self._left_out:
                    break  # the count of kills will tell
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                self._kills[blow.kind] += 1
            self._progress()

    async def _strike(self, blow: Blow) -> bool:
        """Strike once; whether the blow fell upon something that lived, and hurt it."""
        if blow.kind is Kind.BROKER:
            assert self._options.broker_blow is not None  # noqa: S101 - otherwise no such blow is in the schedule
            return await self._options.broker_blow(blow.pause_s)
        alive = [worker for worker in self._workers if worker.running]
        if not alive:
            return False
        worker = alive[int(blow.pick * len(alive))]
        match blow.kind:
            case Kind.PARENT:
                return await self._kill_parent(worker, blow.pause_s)
            case Kind.CONNECTION:
                return await self._cut(worker)
        pids = await worker.children("model" if blow.kind is Kind.MODEL_CHILD else "decoder")
        return bool(pids) and await kill_child(pids[int(blow.pick * len(pids))])

    async def _kill_parent(self, worker: Worker, pause_s: float) -> bool:
        status = await worker.status()
        if status is None or not status.events_in_hand:
            return False  # strike when it has something to lose
        if not await worker.kill():
            return False
        restart = asyncio.create_task(self._restart(worker, pause_s))
        self._restarts.add(restart)
        restart.add_done_callback(self._restarts.discard)
        return True

    async def _restart(self, worker: Worker, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        worker.start()

    async def _cut(self, worker: Worker) -> bool:
        status = await worker.status()
        if status is None or not status.events_in_hand or worker.process is None:
            return False
        try:
            return cut_connections(worker.process.pid, address(self._options.amqp).port) > 0
        except PermissionError as error:
            self._left_out[Kind.CONNECTION] = f"this kernel does not let connections be cut from outside ({error})"
            return False

    async def _ended_at_least(self, number: int) -> None:
        """Wait until so many events have ended, or nothing moves any more."""
        ended, moved_at_s = self._ledger.ended, time.monotonic()
        while self._ledger.ended < number:
            self._progress()
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._ledger.ended > ended:
                ended, moved_at_s = self._ledger.ended, time.monotonic()
            elif time.monotonic() - moved_at_s > self._options.patience_s:
                return

    async def _wait_for_the_rest(self) -> None:
        self._now = "waiting for the rest"
        await self._ended_at_least(self._options.events)
        if self._restarts:
            await asyncio.wait(self._restarts)
        # What was done twice may still be on its way; it must not differ.
        await asyncio.sleep(2.0)

    async def _end(self) -> bool:
        """Stop the workers in order; whether all of them ended well."""
        self._now = "stopping the workers"
        self._progress()
        statuses = await asyncio.gather(*(worker.stop(SHUTDOWN_GRACE_S + 5) for worker in self._workers))
        return all(status == 0 for status in statuses)

    def _progress(self) -> None:
        self._tell(
            ChaosProgress(
                self._ledger.ended,
                self._options.events,
                self._client.published,
                sum(self._kills.values()),
                self._now,
            )
        )

    def _report(self, blows: Sequence[Blow], ended_well: bool, took_s: float) -> Report:
        ledger = self._ledger
        planned = Counter(blow.kind for blow in blows if blow.kind not in self._left_out)
        return Report(
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
            left_out={kind.value: why for kind, why in self._left_out.items()},
            workers_ended_well=ended_well,
            seconds=round(took_s, 1),
            lost_ids=ledger.lost[:20],
        )
