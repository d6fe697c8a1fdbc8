"""`autotag run`: builds the parts, owns the order in which they start and stop, and decides when events are taken.

Events are taken only while somebody could answer them. Each reason not to is given to the broker under a name of its
own; it consumes while there is none.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from operator import attrgetter

import structlog

from worker.operations.history.thumbnails import Album
from worker.amqp.broker import Broker
from worker.amqp.state import BrokerState
from worker.amqp.delivery import Delivery
from worker.operations.control import ControlServer
from worker.errors import AutotagError, Unavailable
from worker.operations.history import History
from worker.supervision.lifecycle import BecameDisabled, BecameReady, Notice
from worker.operations.metrics import Metrics
from worker.models.staging import Progress
from worker.operations.health.systemd import Notifier
from worker.pipeline import Pipeline
from worker.providers.checks import Severity
from worker.settings import Settings
from worker.operations.health.status import Health, Pause, status_of, taking
from worker.amqp.topology import topology
from worker.operations.tracing import NO_TRACER, Tracer
from worker.operations.tracing.otel import tracer_from_environment
from worker.operations.health.monitor import Vitals
from worker.engine import Workshop, needs_new_workshop, open_workshop

_log = structlog.get_logger(__name__)

NEED_A_RESTART = ("amqp", "http", "log", "retry.delays_s", "cache_dir", "state_dir", "control_socket")
"""Settings that a reload can't change: what they stand for is built once."""

_ENDED_AT_ONCE = 128 + signal.SIGTERM

_CLOSING_S = 5.0
"""Kept of the grace time for closing connections and children, or half of it if that is less."""

_KILLING_S = 1.0
"""Kept of that for children that do not end when asked to."""


