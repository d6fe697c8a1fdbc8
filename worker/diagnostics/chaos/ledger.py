"""The account of a chaos run: every published event, and which results and dead letters came of it. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.diagnostics.chaos.judge import Flaw, flaws_of_dead_letter, flaws_of_result, lacks_model
from worker.diagnostics.chaos.workload import Expectation, ExpectedEnd, PlannedEvent
from worker.messages import comparable


@dataclass(slots=True)
class _Account:
    """What came of one event. `finals`: the status of each complete result, by its message id."""

    expected: Expectation
    finals: dict[str, str] = field(default_factory=dict)
    partials: set[str] = field(default_factory=set)
    dead_letters: list[str | None] = field(default_factory=list)
    flaws: set[Flaw] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        """Whether all of an end is there: a final answer, or a dead letter with its failed result where one is due."""
        statuses = set(self.finals.values())
        if self.expected.end is ExpectedEnd.DEAD_LETTERED:
            return bool(self.dead_letters)
        return bool(statuses - {"failed"}) or ("failed" in statuses and bool(self.dead_letters))

    @property
    def has_second_end(self) -> bool:
        """Whether it ended in two ways."""
        answered = bool(set(self.finals.values()) - {"failed"})
        return len(self.finals) > 1 or len(set(self.dead_letters)) > 1 or (answered and bool(self.dead_letters))

    @property
    def status(self) -> str:
        """How it ended, in one word."""
        return " and ".join(sorted(set(self.finals.values()))) or ("dead_lettered" if self.dead_letters else "lost")


class Ledger:
    """The planned events, and the results and dead letters counted so far. Times are monotonic seconds."""

    def __init__(self, planned: Iterable[PlannedEvent]) -> None:
        self._accounts = {each.event_id: _Account(each.expected) for each in planned}
        self._bodies: dict[str, dict[bytes, None]] = {}
        """By message id: the bodies that differ in more than measured values, in the order of their arrival."""
        self._ended: set[str] = set()
        self._last_end_s: float | None = None
        self._duplicates = 0
        self.results = 0
        self.dead_letters = 0
        self.partial_results = 0
        self.late_partial_results = 0
        """Incomplete results, with an id of their own, that came after the complete one: to be ignored."""
        self.without_model = 0
        """Final results made while the model was disabled, from another provider's answer alone."""
        self.strangers: list[str] = []
        """Ids in results and dead letters that belong to no published event."""
        self.longest_pause_s = 0.0
        """The longest time in which no event ended."""

    def begin(self, now_s: float) -> None:
        """The first event is about to be published."""
        self._last_end_s = now_s

    def result(self, body: bytes, message_id: str | None, now_s: float = 0.0) -> None:
        """Count a result and judge it; equal ids must come with equal bytes."""
        self.results += 1
        key = message_id or ""
        try:
            data = json.loads(body)["data"]
            compared = comparable(body)
            account = self._accounts[data["event_id"]]
        except (ValueError, KeyError, TypeError):
            self.strangers.append(key)
            return
        self._duplicates += key in self._bodies
        self._bodies.setdefault(key, {})[compared] = None
        if len(self._bodies[key]) > 1:
            account.flaws.add(Flaw.DIFFERING_DUPLICATE)
        account.flaws |= flaws_of_result(account.expected, data)
        if data["complete"]:
            self.without_model += key not in account.finals and lacks_model(data)
            account.finals[key] = data["status"]
        else:
            self.partial_results += 1
            self.late_partial_results += bool(account.finals) and key not in account.partials
            account.partials.add(key)
        self._note_end(data["event_id"], account, now_s)

    def dead_letter(self, message_id: str | None, reason: str | None, now_s: float = 0.0) -> None:
        """Count a dead letter and judge it. `reason` is its header; RabbitMQ's own dead letters have none."""
        self.dead_letters += 1
        account = self._accounts.get(message_id or "")
        if account is None:
            self.strangers.append(message_id or "")
            return
        account.dead_letters.append(reason)
        account.flaws |= flaws_of_dead_letter(account.expected, reason)
        self._note_end(message_id or "", account, now_s)

    @property
    def ended(self) -> int:
        """How many events have ended."""
        return len(self._ended)

    def has_ended(self, event_id: str) -> bool:
        """Whether this event has ended."""
        return event_id in self._ended

    @property
    def ends(self) -> dict[str, int]:
        """Events by how they ended."""
        return dict(sorted(Counter(account.status for account in self._accounts.values()).items()))

    @property
    def duplicates(self) -> int:
        """Results beyond the first with the same message id, and dead letters beyond the first of an event."""
        return self._duplicates + sum(max(0, len(each.dead_letters) - 1) for each in self._accounts.values())

    def flaws(self) -> dict[Flaw, list[str]]:
        """The events, or message ids, of each flaw; every flaw is there."""
        found: dict[Flaw, list[str]] = {flaw: [] for flaw in Flaw}
        for event_id, account in self._accounts.items():
            final = account.flaws | ({Flaw.SECOND_END} if account.has_second_end else set())
            for flaw in final if event_id in self._ended else final | {Flaw.LOST}:
                found[flaw].append(event_id)
        found[Flaw.STRANGER] += self.strangers
        return found

    def evidence(self, event_id: str) -> list[str]:
        """Every different result of an event, without measured values, and the reason of each of its dead letters."""
        if (account := self._accounts.get(event_id)) is None:
            return []
        bodies = [body for key in (*account.partials, *account.finals) for body in self._bodies[key]]
        letters = [f"dead letter with the reason {reason}" for reason in account.dead_letters]
        return [body.decode() for body in bodies] + letters

    def _note_end(self, event_id: str, account: _Account, now_s: float) -> None:
        if event_id in self._ended or not account.ended:
            return
        self._ended.add(event_id)
        if self._last_end_s is not None:
            self.longest_pause_s = max(self.longest_pause_s, now_s - self._last_end_s)
        self._last_end_s = now_s
