"""`autotag connect`: builds the connections, and owns the order in which they start and stop.

A process of its own, which speaks to the service through RabbitMQ alone: a system that is down can't touch tagging.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from worker import __version__
from worker.amqp.topology import topology
from worker.connect.connection import RunningConnection, Shared
from worker.connect.inlets.http import HttpInlet
from worker.connect.ledger import TagLedger
from worker.connect.metrics import InMetrics
from worker.connect.outlet import Outlet
from worker.connect.seen import SeenImages
from worker.connect.target_metrics import TargetMetrics
from worker.errors import AutotagError
from worker.operations.health.heartbeat import Heartbeat
from worker.operations.health.status import Health
from worker.operations.health.systemd import Notifier
from worker.settings import Settings

_log = structlog.get_logger(__name__)

_DAY_S: Final = 86_400.0
_BEAT_S: Final = 1.0
ANNOUNCED_EVERY_S: Final = 5.0
"""How often the service's page learns how it is."""
_ANNOUNCED_WITHIN_S: Final = 4.0
_ALIVE_LAG_S: Final = 10.0
SEEN_FILE: Final = "connect-seen.sqlite"
LEDGER_FILE: Final = "connect-ledger.sqlite"
NEED_A_RESTART: Final = ("amqp", "connector", "state_dir")
"""Settings that a reload can't change."""


