"""What is logged while a connection to RabbitMQ is away: that it is, once; then a line an hour; and that it is back.

A broker that is down for a night would otherwise fill the log with an attempt every few seconds, which hides all else.
At level `debug` every attempt has its line. An outage lasts until a connection has lasted, so that one that is lost
again and again, each time at once, is one outage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import structlog

from worker.amqp.parameters import Address
from worker.errors import AutotagError, Misconfigured
from worker.operations.clock import written

_log = structlog.get_logger(__name__)

STABLE_AFTER_S = 10.0
"""A connection that lasted longer than this was a good one: its loss is another outage."""

REPEAT_EVERY_S = 3600.0


@dataclass(slots=True)
class _Outage:
    since_s: float
    since: datetime
    logged_s: float
    failures: int = 0
    to_be_mended: set[str] = field(default_factory=set)
    """The reasons logged so far that only an operator can remove."""
    back_logged: bool = False
    lost_again: bool = False
    """After it was logged as being back."""


class OutageLog:
    """Logs the outages of one connection, `role`. Times are monotonic, in seconds; `now` is for people."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._outage: _Outage | None = None

    def failed(self, error: AutotagError, now_s: float, now: datetime, *, next_try_in_s: float) -> None:
        """The connection was lost, or an attempt to connect has failed."""
        outage = self._outage
        due = outage is None or now_s - outage.logged_s >= REPEAT_EVERY_S
        if outage is None:
            outage = self._outage = _Outage(now_s, now, now_s)
        outage.failures += 1
        outage.lost_again = outage.back_logged
        log = _log.warning
        if isinstance(error, Misconfigured):
            # A broker that is back, and now refuses the password, needs a person: not in an hour.
            due = due or error.reason not in outage.to_be_mended
            outage.to_be_mended.add(error.reason)
            log = _log.error
        if due:
            outage.logged_s = now_s
        else:
            log = _log.debug
        log(
            "no connection to RabbitMQ",
            connection=self._role,
            reason=error.reason,
            error=str(error),
            next_try_in_s=round(next_try_in_s, 1),
            failures=outage.failures,
            since=written(outage.since),
        )

    def connected(self, broker: Address, now_s: float) -> None:
        """There is a connection. One that comes after another of the same outage has to last before it is logged."""
        known = self._outage is not None and self._outage.back_logged
        self._log_back(broker, now_s, debug=known)
        if self._outage is not None:
            self._outage.back_logged = True

    def lasted(self, broker: Address, now_s: float) -> None:
        """The connection has been there for `STABLE_AFTER_S`: the outage is over."""
        if self._outage is not None and self._outage.lost_again:
            self._log_back(broker, now_s)
        self._outage = None

    def _log_back(self, broker: Address, now_s: float, *, debug: bool = False) -> None:
        log = _log.debug if debug else _log.info
        outage = self._outage
        of_outage = {} if outage is None else {"after_s": round(now_s - outage.since_s, 1), "failures": outage.failures}
        log("connected to RabbitMQ", connection=self._role, broker=str(broker), **of_outage)
