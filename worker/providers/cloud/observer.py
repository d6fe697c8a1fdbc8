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


class NoObserver:
    """An observer that ignores everything."""

    def called(self, provider: str, instance: str, failure: str | None, took_s: float) -> None:
        """Ignore the call."""

    def retried(self, provider: str, instance: str) -> None:
        """Ignore the retry."""


NO_OBSERVER = NoObserver()
