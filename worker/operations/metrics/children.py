"""Metrics of the children: phases, memory, crashes, relaunches and batches."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.operations.metrics.labels import Reasons
from worker.supervision.lifecycle import PHASE_NAMES, WORKING_PHASE_NAMES, Crashed, Notice, Relaunching

KINDS = ("model", "decoder", "shadow")
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
"""Crash reasons whose counters exist from the start: a counter that first appears at 1 shows no increase."""

STATES = ("stopped", "starting", "ready", "recycling", "back_off", "disabled")
"""States of a supervisor. `ready`: a child can take work; `recycling`: its successor is being started besides."""

_MAXIMUM_LABEL_LENGTH = 100
"""For labels from a child's hello message, which may contain anything."""

_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ChildView(Protocol):
    """What metrics read of one child."""

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
        """Resident memory."""
        ...

    @property
    def hello(self) -> Mapping[str, object]:
        """What it reported about itself when it started."""
        ...


class PoolView(Protocol):
    """What metrics read of the children of one kind."""

    @property
    def disabled_reason(self) -> str | None:
        """Why they are disabled; None while they are not."""
        ...

    @property
    def relaunches_left(self) -> int | None:
        """How many further crashes would be followed by a relaunch; None: any number."""
        ...

    @property
    def waiting(self) -> int:
        """Number of images that wait for a child."""
        ...

    def states(self) -> Sequence[ChildView]:
        """The state of every child."""
        ...


class ChildMetrics:
    """Counts notices and batches as they are reported; reads the children's states when metrics are collected."""

    def __init__(self, registry: CollectorRegistry, reasons: Reasons) -> None:
        self._reason = reasons
        self._crashes = Counter(
            "autotag_child_crashes",
            "Children that crashed; counted: by a fault of their own, not of an image",
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
        """Read the children by kind from `pools` from now on, at every collection."""
        self._pools.read = pools

    def on_notice(self, name: str, notice: Notice) -> None:
        """The supervisor reported a notice about the child called `name`."""
        kind = name.partition("-")[0]
        match notice:
            case Crashed(cause, counted):
                self._last_crash[name] = reason = self._reason(cause.reason)
                self._crashes.labels(kind, reason, str(counted).lower()).inc()
            case Relaunching():
                self._relaunches.labels(kind, self._last_crash.get(name, "")).inc()

    def on_batch(self, images: int, seconds: float) -> None:
        """The model child has answered a batch of `images` after `seconds`."""
        self._batch.observe(images)
        self._batch_time.observe(seconds)


class _PoolCollector(Collector):
    """Reads the children whenever metrics are collected."""

    def __init__(self) -> None:
        self.read: Callable[[], Mapping[str, PoolView]] = dict

    def collect(self) -> Iterable[GaugeMetricFamily]:
        pools = self.read()
        children = {kind: pools[kind].states() if kind in pools else () for kind in KINDS}
        phases = tuple(PHASE_NAMES.values())
        yield _by_state("autotag_children", "Children by phase", "phase", phases, _by_phase(children))
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
    """What runs in the children: the model, its runtime, and how strictly the decoders are sandboxed."""
    family = GaugeMetricFamily(
        "autotag_child_info",
        "What the children reported about themselves",
        labels=["kind", "identity", "runtime", "sandbox"],
    )
    for kind, each in children.items():
        for labels in sorted({_hello_labels(child) for child in each}):
            if any(labels):
                family.add_metric([kind, *labels], 1)
    return family


def _hello_labels(child: ChildView) -> tuple[str, ...]:
    return tuple(str(child.hello.get(name, ""))[:_MAXIMUM_LABEL_LENGTH] for name in ("identity", "runtime", "sandbox"))


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


def _by_phase(children: Mapping[str, Sequence[ChildView]]) -> dict[str, dict[str, int]]:
    return {kind: dict(Counts(child.phase for child in each)) for kind, each in children.items()}


def _largest(children: Sequence[ChildView]) -> dict[str, int]:
    """Memory by child name. While a child is replaced two have the same name; the larger value counts."""
    largest: dict[str, int] = {}
    for child in children:
        largest[child.name] = max(largest.get(child.name, 0), child.resident_bytes)
    return largest


def _by_state(
    name: str, help_text: str, label: str, values: Sequence[str], counts: Mapping[str, Mapping[str, int]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=["kind", label])
    for kind in KINDS:
        for value in values:
            family.add_metric([kind, value], counts[kind].get(value, 0))
    return family