class _Metrics:
    """The registry, and what is in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.uploads = InMetrics(self.registry)
        self.targets = TargetMetrics(self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)


class Connector:
    """One connector. `load` reads the settings again, for a reload."""

    def __init__(self, settings: Settings, load: Callable[[], Settings]) -> None:
        self.settings = settings
        self.metrics = _Metrics()
        self._load = load
        self._outlet = Outlet(
            settings.amqp, topology(settings.amqp.queue_prefix, settings.retry.delays_s), lambda: None
        )
        self._seen = SeenImages(settings.state_dir / SEEN_FILE, settings.connector.keep_days * _DAY_S)
        self._ledger = TagLedger(settings.state_dir / LEDGER_FILE)
        self._connections: dict[str, RunningConnection] = {}
        self._notifier = Notifier.from_environment()
        self._heartbeat = Heartbeat(min(_BEAT_S, self._notifier.watchdog_interval_s), self._notifier.alive)
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False

    @property
    def inlets(self) -> Mapping[str, HttpInlet]:
        """The inlets, by the name of their connection."""
        return {name: each.inlet for name, each in self._connections.items() if each.inlet is not None}

    @property
    def inlet_refusals(self) -> Any:
        """Counts requests that were refused as a whole."""
        return self.metrics.uploads.inlet_refusals

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status. Raises Misconfigured when it can't begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._start_reload)
        async with AsyncExitStack() as stack:
            stack.callback(self._seen.close)
            stack.callback(self._ledger.close)
            stack.push_async_callback(self._outlet.close)
            stack.push_async_callback(self._close_connections)
            self._heartbeat.start()
            stack.push_async_callback(self._heartbeat.close)
            await self._listen(stack)
            self._outlet.start()
            await self._use(self.settings)
            self._started = True
            announcing = asyncio.create_task(self._announce_again_and_again(), name="announce")
            stack.push_async_callback(self._announce_the_end, announcing)
            self._notifier.ready()
            _log.info("connecting", connections=sorted(self._connections))
            await self._stopping.wait()
            self._notifier.stopping()
        _log.info("stopped")
        return 0

    def health(self) -> Health:
        """Whether it is alive, started and ready: RabbitMQ takes what inlets are sent."""
        why_not, reason = self._outlet.why_not, "broker"
        paused = [each.deliverer.state.pause for each in self._connections.values() if each.deliverer is not None]
        if why_not is None and paused and all(paused) and not self.inlets:
            # Not where there is an inlet: a system that is down must not keep others from sending uploads.
            why_not, reason = f"no target takes tags: {paused[0].message if paused[0] else ''}", "target"
        return Health(
            alive=self._heartbeat.lag_s < _ALIVE_LAG_S,
            loop_lag_s=self._heartbeat.lag_s,
            started=self._started,
            ready=self._started and why_not is None,
            reason=None if why_not is None else reason,
            why_not=why_not,
        )

    def status(self) -> dict[str, Any]:
        """The state of all parts, as a JSON value."""
        health = self.health()
        return {
            "ready": health.ready,
            "why_not": health.why_not,
            "seen_fault": self._seen.fault,
            "ledger_fault": self._ledger.fault,
            "connections": {name: each.status() for name, each in sorted(self._connections.items())},
        }

    # For the status page of the service

    async def _announce_again_and_again(self) -> None:
        while True:
            try:
                queues = {
                    each.deliverer.queue: name for name, each in self._connections.items() if each.deliverer is not None
                }
                found = await self._outlet.waiting(queues)
                await self._announce({queues[queue]: number for queue, number in found.items()})
            except (AutotagError, TimeoutError) as error:
                _log.debug("the service was not informed of our status", why=str(error))
            await asyncio.sleep(ANNOUNCED_EVERY_S)

    async def _announce(self, waiting: Mapping[str, int], *, stopped: bool = False) -> None:
        said = {**self.status(), "waiting": waiting, "at_s": time.time(), "stopped": stopped, "version": __version__}
        await self._outlet.announce(json.dumps(said).encode(), within_s=_ANNOUNCED_WITHIN_S)

    async def _announce_the_end(self, announcing: asyncio.Task[None]) -> None:
        announcing.cancel()
        await asyncio.wait({announcing})
        with contextlib.suppress(AutotagError, TimeoutError):
            await self._announce({}, stopped=True)

    async def reload(self) -> None:
        """Read the settings again; only connections that have changed are stopped and started."""
        async with self._reloading:
            try:
                settings = self._load()
            except AutotagError as error:
                _log.error("the settings were not reloaded, the old ones stay in force", why=str(error))
                return
            changed = [name for name in NEED_A_RESTART if getattr(settings, name) != getattr(self.settings, name)]
            if changed:
                _log.warning("these settings need a restart", settings=changed)
            settings = settings.model_copy(update={name: getattr(self.settings, name) for name in NEED_A_RESTART})
            try:
                await self._use(settings)
            except AutotagError as error:
                _log.error("the settings were not reloaded, the old ones stay in force", why=str(error))
                return
            self.settings = settings
            _log.info("settings reloaded", connections=sorted(self._connections))

    def _start_reload(self) -> None:
        task = asyncio.create_task(self.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _use(self, settings: Settings) -> None:
        """Raises Misconfigured, with everything as it was, where a connection can't be made."""
        wanted = set(settings.connections)
        kept = {name for name in wanted & set(self._connections) if self._connections[name].is_as_in(settings)}
        shared = Shared(self._outlet, self._seen, self._ledger, self.metrics.uploads, self.metrics.targets)
        added: dict[str, RunningConnection] = {}
        try:
            for name in sorted(wanted - kept):
                added[name] = RunningConnection(name, settings, shared)
        except AutotagError:
            for connection in added.values():
                await connection.close()
            raise
        for name in set(self._connections) - kept:
            await self._connections.pop(name).close()
        for connection in added.values():
            connection.start()
        self._connections |= added

    async def _close_connections(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def _listen(self, stack: AsyncExitStack) -> None:
        http = self.settings.connector.http
        if not http.enabled:
            return
        # Imported here: where it is off, its memory is saved.
        from worker.connect.inlets.app import DEADLINES, build_app
        from worker.http.server import HttpServer

        server = HttpServer(http, build_app(self, http), deadlines=DEADLINES)
        await server.start()
        _log.info("listening", url=server.url)
        stack.push_async_callback(server.close)
