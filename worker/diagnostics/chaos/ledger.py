"""The account of a chaos run: every event in, and what came out for it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.diagnostics.chaos.material import Due, Planned
from worker.messages import comparable


@dataclass(slots=True)
class _Entry:
    due: Due
    statuses: set[str] = field(default_factory=set)
    dead_letters: int = 0

    @property
    def ended(self) -> bool:
        """Whether the event has all that it was to get, or has been set aside for another reason."""
        answered = bool(self.statuses & {"tagged", "no_tags"})
        if self.dead_letters:
            return self.due is Due.SET_ASIDE or answered or "failed" in self.statuses
        return self.due is Due.LOOKED_AT and answered


class Ledger:
    """What was planned, and what has been seen of it."""

    def __init__(self, planned: Iterable[Planned]) -> None:
        self._entries = {each.event_id: _Entry(each.due) for each in planned}
        self._bodies: dict[str, set[bytes]] = {}
        self._ended: set[str] = set()
        self.results = 0
        self.dead_letters = 0
        self.strangers: list[str] = []
        """Ids of what came out without having gone in."""

    def result(self, body: bytes, message_id: str | None) -> None:
        """A result has come."""
        self.results += 1
        data = json.loads(body)["data"]
        digest = hashlib.sha256(comparable(body)).digest()  # a digest for each, or 10,000 results would be held
        self._bodies.setdefault(message_id or "", set()).add(digest)
        if (entry := self._of(data["event_id"])) is not None and data["complete"]:
            entry.statuses.add(data["status"])
            self._note(data["event_id"], entry)

    def dead_letter(self, message_id: str | None) -> None:
        """A dead letter has come."""
        self.dead_letters += 1
        if (entry := self._of(message_id or "")) is not None:
            entry.dead_letters += 1
            self._note(message_id or "", entry)

    @property
    def ended(self) -> int:
        """How many events have ended."""
        return len(self._ended)

    @property
    def lost(self) -> list[str]:
        """The events that have not."""
        return sorted(self._entries.keys() - self._ended)

    @property
    def duplicates(self) -> int:
        """Results beyond the first under one id."""
        return self.results - len(self._bodies)

    @property
    def differing_duplicates(self) -> int:
        """Ids under which results came that differ in more than what was measured."""
        return sum(len(digests) > 1 for digests in self._bodies.values())

    @property
    def blamed(self) -> int:
        """Good images that were set aside: in hand at too many crashes, which this run brought about."""
        return sum(entry.due is Due.LOOKED_AT and entry.dead_letters > 0 for entry in self._entries.values())

    @property
    def misjudged(self) -> int:
        """Bad images that were answered like good ones."""
        return sum(
            entry.due is not Due.LOOKED_AT and bool(entry.statuses & {"tagged", "no_tags"})
            for entry in self._entries.values()
        )

    def _of(self, event_id: str) -> _Entry | None:
        entry = self._entries.get(event_id)
        if entry is None:
            self.strangers.append(event_id)
        return entry

    def _note(self, event_id: str, entry: _Entry) -> None:
        if entry.ended:
            self._ended.add(event_id)