class Service:
    """One worker: takes events until it is asked to stop. `load` reads the settings anew, for a reload."""

    def __init__(self, settings: Settings, load: Callable[[], Settings]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.history = History(time.monotonic())
        self.workshop: Workshop | None = None
        self.broker = Broker(
            settings.amqp,
            topology(settings.amqp.queue_prefix, settings.retry.delays_s),
            self._take,
            self._on_broker_state,
        )
        self._pipeline: Pipeline | None = None
        self._album = Album(self.history, thumbnails=settings.http.shows_thumbnails)
        self._load = load
        self._stopping = asyncio.Event()
        self._end_by_s = math.inf
        self._preparing: Progress | None = None
        self._in_hand: set[asyncio.Task[object]] = set()
        self._chores: set[asyncio.Task[object]] = set()
        self._aligning = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._vitals = Vitals(
            self.broker,
            lambda: self.workshop,
            lambda: self.settings,
            self.metrics,
            Notifier.from_environment(),
            self.history,
        )
        self._tracer: Tracer = NO_TRACER

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status is 0 after an orderly end.

        Raises Misconfigured when it can't begin.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._do(self.reload()))
        control = ControlServer(self.settings.control_socket, self._commands())
        async with AsyncExitStack() as stack:
            self._tracer, flush_spans = tracer_from_environment()
            stack.callback(flush_spans)
            self._vitals.start()
            stack.push_async_callback(self._vitals.close)
            await self._listen(stack)
            await control.start()
            stack.push_async_callback(control.close)
            stack.push_async_callback(self._close)
            stack.push_async_callback(self._album.close)
            # The broker is there while the model is still being built, so that a wrong password is found out at once.
            await self.broker.stop_consuming(Pause.STARTING)
            self._do(self.broker.start())
            opening = asyncio.create_task(self._open())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                await self.broker.resume_consuming(Pause.STARTING)
                await stopping
            opening.cancel()
            await asyncio.wait({opening})
            await self._finish_what_is_in_hand()
            for chore in self._chores:
                chore.cancel()
        _log.info("stopped")
        return 0

    async def _listen(self, stack: AsyncExitStack) -> None:
        """Health, metrics and the status page, for as long as anything runs."""
        if not self.settings.http.enabled:
            return
        # Imported here, because where it is off its memory need not be spent.
        from worker.http.app import build_app
        from worker.http.server import HttpServer

        server = HttpServer(self.settings.http, build_app(self, self.settings.http.token))
        await server.start()
        stack.push_async_callback(server.close)

    async def _open(self) -> None:
        self.workshop = await self._first_workshop()
        self._pipeline = Pipeline(
            lambda: self.settings,
            self.broker,
            self.workshop,
            self.metrics,
            self.history,
            self._album,
            self._tracer,
        )
        self._vitals.opened()
        self._review_providers()
        await self._align_consumer()
        _log.info("ready to take events", providers=[each.name for each in self.workshop.providers])

    async def _first_workshop(self) -> Workshop:
        """A workshop for the settings as they are once it is open: they may be reloaded while a model is built."""
        while True:
            settings = self.settings
            workshop = await open_workshop(settings, self.metrics, self._on_notice, self._on_progress)
            if not needs_new_workshop(settings, self.settings):
                return workshop
            await workshop.close()

    def _review_providers(self) -> None:
        """Say beforehand what the settings will come to: a key that is missing, an API that was retired."""
        for found in self.workshop.review(self.settings) if self.workshop else ():
            log = _log.error if found.severity is Severity.ERROR else _log.warning
            log(found.message, provider=found.provider, instance=found.instance, reason=found.reason)

    async def _close(self) -> None:
        """Let go of the broker, which takes back what is not settled, and of the children."""
        await asyncio.gather(self.broker.close(), self._close_workshop())

    async def _close_workshop(self) -> None:
        if self.workshop is None:
            return
        closing = asyncio.create_task(self.workshop.close())
        await asyncio.wait({closing}, timeout=max(0.0, self._end_by_s - _KILLING_S - time.monotonic()))
        if not closing.done():
            _log.warning("grace time is over; children that do not end are killed")
            await self.workshop.kill()
        await closing

    async def _finish_what_is_in_hand(self) -> None:
        """Take nothing new; what is in hand is finished within the grace time, or goes back to its queue."""
        self._vitals.stopping()
        grace_s = self.settings.shutdown_grace_s
        self._end_by_s = time.monotonic() + grace_s
        _log.info("stopping", in_hand=len(self._in_hand), grace_s=grace_s)
        # A broker that is frozen, or has blocked us, does not answer: we take nothing more from it all the same.
        cancelling = asyncio.create_task(self.broker.stop_consuming(Pause.STOPPING))
        await asyncio.wait({cancelling, *self._in_hand}, timeout=grace_s - min(_CLOSING_S, grace_s / 2))
        late = list(self._in_hand)
        for task in (cancelling, *late):
            task.cancel()
        if late:
            _log.warning("grace time is over; the rest goes back to its queue", events=len(late))
        await asyncio.wait({cancelling, *late})

    def _stop(self) -> None:
        if self._stopping.is_set():
            _log.warning("asked to stop a second time: ending at once; what is in hand goes back to its queue")
            os._exit(_ENDED_AT_ONCE)  # the kernel takes the children with us: each has asked for that when it started
        self._stopping.set()

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, delivery: Delivery) -> None:
        if self._pipeline is None:
            raise RuntimeError("a delivery came before there was anybody to take it")
        task: asyncio.Task[object] = asyncio.create_task(self._pipeline.carry(delivery))
        self._in_hand.add(task)
        task.add_done_callback(self._in_hand.discard)

    def _on_progress(self, progress: Progress) -> None:
        """Told by the thread that has the model built; the one place where that can be called off."""
        if self._stopping.is_set():
            raise Unavailable("asked to stop while the model was being built", reason="stopping")
        self._vitals.still_starting()
        if progress != self._preparing:  # it is told again and again, so that it can be called off
            self._preparing = progress
            _log.info("preparing the model", step=progress.step, done=progress.done, total=progress.total)

    def _on_broker_state(self, state: BrokerState) -> None:
        self.metrics.broker.changed(state)
        self.history.broker(*taking(state), time.monotonic())

    def _on_notice(self, child: str, notice: Notice) -> None:
        self.metrics.children.told(child, notice)
        self.history.child(child, notice, time.monotonic())
        if isinstance(notice, BecameReady | BecameDisabled):
            self._do(self._align_consumer())

    async def _align_consumer(self) -> None:
        """Have events taken if and only if somebody could answer them."""
        async with self._aligning:
            if self.workshop is None:
                return
            why = self.workshop.why_nothing_can_be_tagged(self.settings)
            if why is None:
                await self.broker.resume_consuming(Pause.NOBODY_CAN_TAG)
            else:
                _log.error("no provider can answer: events wait in their queue", why=why)
                await self.broker.stop_consuming(Pause.NOBODY_CAN_TAG)

    # ── what operators ask for ───────────────────────────────────────────────────────────────────────────────────────

    def _commands(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "status": self.status,
            "reset": self.reset,
            "pause": self.pause,
            "resume": self.resume,
            "reload": self.reload,
        }

    async def status(self) -> dict[str, object]:
        """How things stand."""
        return status_of(
            self.broker.state,
            self.workshop,
            self.settings,
            self.health(),
            in_hand=len(self._in_hand),
            depths=self._vitals.depths,
        )

    def health(self) -> Health:
        """How it is: alive, started, ready, and if not, why."""
        return self._vitals.health()

    async def pause(self) -> dict[str, object]:
        """Take no more events until `resume`; what is in hand is finished."""
        await self.broker.stop_consuming(Pause.BY_OPERATOR)
        _log.warning("paused by an operator")
        self.history.operator("paused", time.monotonic())
        return await self.status()

    async def resume(self) -> dict[str, object]:
        """Take events again."""
        await self.broker.resume_consuming(Pause.BY_OPERATOR)
        _log.info("resumed by an operator")
        self.history.operator("resumed", time.monotonic())
        return await self.status()

    async def reset(self) -> dict[str, object]:
        """Forget the crashes and launch what had been disabled."""
        if self.workshop is not None:
            self.workshop.reset()
            _log.warning("reset by an operator")
            self.history.operator("reset", time.monotonic())
            await self._align_consumer()
        return await self.status()

    async def reload(self) -> dict[str, object]:
        """Read the settings anew: valid ones take effect without losing a delivery, others leave everything as it is.

        Events in hand end under the settings that they began with.
        """
        async with self._reloading:
            with self._vitals.reloading():
                await self._reload()
        return await self.status()

    async def _reload(self) -> None:
        try:
            new = self._load()
            fresh = await self._open_beside(new)
        except AutotagError as error:
            _log.error("reload refused; the settings stay as they were", error=str(error))
            raise
        for name in NEED_A_RESTART:
            value = attrgetter(name)
            if value(new) != value(self.settings):
                _log.warning("a changed setting takes effect at the next start only", setting=name)
        self.settings = new
        _log.info("settings reloaded", new_workshop=fresh is not None)
        if fresh is not None and self._pipeline is not None:
            old, self.workshop, self._pipeline.workshop = self.workshop, fresh, fresh
            self._do(self._retire(old, set(self._in_hand)))
        self._vitals.opened()
        self._review_providers()
        await self._align_consumer()

    async def _open_beside(self, new: Settings) -> Workshop | None:
        """A workshop for other settings, ready before the old one is let go; None where the old one will do."""
        if self.workshop is None or not needs_new_workshop(self.settings, new):
            return None
        return await open_workshop(new, self.metrics, self._on_notice, self._on_progress)

    async def _retire(self, old: Workshop | None, users: set[asyncio.Task[object]]) -> None:
        if users:
            await asyncio.wait(users)
        if old is not None:
            await old.close()

    def _do(self, chore: Coroutine[object, object, object]) -> None:
        """Run a coroutine beside everything else; what goes wrong in it is logged, never silent."""
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, AutotagError):
            _log.critical("unexpected error", exc_info=error)
