"""The children: how they are, what they cost, and how often they died."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.operations.metrics.labels import Reasons
from worker.supervision.lifecycle import PHASE_NAMES, WORKING_PHASE_NAMES, Crashed, Notice, Relaunching

KINDS = ("model", "decoder")
CRASHES = (
    "exited",
    "killed_by_sigabrt",
    "killed_by_sigbus",
    "killed_by_sigkill",
    "killed_by_sigsegv",
    "protocol_broken",
    "silent_while_busy",
    "silent_while_idle",
    "silent_while_starting",
    "spawn_failed",
)
"""The ways to die that a first death must be seen of: a counter that begins at 1 shows no increase."""

STATES = ("stopped", "starting", "ready", "recycling", "back_off", "disabled")
"""Of a supervisor. `ready`: a child can take work; `recycling`: one can, and its successor is being started."""

_LONGEST_WORD = 100
"""Of what a child says of itself: it may say anything."""

_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ChildView(Protocol):
    """One child, as it is looked at for metrics."""

    @property
    def name(self) -> str:
        """Kind and slot: `decoder-2`."""
        ...

    @property
    def phase(self) -> str:
        """One of lifecycle's PHASE_NAMES."""
        ...

    @property
    def resident_bytes(self) -> int:
        """Its memory."""
        ...

    @property
    def hello(self) -> Mapping[str, object]:
        """What it said of itself when it started."""
        ...


class PoolView(Protocol):
    """The children of one kind."""

    @property
    def disabled_reason(self) -> str | None:
        """Why they are disabled."""
        ...

    @property
    def relaunches_left(self) -> int | None:
        """How many crashes now would still be relaunched; None: any number."""
        ...

    @property
    def waiting(self) -> int:
        """Images that wait for a child."""
        ...

    def states(self) -> Sequence[ChildView]:
        """Every child."""
        ...


class ChildMetrics:
    """Told of what happens in children's lives; what they are like is looked up when it is asked for."""

    def __init__(self, registry: CollectorRegistry, reasons: Reasons) -> None:
        self._reason = reasons
        self._crashes = Counter(
            "autotag_child_crashes",
            "Children that died unasked; counted: by a fault of their own, not of an image",
            ["kind", "reason", "counted"],
            registry=registry,
        )
        self._relaunches = Counter(
            "autotag_child_relaunches", "Children started again after a crash", ["kind", "reason"], registry=registry
        )
        self._batch = Histogram(
            "autotag_model_batch_images", "Images given to the model together", buckets=_BATCHES, registry=registry
        )
        self._batch_time = Histogram(
            "autotag_model_batch_duration_seconds",
            "From giving a batch to the model child to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._last_crash: dict[str, str] = {}
        self._pools = _PoolCollector()
        registry.register(self._pools)
        for kind in KINDS:
            for reason in CRASHES:
                self._relaunches.labels(kind, reason)
                self._crashes.labels(kind, reason, "true")

    def observe(self, pools: Callable[[], Mapping[str, PoolView]]) -> None:
        """Where to look the children up, by kind."""
        self._pools.read = pools

    def on_notice(self, name: str, notice: Notice) -> None:
        """Something happened in the life of the child called `name`."""
        kind = name.partition("-")[0]
        match notice:
            case Crashed(cause, counted):
                self._last_crash[name] = reason = self._reason(cause.reason)
                self._crashes.labels(kind, reason, str(counted).lower()).inc()
            case Relaunching():
                self._relaunches.labels(kind, self._last_crash.get(name, "")).inc()

    def batch(self, images: int, seconds: float) -> None:
        """The model has answered a batch."""
        self._batch.observe(images)
        self._batch_time.observe(seconds)


class _PoolCollector(Collector):
    """Looks at the children whenever metrics are collected."""

    def __init__(self) -> None:
        self.read: Callable[[], Mapping[str, PoolView]] = dict

    def collect(self) -> Iterable[GaugeMetricFamily]:
        pools = self.read()
        children = {kind: pools[kind].states() if kind in pools else () for kind in KINDS}
        phases = tuple(PHASE_NAMES.values())
        yield _by_state("autotag_children", "Children by phase of their lives", "phase", phases, _counted(children))
        yield _by_state(
            "autotag_supervisor_state",
            "1 for the state that the children of a kind are in as a whole",
            "state",
            STATES,
            {kind: {_state(pools.get(kind), children[kind]): 1} for kind in KINDS},
        )
        memory = GaugeMetricFamily(
            "autotag_child_resident_memory_bytes", "Resident memory of a child", labels=["kind", "child"]
        )
        waiting = GaugeMetricFamily("autotag_images_waiting", "Images that wait for a child", labels=["kind"])
        for kind in KINDS:
            for child, resident_bytes in _largest(children[kind]).items():
                memory.add_metric([kind, child], resident_bytes)
            waiting.add_metric([kind], pools[kind].waiting if kind in pools else 0)
        yield memory
        yield waiting
        yield from _model(pools.get("model"))
        yield _info(children)


def _model(pool: PoolView | None) -> Iterable[GaugeMetricFamily]:
    disabled = GaugeMetricFamily("autotag_model_disabled", "1 while the model is disabled")
    disabled.add_metric([], int(pool is not None and pool.disabled_reason is not None))
    yield disabled
    left = GaugeMetricFamily(
        "autotag_model_relaunches_left", "Crashes of the model that would still be answered by a relaunch"
    )
    if pool is not None and pool.relaunches_left is not None:
        left.add_metric([], 0 if pool.disabled_reason is not None else pool.relaunches_left)
    yield left


def _info(children: Mapping[str, Sequence[ChildView]]) -> GaugeMetricFamily:
    """What runs in the children: the model, its runtime, and how far the decoders are locked in."""
    family = GaugeMetricFamily(
        "autotag_child_info", "What the children said of themselves", labels=["kind", "identity", "runtime", "sandbox"]
    )
    for kind, each in children.items():
        for said in sorted({_said(child) for child in each}):
            if any(said):
                family.add_metric([kind, *said], 1)
    return family


def _said(child: ChildView) -> tuple[str, ...]:
    return tuple(str(child.hello.get(name, ""))[:_LONGEST_WORD] for name in ("identity", "runtime", "sandbox"))


def _state(pool: PoolView | None, children: Sequence[ChildView]) -> str:
    if pool is None:
        return "stopped"
    if pool.disabled_reason is not None:
        return "disabled"
    phases = {child.phase for child in children}
    if phases & WORKING_PHASE_NAMES:
        names = [child.name for child in children]
        return "recycling" if len(names) > len(set(names)) else "ready"
    if "starting" in phases:
        return "starting"
    return "back_off" if phases & {"back_off", "dying"} else "stopped"


def _counted(children: Mapping[str, Sequence[ChildView]]) -> dict[str, dict[str, int]]:
    return {kind: dict(Counts(child.phase for child in each)) for kind, each in children.items()}


def _largest(children: Sequence[ChildView]) -> dict[str, int]:
    """Memory by slot; while a child is replaced there are two of a name, and the larger is told."""
    found: dict[str, int] = {}
    for child in children:
        found[child.name] = max(found.get(child.name, 0), child.resident_bytes)
    return found


def _by_state(
    name: str, help_text: str, label: str, values: Sequence[str], found: Mapping[str, Mapping[str, int]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=["kind", label])
    for kind in KINDS:
        for value in values:
            family.add_metric([kind, value], found[kind].get(value, 0))
    return family
