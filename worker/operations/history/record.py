"""The record as a whole: told by the pipeline, the supervisor, the broker and operators; read by the status page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from worker.messages import Result
from worker.operations.history.failures import Failure, Failures
from worker.operations.history.results import MOST_TAGS, RecentResult, RecentResults, Thumbnail, cut
from worker.operations.history.throughput import Throughput
from worker.operations.history.timeline import ChildTimeline, Moment, State, Timeline
from worker.supervision.lifecycle import Notice

_MOST_MOMENTS = 60
_MOST_LIVES = 8


@dataclass(frozen=True, slots=True)
class EndedDelivery:
    """How a delivery ended. `result` where one went out; `asset_id` and `instance` as far as they could be read."""

    ending: str
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
    """What people see of the last while."""

    def __init__(self, now_s: float) -> None:
        self.began_s = now_s
        self.results = RecentResults()
        self.failures = Failures()
        self.throughput = Throughput()
        self.lives: dict[str, ChildTimeline] = {}
        """The model's children, by name."""
        self.taking = Timeline(State.STARTING, now_s)
        """Whether events were taken."""
        self.moments: deque[Moment] = deque(maxlen=_MOST_MOMENTS)

    def ended(self, ended: EndedDelivery, now_s: float) -> None:
        """A delivery was settled."""
        self.throughput.ended(ended.ending, ended.status, ended.took_s, now_s)
        if ended.result is not None:
            self._answered(ended, ended.result, now_s)
        if ended.ending != "answered":
            self._failed(ended, ended.ending, "", ended.reason, ended.message, now_s)

    def child(self, name: str, notice: Notice, now_s: float) -> None:
        """Something happened in a child's life. Only the model's is told: a decoder's death is its image's matter."""
        if not name.startswith("model"):
            return
        life = self.lives.get(name)
        if life is None:
            if len(self.lives) >= _MOST_LIVES:
                return
            life = self.lives[name] = ChildTimeline(now_s)
        moment = life.told(notice, now_s)
        if moment is not None:
            self.moments.append(Moment(now_s, moment[0], name, cut(moment[1])))

    def broker(self, state: State, why: str, now_s: float) -> None:
        """Events are taken from now on, or are not."""
        if self.taking.state(now_s) is not state:
            self.taking.change(state, now_s)
            self.moments.append(Moment(now_s, state.value, "events", cut(why)))

    def operator(self, did: str, now_s: float) -> None:
        """An operator acted: `reset`, `paused`, `resumed`, `reloaded`."""
        self.moments.append(Moment(now_s, "operator", "operator", did))
        if did == "reset":
            for life in self.lives.values():
                if life.state(now_s) is State.DISABLED:
                    life.change(State.STARTING, now_s)

    def _answered(self, ended: EndedDelivery, result: Result, now_s: float) -> None:
        for report in result.providers:
            if report.status in ("failed", "unavailable"):
                self._failed(ended, "provider", report.name, report.reason, report.message, now_s)
        # One that was looked at has asked for its place already, when there was still something to make a picture of.
        thumbnail = ended.thumbnail or (self.results.admit(now_s) if result.image is None else None)
        if thumbnail is None:
            return
        self.results.add(
            RecentResult(
                at_s=now_s,
                asset_id=cut(result.asset_id),
                instance=result.instance,
                file_name=cut(ended.file_name) if ended.file_name else None,
                status=result.status,
                reason=result.reason,
                message=cut(result.message) if result.message else None,
                tags=result.tags[:MOST_TAGS],
                number_of_tags=len(result.tags),
                providers=result.providers,
                complete=result.complete,
                image=result.image,
                took_s=ended.took_s,
                thumbnail=thumbnail,
            )
        )

    def _failed(
        self, ended: EndedDelivery, kind: str, who: str, reason: str | None, message: str | None, now_s: float
    ) -> None:
        self.failures.add(
            Failure(
                kind=kind,
                reason=reason or kind,
                who=who,
                message=cut(message or ""),
                asset_id=cut(ended.asset_id or ""),
                instance=ended.instance or "",
                first_s=now_s,
                last_s=now_s,
            )
        )
