"""Takes the results of one connection from their queue and has each written, waiting, set aside, or passed over.

A result is acked once its tags stand in the target, or once what replaces it is confirmed. What concerns the target as
a whole (it is down, it lets us in no more) pauses everything: results then wait in their queue, and the target is asked
something harmless now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog
from pydantic import ValidationError

from worker.amqp.delivery import Delivery
from worker.amqp.result_queue import ResultQueue
from worker.amqp.result_topology import ResultTopology, result_topology
from worker.connect.ledger import OwnTag, TagLedger
from worker.connect.mapping import JsonQuery, Missing
from worker.connect.pace import Pace
from worker.connect.target_metrics import TargetMetrics
from worker.connect.targets.base import AssetGone, Rejected, Target, TargetBusy, TargetRefused
from worker.connect.targets.client import TargetClient
from worker.connect.targets.request import RequestTarget
from worker.connect.targets.s3 import S3Target
from worker.connect.write import WRITTEN_STATUSES, AssetWriter, ResultTimes
from worker.errors import AutotagError, ResourceExhausted
from worker.messages.results import Result, ResultEvent
from worker.settings import ConnectionSettings, Settings

_log = structlog.get_logger(__name__)

READ_BACK_HEADER: Final = "x-autotag-read-back"
"""How often the asset of a result was looked at once more after its write."""
SETTLED_HEADER: Final = "x-autotag-settled"
"""On a result that has waited `settle_s` already."""
_FAILURES_TO_PAUSE: Final = 5
"""One after the other, without a success."""
_FIRST_PROBE_S: Final = 2.0
_LONGEST_PROBE_S: Final = 300.0
_LONGEST_HOLD_S: Final = 60.0
_MAXIMUM_REFUSED: Final = 1000
_PREFETCH_EACH: Final = 4
_FORBIDDEN: Final = "forbidden"


@dataclass(frozen=True, slots=True)
class TargetPause:
    """Why nothing is written to a target. `since_s` is since the epoch."""

    reason: str
    message: str
    since_s: float


@dataclass(frozen=True, slots=True)
class TargetState:
    """What is shown of a target, and decides whether the connector is ready."""

    connection: str
    origin: str
    pause: TargetPause | None
    broker_fault: str | None
    """Why no results arrive; None while they can."""
    ledger_fault: str | None
    in_hand: int
    last_write_s: float | None
    """Since the epoch."""
    totals: Mapping[str, int]
    """Results by what became of them since the start, and the tags that people removed (`removed_by_people`)."""

    @property
    def is_ready(self) -> bool:
        """Whether results are written."""
        return self.pause is None and self.broker_fault is None


class _Read(NamedTuple):
    """A result that can be read."""

    result: Result
    times: ResultTimes
    belongs: bool


class Deliverer:
    """One connection's target, for as long as `run` runs."""

    def __init__(
        self, name: str, settings: Settings, target: Target, ledger: TagLedger, metrics: TargetMetrics
    ) -> None:
        self.name = name
        self._connection = settings.connect[name]
        self._settings = self._connection.target
        self._delays_s = settings.connector.delays_s
        self._maximum_attempts = settings.retry.maximum_number_of_attempts
        self._target = target
        self._ledger = ledger
        metrics.watch(ledger)
        self._metrics = metrics.of(name)
        self._writer = AssetWriter(name, target, ledger, self._settings.most_tags, self)
        accept = self._settings.accept
        self._accept = JsonQuery(accept, f"connect.{name}.target.accept") if accept is not None else None
        self._pace = Pace(self._settings.writes_per_s)
        self._places = asyncio.Semaphore(self._settings.at_once)
        self._assets: dict[str, _AssetTurn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._layout = topology_of(settings, name)
        self._queue = ResultQueue(
            settings.amqp,
            self._layout,
            _PREFETCH_EACH * self._settings.at_once,
            self._on_result,
        )
        self._pause: TargetPause | None = None
        self._probing: asyncio.Task[None] | None = None
        self._failures = 0
        self._refusals = 0
        """Pauses one after the other, without a success."""
        self._successes = 0
        self._refused: OrderedDict[str, int] = OrderedDict()
        """How many successes there had been when an asset was refused."""
        self._last_write_s: float | None = None

    @property
    def state(self) -> TargetState:
        """A snapshot."""
        return TargetState(
            self.name,
            self._target.origin,
            self._pause,
            None if self._pause is not None else self._queue.fault,
            self._ledger.fault,
            len(self._tasks),
            self._last_write_s,
            dict(self._metrics.totals),
        )

    @property
    def queue(self) -> str:
        """Where its results wait."""
        return self._layout.queue

    async def run(self) -> None:
        """Take results until cancelled; what is being written then is given up, and done again after the next start."""
        try:
            await self._queue.run()
        finally:
            tasks = {*self._tasks, *((self._probing,) if self._probing is not None else ())}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await self._target.close()

    # What the writer counts

    def on_removed_by_people(self, tags: Any) -> None:
        """See `WriteObserver`."""
        for tag in tags:
            self._metrics.on_removed_by_people(tag.label, tag.provider)
        _log.info(
            "people have removed tags of ours",
            connection=self.name,
            tags=[_shown(tag) for tag in tags],
            number=len(tags),
        )

    def on_change(self, added: int, removed: int) -> None:
        """See `WriteObserver`."""
        self._last_write_s = time.time()
        self._metrics.on_tags(added, removed)

    # One result

    def _on_result(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._handle(delivery), name=f"result for {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            read = self._read(delivery)
        except ValueError as error:
            message = f"this is no result that can be read: {_first_line(error)}"
            await self._dead_letter(delivery, "result_unreadable", message, asset=None, instance=None)
            return
        if not read.belongs:
            self._end(delivery, "foreign")
        elif read.result.status not in WRITTEN_STATUSES:
            self._end(delivery, read.result.status)
        else:
            async with self._turn_of(read.result.asset_id), self._places:
                if not delivery.lost:
                    await self._write_or_decide(delivery, read.result, read.times)

    def _read(self, delivery: Delivery) -> _Read:
        event = ResultEvent.model_validate_json(delivery.body)
        result = event.data
        belongs = result.instance == self._connection.instance and (
            (result.context or {}).get("connect") == self.name or self._accepts(event)
        )
        return _Read(result, ResultTimes.of(result, event.time), belongs)

    def _accepts(self, event: ResultEvent) -> bool:
        if self._accept is None:
            return False
        try:
            return bool(self._accept.find(event.model_dump(mode="json")["data"]))
        except Missing:
            return False

    async def _write_or_decide(self, delivery: Delivery, result: Result, times: ResultTimes) -> None:
        """Write, or do what the error asks for."""
        try:
            await self._write(delivery, result, times)
        except AssetGone as error:
            self._on_success(result.asset_id)
            _log.info("the asset is gone", connection=self.name, asset=result.asset_id, why=str(error))
            self._end(delivery, "gone")
        except TargetRefused as error:
            await self._on_refusal(delivery, result, error)
        except TargetBusy as error:
            await self._on_busy(delivery, result, error)
        except Rejected as error:
            self._on_success(result.asset_id)
            await self._set_aside(delivery, result, error)
        except ResourceExhausted as error:
            await self._on_busy(delivery, result, TargetBusy(str(error), reason=error.reason))
        except Exception as error:  # noqa: BLE001 - a bug of ours must cost one result its place, not all their process
            _log.exception("unexpected error while a result was written", connection=self.name, asset=result.asset_id)
            failure = Rejected(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
            await self._set_aside(delivery, result, failure)

    async def _write(self, delivery: Delivery, result: Result, times: ResultTimes) -> None:
        if self._writer.is_older(result, times):
            self._end(delivery, "older")
            return
        settled_in_s = times.result_s + self._settings.settle_s - time.time()
        has_waited = SETTLED_HEADER in delivery.headers or delivery.attempt > 1
        if settled_in_s > 0 and self._settings.settle_s and not has_waited:
            delay_s = min(settled_in_s, self._settings.settle_s)
            await self._wait(delivery, "waits", delay_s, {SETTLED_HEADER: 1}, delivery.attempt)
            return
        await self._pace.turn()
        began_s = time.monotonic()
        plan = await self._writer.plan(result, times)
        looked = _number(delivery.headers.get(READ_BACK_HEADER))
        read_back_s = self._settings.read_back_s
        again = looked < len(read_back_s) and plan.merged.is_write
        await self._writer.write(plan, is_final=not again)
        self._on_success(result.asset_id)
        self._metrics.on_write(time.monotonic() - began_s, time.time() - times.result_s)
        if again:
            self._metrics.on_outcome("written")
            headers = {READ_BACK_HEADER: looked + 1, SETTLED_HEADER: 1}
            await self._queue.wait_longer(delivery, read_back_s[looked], headers, delivery.attempt)
        else:
            self._end(delivery, "written" if plan.merged.is_write else "unchanged")

    async def _wait(
        self, delivery: Delivery, outcome: str, delay_s: float, headers: Mapping[str, object], attempt: int
    ) -> None:
        """The outcome is counted once RabbitMQ has it: a delivery lost before comes again, and has its outcome then."""
        if await self._queue.wait_longer(delivery, delay_s, headers, attempt):
            self._metrics.on_outcome(outcome)

    def _end(self, delivery: Delivery, outcome: str) -> None:
        self._metrics.on_outcome(outcome)
        if not delivery.lost:
            delivery.ack()

    # What a target answers

    def _on_success(self, asset: str) -> None:
        self._failures = self._refusals = 0
        self._successes += 1
        self._refused.pop(asset, None)

    async def _on_busy(self, delivery: Delivery, result: Result, error: TargetBusy) -> None:
        """One asset's failure is an attempt. While all fail it is none: an outage may last."""
        is_assets_own = self._failures == 0
        self._failures += 1
        if error.after_s:
            self._pace.hold(min(error.after_s, _LONGEST_HOLD_S))
        if self._failures >= _FAILURES_TO_PAUSE:
            self._begin_pause(error)
        await self._later(delivery, result, error, counts=is_assets_own)

    async def _later(self, delivery: Delivery, result: Result, error: TargetBusy, *, counts: bool) -> None:
        attempt = delivery.attempt
        if counts and attempt >= self._maximum_attempts:
            await self._set_aside(delivery, result, error)
            return
        delay_s = max(self._delays_s[min(attempt, len(self._delays_s)) - 1], error.after_s)
        _log.info(
            "a write is made later", connection=self.name, asset=result.asset_id, why=str(error), reason=error.reason
        )
        await self._wait(delivery, "later", delay_s, {}, attempt + counts)

    async def _on_refusal(self, delivery: Delivery, result: Result, error: TargetRefused) -> None:
        """Pause. But an asset that alone is refused while others are written does not stop these."""
        asset = result.asset_id
        if error.reason == _FORBIDDEN and self._refused.get(asset, self._successes) < self._successes:
            busy = TargetBusy(f"this asset alone is refused: {error}", reason="asset_forbidden")
            await self._later(delivery, result, busy, counts=True)
            return
        self._refused.setdefault(asset, self._successes)
        if len(self._refused) > _MAXIMUM_REFUSED:
            self._refused.popitem(last=False)
        self._metrics.on_outcome("refused")
        self._begin_pause(error)

    async def _set_aside(self, delivery: Delivery, result: Result, error: AutotagError) -> None:
        message = f"the tags of asset {result.asset_id} were not written to {self._target.origin}: {error}"
        _log.warning(
            "a result is set aside", connection=self.name, asset=result.asset_id, reason=error.reason, why=message
        )
        await self._dead_letter(delivery, error.reason, message, asset=result.asset_id, instance=result.instance)

    async def _dead_letter(
        self, delivery: Delivery, reason: str, message: str, *, asset: str | None, instance: str | None
    ) -> None:
        if await self._queue.dead_letter(delivery, reason, message, asset=asset, instance=instance):
            self._metrics.on_outcome("dead_letter")

    def _begin_pause(self, error: TargetBusy | TargetRefused) -> None:
        """All that is in hand goes back to the queue; until the target answers a probe nothing is taken."""
        if self._pause is not None:
            return
        self._pause = TargetPause(error.reason, str(error), time.time())
        self._metrics.on_pause(error.reason)
        _log.error(
            "nothing is written to the target for now", connection=self.name, reason=error.reason, why=str(error)
        )
        after_s = error.after_s if isinstance(error, TargetBusy) else 0.0
        self._queue.pause()
        self._probing = asyncio.create_task(self._probe(after_s), name=f"probe of {self.name}")

    async def _probe(self, after_s: float) -> None:
        pause_s = max(after_s, min(_LONGEST_PROBE_S, _FIRST_PROBE_S * 2.0 ** min(self._refusals, 10)))
        self._refusals += 1
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._target.probe()
            except AutotagError as error:
                since_s = self._pause.since_s if self._pause is not None else time.time()
                self._pause = TargetPause(error.reason, str(error), since_s)
                self._metrics.on_pause(error.reason)
                pause_s = min(_LONGEST_PROBE_S, 2 * pause_s)
            else:
                break
        _log.info("the target is tried again", connection=self.name)
        self._pause, self._probing, self._failures = None, None, 0
        self._metrics.on_pause(None)
        self._queue.resume()

    @asynccontextmanager
    async def _turn_of(self, asset: str) -> Any:
        """One asset's results are written one after the other."""
        turn = self._assets.setdefault(asset, _AssetTurn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._assets[asset]


class _AssetTurn:
    """Who waits for one asset."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


def topology_of(settings: Settings, name: str) -> ResultTopology:
    """The queues of a connection."""
    connection = settings.connect[name]
    target = connection.target
    further = [*target.read_back_s, *([target.settle_s] if target.settle_s else [])]
    delays_s = [*settings.connector.delays_s, *further]
    return result_topology(settings.amqp.queue_prefix, name, connection.instance, delays_s)


def make_target(name: str, settings: Settings) -> Target:
    """The target of a connection. Raises Misconfigured."""
    connection: ConnectionSettings = settings.connect[name]
    client = TargetClient(name, connection, settings.sources)
    if connection.target.kind == "s3":
        return S3Target(connection.target, settings.sources.s3[connection.s3 or ""], client)
    return RequestTarget(name, connection, client)


def _shown(tag: OwnTag) -> str:
    return f"{tag.label} ({tag.provider})" if tag.provider else tag.label


def _number(header: object) -> int:
    return header if isinstance(header, int) and not isinstance(header, bool) else 0


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)[:200]
