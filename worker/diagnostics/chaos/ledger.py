"""The account of a chaos run: every published event, and which results and dead letters came of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.diagnostics.chaos.workload import ExpectedEnd, PlannedEvent
from worker.messages import comparable


@dataclass(slots=True)
class _Entry:
    expected: ExpectedEnd
    statuses: set[str] = field(default_factory=set)
    dead_letters: int = 0

    @property
    def ended(self) -> bool:
        """Whether everything expected has arrived, or the event was dead-lettered for another reason."""
        answered = bool(self.statuses & {"tagged", "no_tags"})
        if self.dead_letters:
            return self.expected is ExpectedEnd.DEAD_LETTERED or answered or "failed" in self.statuses
        return self.expected is ExpectedEnd.ANSWERED and answered


class Ledger:
    """The planned events, and the results and dead letters counted so far."""

    def __init__(self, planned: Iterable[PlannedEvent]) -> None:
        self._entries = {each.event_id: _Entry(each.expected) for each in planned}
        self._digests: dict[str, set[bytes]] = {}
        self._ended: set[str] = set()
        self.results = 0
        self.dead_letters = 0
        self.strangers: list[str] = []
        """Ids in results and dead letters that belong to no published event."""

    def result(self, body: bytes, message_id: str | None) -> None:
        """Count a result and note its end for its event; equal ids must come with equal bytes."""
        self.results += 1
        data = json.loads(body)["data"]
        digest = hashlib.sha256(comparable(body)).digest()  # instead of the body: there may be 10,000 results
        self._digests.setdefault(message_id or "", set()).add(digest)
        if (entry := self._find(data["event_id"])) is not None and data["complete"]:
            entry.statuses.add(data["status"])
            self._update_ended(data["event_id"], entry)

    def dead_letter(self, message_id: str | None) -> None:
        """Count a dead letter and note it for the event with this id."""
        self.dead_letters += 1
        if (entry := self._find(message_id or "")) is not None:
            entry.dead_letters += 1
            self._update_ended(message_id or "", entry)

    @property
    def ended(self) -> int:
        """How many events have ended."""
        return len(self._ended)

    @property
    def lost(self) -> list[str]:
        """The events that have not ended."""
        return sorted(self._entries.keys() - self._ended)

    @property
    def duplicates(self) -> int:
        """Results beyond the first with the same message id."""
        return self.results - len(self._digests)

    @property
    def differing_duplicates(self) -> int:
        """Message ids whose results differ in more than measured values (times, durations)."""
        return sum(len(digests) > 1 for digests in self._digests.values())

    @property
    def blamed(self) -> int:
        """Good images that were dead-lettered, for having been in hand at too many of the crashes this run caused."""
        return sum(
            entry.expected is ExpectedEnd.ANSWERED and entry.dead_letters > 0 for entry in self._entries.values()
        )

    @property
    def misjudged(self) -> int:
        """Bad images that were answered like good ones."""
        return sum(
            entry.expected is not ExpectedEnd.ANSWERED and bool(entry.statuses & {"tagged", "no_tags"})
            for entry in self._entries.values()
        )

    def _find(self, event_id: str) -> _Entry | None:
        entry = self._entries.get(event_id)
        if entry is None:
            self.strangers.append(event_id)
        return entry

    def _update_ended(self, event_id: str, entry: _Entry) -> None:
        if entry.ended:
            self._ended.add(event_id)
