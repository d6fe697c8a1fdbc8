"""How `autotag connect` is, as it has said itself by way of RabbitMQ. Asked for when somebody looks at the page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.errors import AutotagError

LATE_AFTER_S: Final = 20.0
"""Older words mean that something is wrong: it says how it is every five seconds."""
_ASKED_AGAIN_AFTER_S: Final = 4.0
_ASKED_AGAIN_AFTER_A_FAULT_S: Final = 10.0
_ANSWERED_WITHIN_S: Final = 1.0
_MAXIMUM_BYTES: Final = 1 << 20


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Trouble(_Said):
    """Why a part does not get on: a fixed word, a sentence that may name assets, and since when (since the epoch)."""

    reason: str
    message: str
    since_s: float


class PollReport(_Said):
    """A poller. `last_complete_s`: when it last listed everything, since the epoch."""

    last_complete_s: float | None = None
    trouble: Trouble | None = None


class TargetReport(_Said):
    """A target. `totals`: results by what became of them since the start."""

    origin: str
    pause: Trouble | None = None
    broker_fault: str | None = None
    ledger_fault: str | None = None
    in_hand: int = 0
    last_write_s: float | None = None
    totals: dict[str, int] = {}


class ConnectionReport(_Said):
    """One connection; `poll` and `target` are None where it has none."""

    instance: str
    inlet: bool = False
    poll: PollReport | None = None
    target: TargetReport | None = None


class ConnectorReport(_Said):
    """All of them. `at_s`: when it was said, since the epoch; `waiting`: results in each connection's queue."""

    at_s: float
    version: str
    stopped: bool
    ready: bool
    why_not: str | None = None
    connections: dict[str, ConnectionReport] = {}
    waiting: dict[str, int] = {}

    def is_late(self, now_s: float) -> bool:
        """Whether it should have said something since. `now_s`: since the epoch."""
        return self.stopped or now_s - self.at_s > LATE_AFTER_S


class ConnectorReports:
    """The last report. `read` takes it from RabbitMQ; what it cannot is no report."""

    def __init__(self, read: Callable[[], Awaitable[bytes | None]]) -> None:
        self._read = read
        self._last: ConnectorReport | None = None
        self._ask_from_s = 0.0
        self._asking = asyncio.Lock()

    async def last(self) -> ConnectorReport | None:
        """What was said last, within a second; None where nothing was."""
        async with self._asking:
            if time.monotonic() >= self._ask_from_s:
                again_s = _ASKED_AGAIN_AFTER_S
                try:
                    async with asyncio.timeout(_ANSWERED_WITHIN_S):
                        body = await self._read()
                    if body is not None and len(body) <= _MAXIMUM_BYTES:
                        self._last = ConnectorReport.model_validate_json(body)
                except (AutotagError, TimeoutError, ValidationError):
                    again_s = _ASKED_AGAIN_AFTER_A_FAULT_S if self._last is None else _ASKED_AGAIN_AFTER_S
                self._ask_from_s = time.monotonic() + again_s
        return self._last
