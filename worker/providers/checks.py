"""What a look at one instance's settings, or one real call, says of a provider: for `autotag check` and for the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from worker.settings import InstanceSettings


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and will not for ever."""
    ERROR = "error"
    """It does not work until somebody acts."""


class CircuitState(StrEnum):
    """State of a circuit breaker, from best to worst."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """One thing that was found. `reason` is a fixed word for programs; `message` says what it is and what to do."""

    provider: str
    instance: str
    severity: Severity
    reason: str
    message: str


@runtime_checkable
class Metered(Protocol):
    """A provider whose calls are counted and may be cut off, by instance."""

    name: str

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has switched the provider on."""
        ...

    def circuits(self) -> dict[str, CircuitState]:
        """State of the circuit of each instance that has asked so far."""
        ...

    def calls_limit(self, instance: InstanceSettings) -> int | None:
        """Calls that an instance may make in a month; None where nothing limits them."""
        ...

    async def calls_used(self, instance: str) -> int:
        """Calls of an instance this month. Raises TryLater when the count can't be read."""
        ...


@runtime_checkable
class Checkable(Protocol):
    """A provider that can say beforehand what is wrong with it."""

    def review(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """What the settings of the instance called `name` alone give away. Costs nothing; for start and reload."""
        ...

    async def check(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """The same, and what one cheap real call says. The provider must have been started."""
        ...
