"""The history as a whole: fed by the pipeline, the supervisor, the broker and operators; read by the page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from worker.amqp.delivery import Ending
from worker.messages import Result
from worker.operations.history.day import Day
from worker.operations.history.failures import PROVIDER_FAILED, Failure, FailureKind, Failures
from worker.operations.history.results import MAXIMUM_TAGS, RecentResult, RecentResults, Thumbnail, truncate
from worker.operations.history.tenants import Tenants
from worker.operations.history.throughput import Throughput, outcome_of
from worker.operations.history.timeline import ChildTimeline, Occurrence, State, Timeline
from worker.operations.history.writer import HistoryWriter
from worker.supervision.lifecycle import Notice

_MAXIMUM_OCCURRENCES = 60
_MAXIMUM_CHILDREN = 8


@dataclass(frozen=True, slots=True)
class EndedDelivery:
    """How a delivery ended. `result` if one was published; `asset_id` and `instance` as far as they could be read."""

    ending: Ending
    status: str | None
    reason: str | None
    message: str | None
    asset_id: str | None
    instance: str | None
    file_name: str | None
    result: Result | None
    thumbnail: Thumbnail | None
    took_s: float


class History:
    """What happened recently, within fixed bounds. Not thread-safe: it is used from the event loop alone.

    `writer` keeps ended events on disk, where that is wanted.
    """

    def __init__(self, now_s: float, writer: HistoryWriter | None = None) -> None:
        self.began_s = now_s
        self.writer = writer
        self.results = RecentResults()
        self.failures = Failures()
        self.throughput = Throughput()
        self.day = Day()
        self.tenants = Tenants()
        self.children: dict[str, ChildTimeline] = {}
        """Timelines of the model's children, by name."""
        self.consuming = Timeline(State.STARTING, now_s)
        """Whether events were taken."""
        self.occurrences: deque[Occurrence] = deque(maxlen=_MAXIMUM_OCCURRENCES)

    def on_delivery_ended(self, ended: EndedDelivery, now_s: float, clock_s: float) -> None:
        """Record a settled delivery. `clock_s`: the wall clock, in seconds since 1970."""
        outcome = outcome_of(ended.ending, ended.status)
        self.throughput.record(ended.ending, ended.status, ended.took_s, now_s)
        self.day.record(outcome, clock_s)
        self.tenants.record(ended.instance, outcome, now_s)
        if self.writer is not None:
            self.writer.add(ended, clock_s)
        if ended.result is not None:
            self._record_result(ended, ended.result, now_s)
        if ended.ending is not Ending.ANSWERED:
            self._record_failure(ended, ended.ending, "", ended.reason, ended.message, now_s)

    def on_child_notice(self, name: str, notice: Notice, now_s: float) -> None:
        """Record a notice about a child. Only model children are recorded: a decoder's crash concerns its image."""
        if not name.startswith("model"):
            return
        timeline = self.children.get(name)
        if timeline is None:
            if len(self.children) >= _MAXIMUM_CHILDREN:
                return
            timeline = self.children[name] = ChildTimeline(now_s)
        occurrence = timeline.on_notice(notice, now_s)
        if occurrence is not None:
            kind, description = occurrence
            self.occurrences.append(Occurrence(now_s, kind, name, truncate(description)))

    def on_consuming_state(self, state: State, why: str, now_s: float) -> None:
        """Record whether events are taken from now on, and why or why not."""
        if self.consuming.state(now_s) is not state:
            self.consuming.change(state, now_s)
            self.occurrences.append(Occurrence(now_s, state.value, "events", truncate(why)))

    def on_operator_action(self, action: str, now_s: float) -> None:
        """Record what an operator did: `reset`, `paused`, `resumed` or `reloaded`."""
        self.occurrences.append(Occurrence(now_s, "operator", "operator", action))
        if action == "reset":
            for timeline in self.children.values():
                if timeline.state(now_s) is State.DISABLED:
                    timeline.change(State.STARTING, now_s)

    def _record_result(self, ended: EndedDelivery, result: Result, now_s: float) -> None:
        for report in result.providers:
            if report.status in ("failed", "unavailable"):
                self._record_failure(ended, PROVIDER_FAILED, report.name, report.reason, report.message, now_s)
        # A tagged image was admitted earlier, while its content was still there to make a thumbnail of.
        thumbnail = ended.thumbnail or (self.results.admit(now_s) if result.image is None else None)
        if thumbnail is None:
            return
        self.results.add(
            RecentResult(
                at_s=now_s,
                asset_id=truncate(result.asset_id),
                instance=result.instance,
                file_name=truncate(ended.file_name) if ended.file_name else None,
                status=result.status,
                reason=result.reason,
                message=truncate(result.message) if result.message else None,
                tags=result.tags[:MAXIMUM_TAGS],
                number_of_tags=len(result.tags),
                providers=result.providers,
                complete=result.complete,
                image=result.image,
                took_s=ended.took_s,
                thumbnail=thumbnail,
            )
        )

    def _record_failure(
        self,
        ended: EndedDelivery,
        kind: FailureKind,
        provider: str,
        reason: str | None,
        message: str | None,
        now_s: float,
    ) -> None:
        self.failures.add(
            Failure(
                kind=kind,
                reason=reason or kind,
                provider=provider,
                message=truncate(message or ""),
                asset_id=truncate(ended.asset_id or ""),
                instance=ended.instance or "",
                first_s=now_s,
                last_s=now_s,
            )
        )
