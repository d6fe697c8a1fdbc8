"""The signs of life of the running service: looked at every second, told to systemd and the metrics, asked for by HTTP.

What changes by itself and tells nobody is looked up here too: the depths of the queues, the calls left in a budget.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from worker.amqp.broker import Broker
from worker.errors import AutotagError
from worker.operations.health.heartbeat import Heartbeat
from worker.operations.history import History
from worker.operations.metrics import Metrics
from worker.operations.metrics.children import CrewView
from worker.operations.metrics.cloud import CIRCUITS, LaneView
from worker.operations.health.systemd import Notifier
from worker.providers.checks import Metered
from worker.settings import InstanceSettings, Settings
from worker.operations.health.status import Health, has_started, health_of
from worker.engine import Workshop

_log = structlog.get_logger(__name__)

_BEAT_S = 1.0
_LOOK_UP_EVERY_S = 10.0
_START_STEP_S = 120.0
"""Building a model goes on in steps; none of them takes longer than this."""


class Vitals:
    """Beats from `start` to `close`."""

    def __init__(
        self,
        broker: Broker,
        workshop: Callable[[], Workshop | None],
        settings: Callable[[], Settings],
        metrics: Metrics,
        notifier: Notifier,
        history: History,
    ) -> None:
        self._broker = broker
        self._workshop = workshop
        self._settings = settings
        self._metrics = metrics
        self._notifier = notifier
        self._history = history
        self._heart = Heartbeat(min(_BEAT_S, notifier.watchdog_interval_s), self._on_beat)
        self._looking: asyncio.Task[None] | None = None
        self._started = False
        self._used: dict[tuple[str, str], int] = {}
        self.depths: dict[str, int] = {}
        """Messages ready by queue, named without the prefix, as the broker last said; empty while it says nothing."""
        metrics.instances.are(lambda: settings().instances)
        metrics.children.are(self._crews)
        metrics.cloud.are(self._lanes)

    def start(self) -> None:
        """Begin to beat."""
        self._heart.start()
        self._looking = asyncio.create_task(self._look_up_for_ever(), name="vitals")

    async def close(self) -> None:
        """Beat no more."""
        await self._heart.close()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def health(self) -> Health:
        """How the service is now."""
        workshop = self._workshop()
        if not self._started and has_started(workshop):
            self._started = True
            self._notifier.ready()
        return health_of(
            self._broker.state,
            workshop,
            self._settings(),
            started=self._started,
            loop_lag_s=self._heart.lag_s,
        )

    def still_starting(self) -> None:
        """The start has made a step; from any thread."""
        self._notifier.still_starting(_START_STEP_S)

    def opened(self) -> None:
        """There is a new workshop, or there are new settings: each series of theirs is there from now on."""
        self._metrics.cloud.are(self._lanes)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The settings are read anew inside, and are taken or refused."""
        self._notifier.reloading()
        try:
            yield
        finally:
            if self._started:
                self._notifier.ready()

    def stopping(self) -> None:
        """The service has been asked to stop."""
        self._notifier.stopping()

    def _on_beat(self, now_s: float) -> None:
        health = self.health()
        self._metrics.health(health.ready, health.loop_lag_s)
        self._metrics.broker.counted(self._broker.state)
        self._history.pulse.sampled(waiting_in(self.depths), self._broker.state.unsettled, now_s)
        self._notifier.status("taking events" if health.ready else f"not taking events: {health.why_not}")
        self._notifier.alive(now_s)

    # ── what has to be asked for ─────────────────────────────────────────────────────────────────────────────────────

    async def _look_up_for_ever(self) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await self._look_up_depths()
                await self._look_up_budgets()
            except Exception:  # noqa: BLE001 - a number that can't be had must not end the search for the others
                _log.exception("unexpected error while looking up depths and budgets")
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(_BEAT_S, _LOOK_UP_EVERY_S - took_s) if self.depths else _BEAT_S)

    async def _look_up_depths(self) -> None:
        try:
            found = await self._broker.depths()
        except AutotagError:  # not connected: the broker's own state says so and why
            self.depths = {}
            return
        prefix = f"{self._broker.prefix}."
        self.depths = {queue.removeprefix(prefix): messages for queue, messages in found.items()}
        self._metrics.broker.depths(self.depths)

    async def _look_up_budgets(self) -> None:
        for provider, name, instance in self._metered():
            if provider.calls_limit(instance) is None:
                continue
            try:
                self._used[provider.name, name] = await provider.calls_used(name)
            except AutotagError as error:
                self._used.pop((provider.name, name), None)
                _log.warning("calls of this month are not known", provider=provider.name, error=str(error))

    # ── what metrics look at ─────────────────────────────────────────────────────────────────────────────────────────

    def _crews(self) -> Mapping[str, CrewView]:
        workshop = self._workshop()
        if workshop is None:
            return {}
        crews: dict[str, CrewView] = {"decoder": workshop.decoders}
        if workshop.model is not None:
            crews["model"] = workshop.model
        return crews

    def _lanes(self) -> list[LaneView]:
        """How each instance of the settings stands with each service it has switched on; all others under `other`."""
        views = []
        configured = set(_named(self._settings()))
        for provider, name, instance in self._metered():
            circuit = provider.circuits().get(name, "closed")
            used = self._used.get((provider.name, name))
            views.append(LaneView(provider.name, name, circuit, provider.calls_limit(instance), used))
        for provider in self._metered_providers():
            strangers = [state for name, state in provider.circuits().items() if name not in configured]
            if strangers:
                views.append(LaneView(provider.name, "other", max(strangers, key=CIRCUITS.index)))
        return views

    def _metered(self) -> Iterable[tuple[Metered, str, InstanceSettings]]:
        """Every service with every instance of the settings that has switched it on."""
        for provider in self._metered_providers():
            for name, instance in _named(self._settings()).items():
                if instance.enabled and provider.enabled(instance):
                    yield provider, name, instance

    def _metered_providers(self) -> list[Metered]:
        workshop = self._workshop()
        return [each for each in workshop.providers if isinstance(each, Metered)] if workshop else []


def waiting_in(depths: Mapping[str, int]) -> int | None:
    """Events that wait to be taken, in both lanes; those that wait for their next attempt are not meant."""
    lanes = [depths[queue] for queue in ("images.live", "images.bulk") if queue in depths]
    return sum(lanes) if lanes else None


def _named(settings: Settings) -> dict[str, InstanceSettings]:
    """Instances by the name that events give; those that have no table are the `default` one and strangers."""
    return {"default": settings.defaults} | settings.instances
