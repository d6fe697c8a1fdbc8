"""A circuit breaker for one instance's calls to one service: after repeated failures, no calls are made for a while."""

from __future__ import annotations

from worker.errors import ResourceExhausted
from worker.providers.checks import CircuitState
from worker.providers.cloud.errors import CallNotMade, NotTried, ServiceFailed
from worker.sources.breaker import Breaker


class Circuit(Breaker[CallNotMade]):
    """A breaker that counts failed calls to a service. `name` stands for the service and the instance in messages."""

    def __init__(self, name: str, *, failures: int, open_s: float) -> None:
        super().__init__(
            name,
            failures=failures,
            open_s=open_s,
            counted=ServiceFailed,
            not_made=CallNotMade,
            reason="circuit_open",
            # A service that asks for fewer calls has done no work; without a descriptor no call could be made.
            no_evidence=(NotTried, ResourceExhausted),
        )

    @property
    def state(self) -> CircuitState:
        """The state of the library's breaker."""
        return CircuitState(self._state)
