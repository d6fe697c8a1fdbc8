"""The chaos run: starts workers, publishes, injects the scheduled faults, waits until every event has ended, counts."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from worker.amqp.connection import connected
from worker.amqp.parameters import addresses
from worker.amqp.topology import Topology, topology
from worker.diagnostics.chaos.client import ChaosClient
from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.processes import (
    WorkerProcess,
    children_at_work,
    cut_connections,
    kill_child,
    model_pids,
)
from worker.diagnostics.chaos.report import ChaosReport, report_of
from worker.diagnostics.chaos.schedule import Fault, FaultKind, schedule
from worker.diagnostics.chaos.undisturbed import known_labels
from worker.diagnostics.chaos.workload import PlannedEvent, Tenant, photographs_in, plan, tenants
from worker.errors import TryLater
from worker.operations.health.status import Status
from worker.providers.base import TENSORFLOW
from worker.settings import AmqpSettings, load_settings

RETRY_DELAYS_S = (0.3, 0.7)
SHUTDOWN_GRACE_S = 20.0

SETTINGS: Mapping[str, Any] = {
    "amqp": {"reconnect_max_s": 2, "connection_timeout_s": 3},
    # An endpoint in a test is a stand-in on this machine.
    "cloud": {
        "allow_private_endpoints": True,
        "allow_plain_http_endpoints": True,
        "retry_minimum_wait_s": 0.05,
        "retry_maximum_wait_s": 0.5,
        "circuit_open_s": 0.5,
    },
    "decoder": {"children": 1},
    "http": {"enabled": False},
    "log": {"format": "json"},
    "retry": {"delays_s": RETRY_DELAYS_S, "maximum_number_of_attempts": 8},
    "shutdown_grace_s": SHUTDOWN_GRACE_S,
    # The relaunch rule is on, in seconds instead of a minute. A kill waits until the rule would relaunch; but for
    # those of `model_disabled`.
    "tensorflow": {
        "maximum_number_of_relaunches": 3,
        "maximum_number_of_relaunches_time_interval": 10,
        "threads": 1,
    },
}
"""The workers' settings: minutes have become seconds. The operator's own are used for the connection to the broker."""

_NO_SETTINGS = "no-settings"
"""An empty file, read in place of the operator's: their tenants, keys and budgets are none of this run's business."""

_READY_TIMEOUT_S = 180.0
_FAULT_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.05

_AHEAD = 400
"""At most so many events are published beyond those after which the next fault is due, and a tenth of all."""

_AT_WORK = 30
"""While a fault that is due finds nothing to hit, so many events are kept going: some may only wait for a retry."""

_PUBLISHED_WHILE_DISABLED = 20
"""Of these, those of the tenants that have nothing but the model must wait for the reset."""


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
    google_endpoint: str | None = None
    """A stand-in for Google Cloud Vision, which accepts `workload.GOOGLE_KEY`. None: it takes no part."""
    microsoft_endpoint: str | None = None
    """A stand-in for Microsoft's vision service, which accepts `workload.MICROSOFT_KEY`. None: it takes no part."""
    served: str | None = None
    """The address under which the directory of photographs can be fetched. None: no event has a URL."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What photographs are known to show, by file name: labels that the local model has to give undisturbed."""
    left_out: frozenset[FaultKind] = frozenset()
    """Kinds of faults that are not asked for."""
    stall_timeout_s: float = 120.0
    """When no event has ended for this long, those that have not are lost."""
    restart_broker: Callable[[float], Awaitable[bool]] | None = None
    """Kills the broker, and starts it again after the given seconds; returns whether it was killed. None: no kills."""
    on_declared: Callable[[], Awaitable[None]] | None = None
    """Awaited once the queues are declared, before the first event is published."""

    @property
    def kinds(self) -> list[FaultKind]:
        """The kinds of faults that are asked for."""
        unasked = self.left_out if self.restart_broker else self.left_out | {FaultKind.BROKER}
        return [kind for kind in FaultKind if kind not in unasked]

    @property
    def not_asked_for(self) -> dict[FaultKind, str]:
        """Why a kind of fault that could be injected is not: such a run is not sound."""
        return dict.fromkeys(sorted(self.left_out), "it was left out on request")

    @property
    def tenants(self) -> tuple[Tenant, ...]:
        """The tenants that take part."""
        return tenants(self.google_endpoint, self.microsoft_endpoint)

    @property
    def missing(self) -> list[str]:
        """Who takes no part because nobody named it, in words: such a run is not complete."""
        optional = {
            "Google Cloud Vision": self.google_endpoint,
            "Microsoft's vision service": self.microsoft_endpoint,
            "images fetched by URL": self.served,
        }
        missing = [name for name, given in optional.items() if given is None]
        return missing if self.restart_broker else [*missing, "kills of RabbitMQ (`make chaos` kills one)"]


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
        self._photographs = photographs_in(options.photographs)
        (options.folder / "bad").mkdir(parents=True)
        (options.folder / _NO_SETTINGS).touch()
        self._topology = topology(options.amqp.queue_prefix, RETRY_DELAYS_S)
        self._planned: list[PlannedEvent] = []
        self._ledger = Ledger([])
        self._client = ChaosClient(options.amqp, self._topology, [], self._ledger)
        self._workers = [
            WorkerProcess(options.folder / f"worker-{n}", self._environment()) for n in range(options.workers)
        ]
        self._restarts: set[asyncio.Task[None]] = set()
        self._kills: Counter[FaultKind] = Counter()
        self._impossible: dict[FaultKind, str] = {}
        self._waited = 0
        self._now = "starting"

    async def run(self) -> ChaosReport:
        """Run to the end. Raises TryLater when a worker does not become ready, Misconfigured for the photographs."""
        began_s = time.monotonic()
        options = self._options
        faults = schedule(options.seed, options.events, options.kinds)
        try:
            await self._plan()
            await self._start_workers()
            self._ledger.begin(time.monotonic())
            client = asyncio.create_task(self._client.run())
            load = asyncio.create_task(self._load(faults))
            try:
                await asyncio.wait({client, load}, return_when=asyncio.FIRST_COMPLETED)
                for task in (client, load):
                    if task.done():
                        task.result()  # the client ends only by a fault of its own
            finally:
                for task in (client, load):
                    task.cancel()
                await asyncio.gather(client, load, return_exceptions=True)
            exit_statuses = await self._stop_workers()
        finally:
            for restart in self._restarts:
                restart.cancel()
            for worker in self._workers:
                if worker.process is not None and worker.running:
                    worker.process.kill()
                    worker.process.wait()
        return report_of(
            seed=options.seed,
            ledger=self._ledger,
            planned=self._planned,
            kills=self._kills,
            kills_planned=Counter(fault.kind for fault in faults),
            impossible=options.not_asked_for | self._impossible,
            missing=options.missing,
            waited_while_disabled=self._waited,
            exit_statuses=exit_statuses,
            seconds=time.monotonic() - began_s,
        )

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
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AUTOTAG_") or name == "AUTOTAG_CACHE_DIR"
        }
        amqp = options.amqp
        password = None if amqp.password is None else amqp.password.get_secret_value()
        connection = {
            name: str(value)
            for name in ("username", "ca_file", "cert_file", "key_file")
            if (value := getattr(amqp, name)) is not None
        }
        sources: dict[str, Any] = {
            "path_roots": [str(options.photographs.resolve()), str((options.folder / "bad").resolve())]
        }
        if options.served is not None:
            sources |= {
                "url_allowed_hosts": [urlsplit(options.served).netloc],
                "url_allow_private_addresses": True,
            }
        own = {
            "amqp": {"url": amqp.url.get_secret_value(), "queue_prefix": amqp.queue_prefix}
            | connection
            | ({} if password is None else {"password": password}),
            "sources": sources,
            "tensorflow": {"model": options.model},
            "instances": {tenant.name: tenant.settings for tenant in options.tenants},
        }
        nothing = str(options.folder / _NO_SETTINGS)
        return (
            inherited
            | {"AUTOTAG_CONFIG": nothing, "AUTOTAG_ENV_FILE": nothing}
            | dict(_variables(SETTINGS))
            | dict(_variables(own))
        )

    # ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _plan(self) -> None:
        """Find out how each photograph is tagged undisturbed, and decide on every event."""
        options = self._options
        self._now = "tagging the photographs undisturbed"
        self._report_progress()
        alone = self._environment() | {"AUTOTAG_STATE_DIR": str(options.folder / "undisturbed")}
        settings = load_settings(environ=alone, directory=options.folder).settings
        known = await known_labels(settings, options.tenants, self._photographs, options.labels)
        bad = options.folder.resolve() / "bad"
        self._planned = plan(options.seed, options.events, options.tenants, known, bad, options.served)
        self._ledger = Ledger(self._planned)
        self._client = ChaosClient(options.amqp, self._topology, self._planned, self._ledger)

    async def _start_workers(self) -> None:
        self._now = "starting the workers"
        for worker in self._workers:
            worker.start()
        await self._wait_until_ready()
        if self._options.on_declared is not None:
            await self._options.on_declared()

    async def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        for worker in self._workers:
            while (status := await worker.status()) is None or not status.ready:
                if not worker.running or time.monotonic() > deadline_s:
                    raise TryLater(f"a worker did not become ready; it said: {worker.log_tail}", reason="not_ready")
                self._report_progress()
                await asyncio.sleep(0.2)

    async def _load(self, faults: Sequence[Fault]) -> None:
        await self._inject_all(faults)
        await self._wait_for_all_events()

    async def _inject_all(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._now = f"next: {fault.kind.value.replace('_', ' ')}"
            # The events run out only after the last fault: each must find some that have not ended.
            self._publish_up_to(fault.after_events + min(_AHEAD, self._options.events // 10))
            await self._wait_until_ended(fault.after_events)
            if await self._inject_in_time(fault):
                self._kills[fault.kind] += 1
            self._report_progress()
        self._publish_up_to(self._options.events)

    async def _inject_in_time(self, fault: Fault) -> bool:
        """Inject a fault, as soon as there is something to inject it into; the report counts those that were."""
        deadline_s = time.monotonic() + _FAULT_TIMEOUT_S
        while fault.kind not in self._impossible and time.monotonic() < deadline_s:
            if await self._inject(fault):
                return True
            if self._client.published - self._ledger.ended < _AT_WORK:  # too little is left to be hit
                self._publish_up_to(self._client.published + 2)
            self._report_progress()
            await asyncio.sleep(_POLL_INTERVAL_S)
        return False

    def _publish_up_to(self, number: int) -> None:
        self._client.limit = min(self._options.events, max(self._client.limit, number))

    async def _inject(self, fault: Fault) -> bool:
        """Inject a fault; returns whether it took effect on a running target."""
        match fault.kind:
            case FaultKind.BROKER:
                assert self._options.restart_broker is not None  # noqa: S101 - otherwise no such fault is scheduled
                return await self._options.restart_broker(fault.pause_s)
            case FaultKind.MODEL_DISABLED:
                return await self._disable_models()
        candidates = [(worker, status) for worker, status in await self._statuses() if _may_be_hit(fault.kind, status)]
        if not candidates:
            return False
        worker, status = candidates[int(fault.pick * len(candidates))]
        match fault.kind:
            case FaultKind.PARENT:
                return await self._kill_parent(worker, fault.pause_s)
            case FaultKind.CONNECTION:
                return self._cut_connection(worker)
        pids = children_at_work(status, _CHILD_OF[fault.kind])
        return await kill_child(pids[int(fault.pick * len(pids))])

    async def _statuses(self) -> list[tuple[WorkerProcess, Status]]:
        """The workers that run and reply, with their status."""
        found = [(worker, await worker.status()) for worker in self._workers if worker.running]
        return [(worker, status) for worker, status in found if status is not None]

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
            self._impossible[FaultKind.CONNECTION] = reason
            return False

    async def _disable_models(self) -> bool:
        """Kill every worker's model until the rule disables it, see that events wait, and reset as an operator would.

        Returns whether all were disabled at once, and events that only the model can answer waited for the reset.
        """
        if self._restarts:
            await asyncio.wait(self._restarts)
        deadline_s = time.monotonic() + _FAULT_TIMEOUT_S
        # An event with two providers is answered by the other one meanwhile. One that had been answered by both, and
        # comes again because of an earlier fault, would then have two ends that are both right.
        self._now = "waiting for what earlier faults have left"
        await self._poll(self._is_idle, deadline_s)
        await asyncio.sleep(max(RETRY_DELAYS_S))  # a second copy of an event may have been waiting for a retry
        await self._poll(self._is_idle, deadline_s)
        self._now = "killing models until they are disabled"
        deadline_s = time.monotonic() + _FAULT_TIMEOUT_S
        await asyncio.gather(*(self._disable_model(worker, deadline_s) for worker in self._workers))
        statuses = await self._statuses()
        all_disabled = len(statuses) == len(self._workers) and all(_disabled(status) for _, status in statuses)
        self._now = "waiting for an operator to reset the models"
        self._publish_up_to(self._client.published + _PUBLISHED_WHILE_DISABLED)
        await self._poll(self._is_published, deadline_s)
        await asyncio.sleep(2 * max(RETRY_DELAYS_S))  # also those that come back by a retry queue have to go on waiting
        local = [each.event_id for each in self._planned if set(each.expected.labels) == {TENSORFLOW}]
        waiting = self._client.waiting(local)
        for worker, _ in statuses:
            await worker.reset()
        self._waited += len(waiting)
        self._now = "waiting for the events that waited"
        await self._poll(self._is_idle, deadline_s)
        return all_disabled and bool(waiting)

    async def _is_idle(self) -> bool:
        statuses = await self._statuses()
        in_hand = sum(status.events_in_hand for _, status in statuses)
        return not in_hand and self._client.published == self._ledger.ended and len(statuses) == len(self._workers)

    async def _is_published(self) -> bool:
        return self._client.published >= self._client.limit

    async def _poll(self, condition: Callable[[], Awaitable[bool]], deadline_s: float) -> None:
        """Return when `condition` holds, or at the deadline: what is missing then shows in the report."""
        while time.monotonic() < deadline_s and not await condition():
            self._report_progress()
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def _disable_model(self, worker: WorkerProcess, deadline_s: float) -> None:
        """Kill the model of one worker as often as it is launched, until it is launched no more."""
        killed: set[int] = set()
        while time.monotonic() < deadline_s:
            status = await worker.status()
            if status is not None and _disabled(status):
                return
            for pid in model_pids(status) if status is not None else ():
                if pid not in killed and await kill_child(pid):
                    killed.add(pid)
            self._report_progress()
            await asyncio.sleep(_POLL_INTERVAL_S / 2)

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
        # A worker that was started last may not listen for signals yet: SIGTERM would end it without a status.
        await self._poll(self._all_reply, time.monotonic() + _READY_TIMEOUT_S)
        # Duplicates may still be on their way; they must be counted too, since they must not differ.
        await asyncio.sleep(2.0)

    async def _all_reply(self) -> bool:
        return len(await self._statuses()) == len(self._workers)

    async def _stop_workers(self) -> list[int | None]:
        """Stop all workers; returns their exit statuses, None for one that had to be killed."""
        self._now = "stopping the workers"
        self._report_progress()
        return await asyncio.gather(*(worker.stop(SHUTDOWN_GRACE_S + 5) for worker in self._workers))

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


_CHILD_OF = {FaultKind.MODEL_CHILD: "model", FaultKind.DECODER: "decoder"}


def _may_be_hit(kind: FaultKind, status: Status) -> bool:
    """Whether a worker is a target: it has something to lose, and would recover by itself."""
    if kind in (FaultKind.PARENT, FaultKind.CONNECTION):
        return status.events_in_hand > 0
    if kind is FaultKind.MODEL_CHILD and (status.model is None or not status.model.relaunches_left):
        return False  # the rule would disable it
    return bool(children_at_work(status, _CHILD_OF[kind]))


def _disabled(status: Status) -> bool:
    return status.model is not None and status.model.disabled is not None


def _variables(tree: Mapping[str, Any], prefix: str = "AUTOTAG") -> Iterator[tuple[str, str]]:
    """Settings as environment variables."""
    for name, value in tree.items():
        variable = f"{prefix}_{name.upper()}" if prefix == "AUTOTAG" else f"{prefix}__{name.upper()}"
        if isinstance(value, Mapping):
            yield from _variables(value, variable)
        else:
            yield variable, value if isinstance(value, str) else json.dumps(value)
