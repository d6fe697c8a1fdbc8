"""Checks of a provider for one instance, by its settings or by one real call: for `autotag check` and the log.

Also the optional protocols that a provider may implement beyond `Provider`: `Checkable` and `Metered`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from worker.settings import InstanceSettings


class Severity(StrEnum):
    """How serious the outcome of a check is."""

    OK = "ok"
    WARNING = "warning"
    """It works now, but will stop working in future."""
    ERROR = "error"
    """It does not work until an operator acts."""


class CircuitState(StrEnum):
    """State of a circuit breaker, from best to worst."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """The outcome of one check. `reason` is a fixed word for programs; `message` explains it and what to do."""

    provider: str
    instance: str
    severity: Severity
    reason: str
    message: str


@runtime_checkable
class Metered(Protocol):
    """A provider with a call budget and a circuit breaker for each instance."""

    name: str

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has enabled the provider."""
        ...

    def circuits(self) -> dict[str, CircuitState]:
        """State of each instance's circuit breaker. Instances without calls are absent."""
        ...

    def calls_limit(self, instance: InstanceSettings) -> int | None:
        """Calls that an instance may make in a month; None without a limit."""
        ...

    async def calls_used(self, instance: str) -> int:
        """Calls of an instance this month. Raises TryLater if the count can't be read."""
        ...


@runtime_checkable
class Checkable(Protocol):
    """A provider that can be checked before any event arrives."""

    def review(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """Problems visible in the settings of the instance `name` alone. Makes no call; for start and reload."""
        ...

    async def check(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """The same, and the outcome of one cheap real call. The provider must have been started."""
        ...
