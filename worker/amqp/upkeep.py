"""Keeps one connection up: opens a session, has it reconcile what is open with what is wanted, sleeps until a change.

A closed channel, a deleted queue and a pause are differences that the session's `reconcile` removes; after a lost
connection another is made, after a jittered pause that grows, to the next of the addresses in `amqp.url`. What
of that is logged is decided in `outage`.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import structlog

from worker.amqp.connection import Connection
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.outage import STABLE_AFTER_S, OutageLog
from worker.amqp.parameters import Address
from worker.errors import AutotagError

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.5


class UpkeepPhase(StrEnum):
    """What the loop is doing."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    """Not connected, and waiting for the next attempt; `Upkeep.error` holds the reason."""
    CLOSED = "closed"


class KeptSession(Protocol):
    """One connection and what is kept open on it."""

    @property
    def connection(self) -> Connection:
        """The connection; when it is lost, the session ends."""
        ...

    async def reconcile(self) -> None:
        """Make everything as it is wanted. Raises an AutotagError when the session cannot be used any more."""

    async def close(self) -> None:
        """Disconnect."""


S = TypeVar("S", bound=KeptSession)


class Upkeep(Generic[S]):
    """One loop, from `start` to `close`. `role` is for the log; `on_change` follows each new `phase` or `error`."""

    def __init__(
        self,
        role: str,
        open_session: Callable[[Address], Awaitable[S]],
        addresses: Sequence[Address],
        *,
        reconnect_max_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self.phase = UpkeepPhase.CONNECTING
        self.error: AutotagError | None = None
        """Why there is no connection; None while there is one."""
        self.session: S | None = None
        """The session, once it has been reconciled for the first time."""
        self._role = role
        self._outages = OutageLog(role)
        self._open_session = open_session
        self._addresses = addresses
        self._next_address = 0
        self._reconnect_max_s = reconnect_max_s
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._connected_at_s = math.inf
        self._lasting: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_losing(self) -> bool:
        """Whether the connection is lost, and the loop is about to notice."""
        return self.session is not None and self.session.connection.lost.done()

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name=f"amqp {self._role}")

    async def close(self) -> None:
        """Disconnect, and connect no more. Closing twice is harmless."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._set_phase(UpkeepPhase.CLOSED)

    def wake(self) -> None:
        """Have the session reconciled."""
        self._wake.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            self._connected_at_s = math.inf
            try:
                await self._connect_and_serve()
            except AutotagError as error:
                reason: AutotagError = error
            except Exception as error:  # noqa: BLE001 - a bug of ours must not leave a worker that does nothing
                _log.exception("unexpected error on the connection to RabbitMQ", connection=self._role)
                reason = BrokerUnreachable(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
            # After a good connection the pause is a short one again
            failures = 1 if time.monotonic() - self._connected_at_s > STABLE_AFTER_S else min(failures + 1, 16)
            longest_s = min(self._reconnect_max_s, _FIRST_PAUSE_S * 2**failures)
            pause_s = random.uniform(0, longest_s)  # noqa: S311 - full jitter keeps workers apart, it guards no secret
            self.error = reason
            self._set_phase(UpkeepPhase.WAITING)
            self._outages.failed(reason, time.monotonic(), datetime.now(UTC), next_try_in_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _connect_and_serve(self) -> None:
        """Open one session and serve until it fails. Never returns; raises the reason for its end."""
        self._set_phase(UpkeepPhase.CONNECTING)
        address = self._addresses[self._next_address]
        self._next_address = (self._next_address + 1) % len(self._addresses)
        session = await self._open_session(address)
        try:
            await self._serve(session)
        finally:
            if self._lasting is not None:
                self._lasting.cancel()
            self.session = None
            await session.close()

    async def _serve(self, session: S) -> None:
        session.connection.on_change = self._on_connection_change
        while True:
            self._wake.clear()
            if session.connection.lost.done():
                raise session.connection.lost.result()
            await session.reconcile()
            if self.session is None:
                self.session = session
                self._connected_at_s = time.monotonic()
                self.error = None
                self._log_connected(session.connection.broker)
                self._set_phase(UpkeepPhase.CONNECTED)
            else:
                self._on_change()
            await self._wake.wait()

    def _log_connected(self, broker: Address) -> None:
        self._outages.connected(broker, time.monotonic())
        self._lasting = asyncio.get_running_loop().call_later(
            STABLE_AFTER_S, lambda: self._outages.lasted(broker, time.monotonic())
        )

    def _on_connection_change(self) -> None:
        self._on_change()
        self.wake()

    def _set_phase(self, phase: UpkeepPhase) -> None:
        self.phase = phase
        self._on_change()
