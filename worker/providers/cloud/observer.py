"""The observer interface for calls to a service; the metrics implement it."""

from __future__ import annotations

from typing import Protocol


class CallObserver(Protocol):
    """Is notified of every call and every retry."""

    def called(self, provider: str, instance: str, failure: str | None, took_s: float) -> None:
        """A call has ended after `took_s` seconds; `failure` is its reason, or None if it succeeded."""
        ...

    def retried(self, provider: str, instance: str) -> None:
        """A failed call is about to be retried."""
        ...

    def put_off(self, provider: str, instance: str, reason: str) -> None:
        """An image waits for a limit, uncounted, instead of being sent."""
        ...


class NoObserver:
    """An observer that ignores everything."""

    def called(self, provider: str, instance: str, failure: str | None, took_s: float) -> None:
        """Ignore the call."""

    def retried(self, provider: str, instance: str) -> None:
        """Ignore the retry."""

    def put_off(self, provider: str, instance: str, reason: str) -> None:
        """Ignore the wait."""


NO_OBSERVER = NoObserver()
