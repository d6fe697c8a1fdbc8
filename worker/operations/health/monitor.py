"""Monitors the running service every second: assesses its health, updates metrics and notifies systemd.

Values that change without a notification are polled here too: the depths of the queues and the used calls of budgets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from worker.amqp.broker import Broker
from worker.engine import Active
from worker.errors import AutotagError
from worker.operations.health.heartbeat import Heartbeat
from worker.operations.health.readiness import has_started, health_of
from worker.operations.health.status import Health
from worker.operations.health.systemd import Notifier
from worker.operations.history import History
from worker.operations.metrics import Metrics
from worker.operations.metrics.children import PoolView
from worker.operations.metrics.cloud import AccountView
from worker.operations.metrics.labels import OTHER
from worker.providers.checks import CircuitState, Metered
from worker.settings import InstanceSettings

_log = structlog.get_logger(__name__)

_BEAT_S = 1.0
_POLL_EVERY_S = 10.0
_START_STEP_S = 120.0
"""A model is built in steps; none of them takes longer than this."""


class HealthMonitor:
    """Runs from `start` to `close`. `use` sets the settings and engine to monitor."""

    def __init__(self, broker: Broker, metrics: Metrics, notifier: Notifier, history: History) -> None:
        self._broker = broker
        self._metrics = metrics
        self._notifier = notifier
        self._history = history
        self._active: Active | None = None
        self._heartbeat = Heartbeat(min(_BEAT_S, notifier.watchdog_interval_s), self._on_beat)
        self._polling: asyncio.Task[None] | None = None
        self._started = False
        self._used: dict[tuple[str, str], int] = {}
        self.depths: dict[str, int] = {}
        """Messages ready in each queue, by name without the prefix, as last polled; empty without a connection."""
        metrics.children.observe(self._pools)
        metrics.cloud.observe(self.accounts)

    def start(self) -> None:
        """Start the heartbeat and the polling."""
        self._heartbeat.start()
        self._polling = asyncio.create_task(self._poll_regularly(), name="health monitor")

    async def close(self) -> None:
        """Stop both."""
        await self._heartbeat.close()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})

    def use(self, active: Active) -> None:
        """Monitor these settings and this engine from now on; all of their metrics exist from then on."""
        self._active = active
        settings = active.settings
        self._metrics.use_instances(settings.instances, histograms=settings.metrics.instances_with_durations)
        self._metrics.cloud.observe(self.accounts)

    def health(self) -> Health:
        """The service's health now."""
        if not self._started and has_started(self._active.engine if self._active else None):
            self._started = True
            self._notifier.ready()
        return health_of(self._broker.state, started=self._started, loop_lag_s=self._heartbeat.lag_s)

    def still_starting(self) -> None:
        """The start makes progress. May be called from any thread."""
        self._notifier.still_starting(_START_STEP_S)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Report to systemd that the settings are being reloaded, for the duration of the block."""
        self._notifier.reloading()
        try:
            yield
        finally:
            if self._started:
                self._notifier.ready()

    def stopping(self) -> None:
        """Report to systemd that the service is stopping."""
        self._notifier.stopping()

    def _on_beat(self, now_s: float) -> None:
        health = self.health()
        self._metrics.on_heartbeat(health.ready, health.loop_lag_s)
        self._metrics.broker.sample(self._broker.state)
        self._history.throughput.sample(events_waiting(self.depths), self._broker.state.unsettled, now_s)
        self._notifier.status("taking events" if health.ready else f"not taking events: {health.why_not}")
        self._notifier.alive(now_s)

    # ── polling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _poll_regularly(self) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await self._poll_depths()
                await self._poll_budgets()
            except Exception:  # noqa: BLE001 - one value that cannot be read must not end the polling of the others
                _log.exception("unexpected error while looking up depths and budgets")
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(_BEAT_S, _POLL_EVERY_S - took_s) if self.depths else _BEAT_S)

    async def _poll_depths(self) -> None:
        try:
            depths = await self._broker.depths()
        except AutotagError:  # not connected: the broker's own state reports that, with the reason
            self.depths = {}
            return
        prefix = f"{self._broker.prefix}."
        self.depths = {queue.removeprefix(prefix): messages for queue, messages in depths.items()}
        self._metrics.broker.on_depths(self.depths)

    async def _poll_budgets(self) -> None:
        for provider, name, instance in self._accounts_in_use():
            if provider.calls_limit(instance) is None:
                continue
            try:
                self._used[provider.name, name] = await provider.calls_used(name)
            except AutotagError as error:
                self._used.pop((provider.name, name), None)
                _log.warning("calls of this month are not known", provider=provider.name, error=str(error))

    # ── read by metrics ──────────────────────────────────────────────────────────────────────────────────────────────

    def _pools(self) -> Mapping[str, PoolView]:
        if self._active is None:
            return {}
        engine = self._active.engine
        pools: dict[str, PoolView] = {"decoder": engine.decoders}
        if engine.model is not None:
            pools["model"] = engine.model
        if engine.shadow is not None and engine.shadow.pool is not None:
            pools["shadow"] = engine.shadow.pool
        return pools

    def accounts(self) -> list[AccountView]:
        """Each configured instance's account with each service it has enabled; all other instances under `other`."""
        views = []
        configured = set(self._instances())
        for provider, name, instance in self._accounts_in_use():
            circuit = provider.circuits().get(name, CircuitState.CLOSED)
            used = self._used.get((provider.name, name))
            views.append(AccountView(provider.name, name, circuit, provider.calls_limit(instance), used))
        for provider in self._metered_providers():
            others = [state for name, state in provider.circuits().items() if name not in configured]
            if others:
                views.append(AccountView(provider.name, OTHER, max(others, key=list(CircuitState).index)))
        return views

    def _accounts_in_use(self) -> Iterable[tuple[Metered, str, InstanceSettings]]:
        """Every service with every configured instance that has enabled it."""
        for provider in self._metered_providers():
            for name, instance in self._instances().items():
                if instance.enabled and provider.enabled(instance):
                    yield provider, name, instance

    def _instances(self) -> dict[str, InstanceSettings]:
        return self._active.settings.by_event_name() if self._active else {}

    def _metered_providers(self) -> list[Metered]:
        engine = self._active.engine if self._active else None
        return [each for each in engine.providers if isinstance(each, Metered)] if engine else []


def events_waiting(depths: Mapping[str, int]) -> int | None:
    """Events ready in both lanes' queues, without those that wait for their next attempt; None if unknown."""
    lanes = [depths[queue] for queue in ("images.live", "images.bulk") if queue in depths]
    return sum(lanes) if lanes else None
