"""`autotag run`: builds the parts, and owns the order in which they start and stop.

Whether events are taken is decided by `Intake`, and by the broker about itself. Health checks, metrics and the control
socket answer from the first moment, also while the first model is still being built.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime

import structlog

from worker.amqp.broker import Broker
from worker.amqp.delivery import Delivery
from worker.amqp.in_hand import InHand, lane_prefetch
from worker.amqp.state import BrokerPause, BrokerState
from worker.amqp.topology import topology
from worker.engine import Active, Engine, needs_new_engine, open_engine, require_tasks
from worker.errors import AutotagError, CannotBeDone, Unavailable
from worker.models.staging import ModelProgress
from worker.operations.control import ControlServer
from worker.operations.descriptors import make_room
from worker.operations.health.canary import Canary
from worker.operations.health.connector_report import ConnectorReport, ConnectorReports
from worker.operations.health.intake import Intake
from worker.operations.health.monitor import HealthMonitor
from worker.operations.health.readiness import consuming_state, status_of
from worker.operations.health.status import Health, Pause, Status
from worker.operations.health.systemd import Notifier
from worker.operations.history import History
from worker.operations.history.thumbnails import Thumbnails
from worker.operations.history.writer import HistoryWriter
from worker.operations.metrics import Metrics
from worker.operations.metrics.cloud import AccountView
from worker.operations.tracing.otel import tracer_from_environment
from worker.pipeline import Pipeline
from worker.providers.checks import Severity
from worker.settings import LoadedSettings, Settings
from worker.settings.in_force import SettingsInForce, preview
from worker.settings.overlay.change import Loader
from worker.settings.schema import dotted
from worker.supervision.lifecycle import BecameDisabled, BecameReady, Notice
from worker.supervision.pool import Observer

_log = structlog.get_logger(__name__)

_ENDED_AT_ONCE = 128 + signal.SIGTERM

_CLOSING_S = 5.0
"""Kept of the grace time for closing connections and children, or half of it if that is less."""

_KILLING_S = 1.0
"""Kept of that for children that do not end when asked to."""

_LAST_S = 0.25
"""Kept of that for the end itself: what hangs even then is left to the kernel."""


def _history_writer(settings: Settings, metrics: Metrics) -> HistoryWriter | None:
    kept = settings.history
    if not kept.enabled:
        return None
    return HistoryWriter(settings.state_dir, kept.maximum_bytes, kept.maximum_age_s, metrics.history_lost)


class _HeldNotices:
    """What happens to the children of an engine that has not taken over: counted, and shown only once it has.

    Until then the status page has the children that are at work.
    """

    def __init__(self, metrics: Metrics, on_notice: Observer) -> None:
        self._metrics = metrics
        self._on_notice = on_notice
        self._ready: list[tuple[str, Notice]] | None = []

    def __call__(self, child: str, notice: Notice) -> None:
        """See `Observer`."""
        if self._ready is None:
            self._on_notice(child, notice)
            return
        self._metrics.children.on_notice(child, notice)
        if isinstance(notice, BecameReady):
            self._ready.append((child, notice))

    def release(self) -> None:
        """The engine has taken over: pass on what is held, and everything from now on."""
        ready, self._ready = self._ready or [], None
        for child, notice in ready:
            self._on_notice(child, notice)


def _fitting_prefetch(settings: Settings) -> int:
    """`amqp.prefetch`, or as many deliveries as there are file descriptors for."""
    room = make_room(settings.amqp.prefetch)
    if room.message is not None:
        _log.warning("fewer events are taken at once than amqp.prefetch says", why=room.message, prefetch=room.prefetch)
    return room.prefetch


class Service:
    """One worker: takes events until it is asked to stop. `load` reads the settings again, for a reload."""

    def __init__(self, loaded: LoadedSettings, load: Loader) -> None:
        settings = loaded.settings
        self.in_force = SettingsInForce(loaded, datetime.now(UTC))
        self.load = load
        self.metrics = Metrics()
        self.metrics.on_settings_left_out(_number_left_out(loaded))
        self.history = History(time.monotonic(), _history_writer(settings, self.metrics))
        self.active: Active | None = None
        """The settings in force with the engine built from them; None until the first engine is open."""
        lanes = lane_prefetch(_fitting_prefetch(settings))
        self.broker = Broker(
            settings.amqp,
            topology(settings.amqp.queue_prefix, settings.retry.delays_s),
            self._take,
            self._on_broker_state,
            on_lost=self._call_off,
            lanes=lanes,
        )
        self._intake = Intake(self.broker)
        self._connector_reports = ConnectorReports(self.broker.connector_status)
        self._starting_with = settings
        self._thumbnails = Thumbnails(self.history, enabled=settings.http.shows_thumbnails)
        tracer, self._flush_spans = tracer_from_environment()
        self._shares = InHand(lanes, self.metrics.deferred)
        self._pipeline = Pipeline(
            self.broker, self.metrics, self.history, self._thumbnails, self._intake, self._shares, tracer
        )
        self._canary = Canary(self.metrics.canary, settings.state_dir / "canary.json", self._paused_by_operator)
        self._monitor = HealthMonitor(self.broker, self.metrics, Notifier.from_environment(), self.history)
        self._stopping = asyncio.Event()
        self._end_by_s = math.inf
        self._preparing: ModelProgress | None = None
        self._pauses: Mapping[str, BrokerPause] = {}
        self._in_hand: dict[Delivery, asyncio.Task[object]] = {}
        self._background: set[asyncio.Task[object]] = set()
        self._reloading = asyncio.Lock()

    @property
    def settings(self) -> Settings:
        """The settings in force; before the first engine is open, those that it is opened with."""
        return self._starting_with if self.active is None else self.active.settings

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status is 0 after an orderly end.

        Raises Misconfigured when it can't begin.
        """
        require_tasks(self._starting_with)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._start_task(self.reload()))
        control = ControlServer(self.settings.control_socket, self._commands())
        async with AsyncExitStack() as stack:
            stack.callback(self._flush_spans)
            self._monitor.start()
            stack.push_async_callback(self._monitor.close)
            if self.history.writer is not None:
                self.history.writer.start(self.history.day.merge)
                stack.push_async_callback(self.history.writer.close)
            await self._listen(stack)
            await control.start()
            stack.push_async_callback(control.close)
            stack.push_async_callback(self._close)
            stack.push_async_callback(self._thumbnails.close)
            # Connected while the model is still being built, so that a wrong password is found out at once.
            await self._intake.begin()
            self._start_task(self.broker.start())
            self._start_task(self._intake.keep_current())
            self._start_task(self._canary.run_regularly())
            opening = asyncio.create_task(self._open())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                await stopping
            opening.cancel()
            await asyncio.wait({opening})
            await self._finish_what_is_in_hand()
            for task in self._background:
                task.cancel()
        _log.info("stopped")
        return 0

    async def _listen(self, stack: AsyncExitStack) -> None:
        """Health, metrics and the status page, for as long as anything runs."""
        if not self.settings.http.enabled:
            return
        # Imported here: where it is off, its memory is saved.
        from worker.http.app import DEADLINES, build_app
        from worker.http.server import HttpServer

        server = HttpServer(
            self.settings.http,
            build_app(self, self.settings.http),
            deadlines=DEADLINES,
            on_refused=self.metrics.http_connection_refused,
        )
        await server.start()
        stack.push_async_callback(server.close)

    async def _open(self) -> None:
        engine = await self._first_engine()
        self._activate(Active(self._starting_with, engine))
        self._log_provider_checks()
        await self._intake.update()
        _log.info("engine is open", providers=[each.name for each in engine.providers])

    async def _first_engine(self) -> Engine:
        """An engine for the settings as they are once it is open: they may be reloaded while a model is built."""
        while True:
            settings = self._starting_with
            engine = await open_engine(settings, self.metrics, self._on_notice, self._on_progress)
            if not needs_new_engine(settings, self._starting_with):
                return engine
            await engine.close()

    def _activate(self, active: Active) -> None:
        """Use these settings and this engine from the next event on."""
        self.active = active
        self._shares.know(name for name, each in active.settings.instances.items() if each.enabled)
        self.history.tenants.know(active.settings.by_event_name())
        self._monitor.use(active)
        self._intake.use(active)
        self._canary.use(active)

    def _log_provider_checks(self) -> None:
        """Log what the settings alone show about the providers: a key that is missing, an API that was retired."""
        for found in self.active.review_providers() if self.active else ():
            log = _log.error if found.severity is Severity.ERROR else _log.warning
            log(found.message, provider=found.provider, instance=found.instance, reason=found.reason)

    async def _close(self) -> None:
        """Let go of the broker, which takes back what is not settled, and of the children."""
        await asyncio.gather(self.broker.close(), self._close_engine())

    async def _close_engine(self) -> None:
        if self.active is None:
            return
        engine = self.active.engine
        closing = asyncio.create_task(engine.close())
        await asyncio.wait({closing}, timeout=max(0.0, self._end_by_s - _KILLING_S - time.monotonic()))
        if not closing.done():
            _log.warning("grace time is over; children that do not end are killed")
            await engine.kill()
        await closing

    async def _finish_what_is_in_hand(self) -> None:
        """Take nothing new; what is in hand is finished within the grace time, or goes back to its queue."""
        self._monitor.stopping()
        grace_s = self.settings.shutdown_grace_s
        _log.info("stopping", in_hand=len(self._in_hand), grace_s=grace_s)
        # A broker that is frozen, or has blocked us, does not answer: we take nothing more from it all the same.
        cancelling = asyncio.create_task(self.broker.stop_consuming(Pause.STOPPING, Pause.STOPPING.message))
        finish_by_s = self._end_by_s - min(_CLOSING_S, grace_s / 2)
        await asyncio.wait({cancelling, *self._in_hand.values()}, timeout=max(0.0, finish_by_s - time.monotonic()))
        late = list(self._in_hand.values())
        for task in (cancelling, *late):
            task.cancel()
        if late:
            _log.warning("grace time is over; the rest goes back to its queue", events=len(late))
        await asyncio.wait({cancelling, *late})

    def _stop(self) -> None:
        if self._stopping.is_set():
            _log.warning("asked to stop a second time: ending at once; what is in hand goes back to its queue")
            os._exit(_ENDED_AT_ONCE)  # the kernel takes the children with us: each has asked for that when it started
        # The grace time begins now, and ends also where something hangs that should not: a connection that is being
        # closed, a thread in a system call, the loop itself.
        self._end_by_s = time.monotonic() + self.settings.shutdown_grace_s
        self._stopping.set()
        last_resort = threading.Timer(max(0.0, self.settings.shutdown_grace_s - _LAST_S), _end_at_last)
        last_resort.daemon = True
        last_resort.start()

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, delivery: Delivery) -> None:
        if self.active is None:
            raise RuntimeError("a delivery came before there was an engine for it")
        task: asyncio.Task[object] = asyncio.create_task(self._pipeline.handle(delivery, self.active))
        self._in_hand[delivery] = task
        task.add_done_callback(lambda _: self._in_hand.pop(delivery))

    def _call_off(self, lost: Delivery) -> None:
        """RabbitMQ has taken a delivery back, and delivers it again: nothing more is spent on this one."""
        if (task := self._in_hand.get(lost)) is not None:
            task.cancel()

    def _on_progress(self, progress: ModelProgress) -> None:
        """Called by the thread that has the model built; the one place where that can be called off."""
        if self._stopping.is_set():
            raise Unavailable("asked to stop while the model was being built", reason="stopping")
        self._monitor.still_starting()
        if progress != self._preparing:  # the same step is reported repeatedly, so that it can be called off
            self._preparing = progress
            _log.info("preparing the model", step=progress.step, done=progress.done, total=progress.total)

    def _on_broker_state(self, state: BrokerState) -> None:
        self._log_pauses(state)
        self.metrics.broker.on_state(state)
        self.history.on_consuming_state(*consuming_state(state), time.monotonic())

    def _log_pauses(self, state: BrokerState) -> None:
        """One line for each reason that begins or ends, the broker's too: it is logged nowhere else."""
        before, self._pauses = self._pauses, state.pauses
        for reason in state.pauses.keys() - before.keys():
            intended = reason == Pause.STARTING or self._stopping.is_set()
            log = _log.info if intended else _log.warning
            log("no events are taken", reason=reason, why=state.pauses[reason].message)
        for reason in before.keys() - state.pauses.keys():
            held_s = time.monotonic() - before[reason].since_s
            _log.info("a reason to take no events has ended", reason=reason, held_s=round(held_s, 1))

    def _on_notice(self, child: str, notice: Notice) -> None:
        self.metrics.children.on_notice(child, notice)
        self.history.on_child_notice(child, notice, time.monotonic())
        if isinstance(notice, BecameReady | BecameDisabled):
            self._start_task(self._intake.update())

    def _paused_by_operator(self) -> bool:
        return Pause.BY_OPERATOR in self.broker.state.pauses

    # ── what operators ask for ───────────────────────────────────────────────────────────────────────────────────────

    def _commands(self) -> dict[str, Callable[..., Awaitable[object]]]:
        commands = (self.status, self.reset, self.pause, self.resume, self.reload)

        def as_json(command: Callable[[], Awaitable[Status]]) -> Callable[[], Awaitable[object]]:
            async def run() -> object:
                return (await command()).to_json()

            return run

        further = {"shadow_report": self._shadow_report, "settings": self._settings, "health": self._health_as_json}
        return {command.__name__: as_json(command) for command in commands} | further

    async def _health_as_json(self) -> object:
        return asdict(self.health())

    async def _settings(self, instance: str | None = None) -> object:
        """The settings in force, and what a reload would change; `instance`: those of one."""
        found = preview(self.load)
        in_force = self.in_force
        shown = in_force.service(found) if instance is None else in_force.instance(instance, found)
        return {
            "settings": {dotted(each.key): each.to_json() for each in shown},
            "instances": list(self.settings.instances),
            "would_change": [dotted(each.key) for each in in_force.would_change(found)],
            "would_be_refused": found.refused,
            "overlay": in_force.loaded.overlay.to_json() if in_force.loaded.overlay else None,
        }

    async def _shadow_report(self) -> object:
        shadow = self.active.engine.shadow if self.active is not None else None
        if shadow is None:
            raise CannotBeDone("there is no candidate: set `tensorflow.shadow`", reason="no_shadow")
        return shadow.report().to_json()

    async def status(self) -> Status:
        """The status at this moment."""
        return status_of(
            self.broker.state,
            self.active,
            self.health(),
            in_hand=len(self._in_hand),
            depths=self._monitor.depths,
            canary=self._canary.status(time.monotonic()),
        )

    async def connector(self) -> ConnectorReport | None:
        """What `autotag connect` last said of itself; None where it has not, or no connection is switched on."""
        if not self.settings.connections:
            return None
        return await self._connector_reports.last()

    def accounts(self) -> list[AccountView]:
        """Each configured instance's account with each cloud service that it has switched on."""
        return self._monitor.accounts()

    def health(self) -> Health:
        """Whether it is alive, started and ready, and if not ready, why."""
        return self._monitor.health()

    async def pause(self) -> Status:
        """Take no more events until `resume`; what is in hand is finished."""
        await self.broker.stop_consuming(Pause.BY_OPERATOR, Pause.BY_OPERATOR.message)
        _log.warning("paused by an operator")
        self.history.on_operator_action("paused", time.monotonic())
        return await self.status()

    async def resume(self) -> Status:
        """Take events again."""
        await self.broker.resume_consuming(Pause.BY_OPERATOR)
        _log.info("resumed by an operator")
        self.history.on_operator_action("resumed", time.monotonic())
        return await self.status()

    async def reset(self) -> Status:
        """Forget the crashes and launch what had been disabled."""
        if self.active is not None:
            self.active.engine.reset()
            _log.warning("reset by an operator")
            self.history.on_operator_action("reset", time.monotonic())
            await self._intake.update()
        return await self.status()

    async def reload(self) -> Status:
        """Read the settings again: valid ones take effect without losing a delivery, others leave everything as it is.

        Events in hand end under the settings that they began with.
        """
        async with self._reloading:
            with self._monitor.reloading():
                await self._reload()
        return await self.status()

    async def _reload(self) -> None:
        try:
            loaded = self.load()
            new = loaded.settings
            new_engine = await self._open_beside(new)
        except AutotagError as error:
            _log.error("reload refused; the settings stay as they were", error=str(error))
            raise
        for name in self.in_force.need_a_restart(loaded):
            _log.warning("a changed setting takes effect at the next start only", setting=name)
        self.in_force.adopt(loaded, datetime.now(UTC))
        self.metrics.on_settings_left_out(_number_left_out(loaded))
        log_sources(loaded)
        _log.info("settings reloaded", new_engine=new_engine is not None)
        if self.active is None:
            self._starting_with = new
            return
        old = self.active.engine
        self._activate(Active(new, new_engine or old))
        if new_engine is not None:
            self._start_task(self._retire(old, set(self._in_hand.values())))
        self._log_provider_checks()
        await self._intake.update()

    async def _open_beside(self, new: Settings) -> Engine | None:
        """An engine for other settings, ready before the old one is let go; None where the old one will do."""
        if self.active is None or not needs_new_engine(self.active.settings, new):
            return None
        notices = _HeldNotices(self.metrics, self._on_notice)
        opening = asyncio.create_task(
            open_engine(new, self.metrics, notices, self._on_progress, self.active.engine), name="open the next engine"
        )
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise Unavailable("asked to stop while the settings were being reloaded", reason="stopping")
            engine = opening.result()
        finally:
            for task in (opening, stopping):
                task.cancel()
            await asyncio.wait({opening, stopping})
        notices.release()
        return engine

    async def _retire(self, old: Engine, users: set[asyncio.Task[object]]) -> None:
        if users:
            await asyncio.wait(users)
        await old.close()

    def _start_task(self, coroutine: Coroutine[object, object, object]) -> None:
        """Run a coroutine beside everything else; what goes wrong in it is logged, never silent."""
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[object]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, AutotagError):
            _log.critical("unexpected error", exc_info=error)


def _number_left_out(loaded: LoadedSettings) -> int:
    return len(loaded.overlay.refused) if loaded.overlay else 0


def log_sources(loaded: LoadedSettings) -> None:
    """Log which files were read although nobody named them, and what was found and not used."""
    if loaded.found_files:
        _log.info("settings of the working directory", files=[str(path.absolute()) for path in loaded.found_files])
    for ignored in loaded.ignored_files:
        _log.warning("settings file is not read", file=ignored.key, why=ignored.message)
    for ignored in loaded.ignored_variables:
        _log.warning("variable is not a setting", variable=ignored.key)
    for refused in loaded.overlay.refused if loaded.overlay else ():
        _log.error("a setting of the overlay is left out", setting=refused.key, why=refused.message)


def _end_at_last() -> None:
    """The grace time is over: end now. Nothing is lost: RabbitMQ takes back what is not settled."""
    _log.error("grace time is over, and not everything has ended: the rest is left to the kernel")
    os._exit(0)
