"""Who is told of calls to a service: the metrics, as the providers see them."""

from __future__ import annotations

from typing import Protocol


class CallObserver(Protocol):
    """Told of every call."""

    def called(self, provider: str, instance: str, failure: str | None, took_s: float) -> None:
        """A call has ended; `failure` is the reason where it failed."""
        ...

    def retried(self, provider: str, instance: str) -> None:
        """A call that failed is going to be made again."""
        ...


class NoObserver:
    """For those who count nothing."""

    def called(self, provider: str, instance: str, failure: str | None, took_s: float) -> None:
        """Forget it."""

    def retried(self, provider: str, instance: str) -> None:
        """Forget it."""


NO_OBSERVER = NoObserver()
