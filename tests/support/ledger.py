"""Every event that a test publishes, with its results and dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tests.support.polling import until
from tests.support.service import Dms, Message
from worker.messages import comparable


class Ledger:
    """Publishes events and collects their results and dead letters.

    `settle` waits until each event has ended, and checks that it ended once: in one final result, or in one that failed
    and its dead letter.
    """

    def __init__(self, dms: Dms) -> None:
        self.dms = dms
        self.published: set[str] = set()
        self.results: dict[str, list[Message]] = {}
        self.dead: dict[str, list[Message]] = {}

    def publish(self, path: Path, number: int = 1, *, asset_id: str | None = None) -> list[str]:
        """Publish `number` events for a file and return their ids."""
        ids = [self.dms.publish({"path": str(path)}, asset_id=asset_id) for _ in range(number)]
        self.published.update(ids)
        return ids

    def gather(self) -> None:
        """Take the results and dead letters that have arrived so far."""
        while message := self.dms.take("results"):
            self.results.setdefault(message.data["event_id"], []).append(message)
        while letter := self.dms.take("dead-letters"):
            self.dead.setdefault(json.loads(letter.body)["id"], []).append(letter)

    @property
    def ended(self) -> set[str]:
        """The events that have a complete result other than `failed`, or a dead letter."""
        done = {
            key
            for key, messages in self.results.items()
            if any(each.data["complete"] and each.data["status"] != "failed" for each in messages)
        }
        return done | set(self.dead)

    def settle(self, *, within_s: float = 60) -> None:
        """Wait until every event has ended; check that each ended once, and that no duplicates differ."""

        def all_ended() -> bool:
            self.gather()
            # A dead letter may arrive before its failed result, which is waited for too.
            return self.published <= self.ended and set(self.dead) <= set(self.results)

        until(all_ended, f"{len(self.published)} events ended, dead letters with a failed result", within_s=within_s)
        assert set(self.results) | set(self.dead) == self.published
        for messages in self.results.values():
            bodies: dict[str, set[bytes]] = {}
            for message in messages:
                bodies.setdefault(message.properties.message_id, set()).add(comparable(message.body))
            assert all(len(different) == 1 for different in bodies.values()), "duplicates differ"
        for event, messages in self.results.items():
            finals = {each.properties.message_id: each.data["status"] for each in messages if each.data["complete"]}
            assert len(finals) == 1, f"{event} ended in several ways: {finals}"
            assert (event in self.dead) == (set(finals.values()) == {"failed"}), f"{event} ended as {finals}"
        until(lambda: self.dms.depth("images.live") == 0, "the queue is empty", within_s=10)

    def statuses(self, ids: Iterable[str] | None = None) -> set[str]:
        """The statuses of the results of these events, or of all events."""
        wanted = self.published if ids is None else set(ids)
        return {message.data["status"] for key in wanted for message in self.results.get(key, [])}
