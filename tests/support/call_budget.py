"""A call budget in memory, for tests of those who use one."""

from __future__ import annotations

from worker.errors import TryLater
from worker.providers.cloud.budget import CallBudget, Reservation, unusable


class CountingBudget(CallBudget):
    """Counts what is reserved and released; while it is `broken` it can't be used."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.asked = 0
        self.broken = False

    async def reserve(self, provider: str, instance: str, calls: int, limit: int) -> Reservation:
        self.asked += 1
        if self.broken:
            raise self.failure()
        reserved = max(0, min(calls, limit - self.calls))
        self.calls += reserved
        return Reservation(provider, instance, self.month(), reserved)

    async def release(self, reservation: Reservation, calls: int) -> None:
        self.calls -= calls

    async def used(self, provider: str, instance: str) -> int:
        return self.calls

    def failure(self) -> TryLater:
        return unusable("memory", OSError("it is away"))
