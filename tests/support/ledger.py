"""Every event that a test publishes, and what became of it: results + dead letters = published."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tests.support.polling import until
from tests.support.service import Dms, Message
from worker.messages import comparable


class Ledger:
    """Publishes events and gathers their ends. `settle` waits for all of them and closes the account."""

    def __init__(self, dms: Dms) -> None:
        self.dms = dms
        self.published: set[str] = set()
        self.results: dict[str, list[Message]] = {}
        self.dead: dict[str, list[Message]] = {}

    def publish(self, path: Path, number: int = 1, *, asset_id: str | None = None) -> list[str]:
        """Publish `number` events for a file; their ids."""
        ids = [self.dms.publish({"path": str(path)}, asset_id=asset_id) for _ in range(number)]
        self.published.update(ids)
        return ids

    def gather(self) -> None:
        """Take what has come so far."""
        while message := self.dms.take("results"):
            self.results.setdefault(message.data["event_id"], []).append(message)
        while letter := self.dms.take("dead-letters"):
            self.dead.setdefault(json.loads(letter.body)["id"], []).append(letter)

    @property
    def ended(self) -> set[str]:
        """The events that have ended: with a complete result that is no failure, or as a dead letter."""
        done = {
            key
            for key, messages in self.results.items()
            if any(each.data["complete"] and each.data["status"] != "failed" for each in messages)
        }
        return done | set(self.dead)

    def settle(self, *, within_s: float = 60) -> None:
        """Wait until every event has ended, and check that no more came out than went in, nor anything different."""

        def all_ended() -> bool:
            self.gather()
            return self.published <= self.ended

        until(all_ended, f"{len(self.published)} events ended", within_s=within_s)
        assert set(self.results) | set(self.dead) == self.published
        assert set(self.dead) <= set(self.results), "a dead letter without a failed result"
        for messages in self.results.values():
            bodies: dict[str, set[bytes]] = {}
            for message in messages:
                bodies.setdefault(message.properties.message_id, set()).add(comparable(message.body))
            assert all(len(different) == 1 for different in bodies.values()), "duplicates differ"
        until(lambda: self.dms.depth("images.live") == 0, "nothing waits any more", within_s=5)

    def statuses(self, ids: Iterable[str] | None = None) -> set[str]:
        """The statuses of these events' results, or of all."""
        wanted = self.published if ids is None else set(ids)
        return {message.data["status"] for key in wanted for message in self.results.get(key, [])}
