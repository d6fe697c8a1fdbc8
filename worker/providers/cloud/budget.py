"""Counts the calls of each instance to each service this month, against a limit that is hard.

Calls are reserved before they are made, in one step, so that concurrent tasks, processes and, with Redis, hosts cannot
exceed the limit together. Calls that the service did not carry out are released. The counters are in a file of the
state directory, for one host, or on a Redis server that all workers use.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from worker.errors import TryLater
from worker.operations.certificates import distrust
from worker.settings import Settings

_MOUNTS = Path("/proc/self/mountinfo")
_TEMPORARY = frozenset({"tmpfs", "ramfs", "overlay"})
"""File systems that are gone with the machine's memory or with a container."""

_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The time by which months begin."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Calls reserved from a budget: how many, and in which month."""

    provider: str
    instance: str
    month: str
    calls: int


class CallBudget(ABC):
    """Counts calls by provider, instance and calendar month (UTC). Tests may replace `now`."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now

    @abstractmethod
    async def reserve(self, provider: str, instance: str, calls: int, limit: int) -> Reservation:
        """Reserve `calls` calls, or what is left of `limit` a month. Raises TryLater if the counter can't be used."""

    @abstractmethod
    async def release(self, reservation: Reservation, calls: int) -> None:
        """Return calls of a reservation that were not carried out. Raises TryLater if the counter can't be used."""

    @abstractmethod
    async def used(self, provider: str, instance: str) -> int:
        """Calls made or reserved this month. Raises TryLater if the counter can't be used."""

    async def close(self) -> None:  # noqa: B027 - only one kind has anything to close
        """Close connections, if there are any."""

    def renews(self) -> datetime:
        """When the next month begins, in UTC."""
        now = self._now()
        return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)

    def renews_in_s(self) -> float:
        """Seconds until the next month begins."""
        return (self.renews() - self._now()).total_seconds()

    def month(self) -> str:
        """The month that calls are counted in now."""
        return self._now().strftime("%Y-%m")


def unusable(where: str, error: Exception) -> TryLater:
    """The error when calls can't be counted. The details are logged: they differ from one time to the next."""
    distrusted = distrust(error, address="`cloud.budget_url`", authority="its `ssl_ca_certs`")
    details = distrusted or f"{type(error).__name__}: {error}"
    _log.error("the call budget can't be used", where=where, error=details)
    return TryLater(
        f"the call budget in {where} can't be used; without it no call is made that has a limit",
        reason="budget_unusable",
        counted=False,
    )


def make_budget(settings: Settings) -> CallBudget:
    """The budget that the settings name. Raises Misconfigured if what it needs is not installed."""
    if settings.cloud.budget_url is None:
        from worker.providers.cloud.budget_file import FileBudget

        return FileBudget(settings.state_dir / "cloud-calls.sqlite3")
    from worker.providers.cloud.budget_redis import RedisBudget  # only where it is used: an extra

    return RedisBudget(settings.cloud.budget_url, prefix=settings.amqp.queue_prefix)


def why_it_does_not_last(settings: Settings) -> str | None:
    """Why a count in the state directory would be gone after a restart; None if nothing speaks against it."""
    if settings.state_dir_is_temporary:
        return f"{settings.state_dir} is temporary (`state_dir_is_temporary`)"
    kind = _filesystem_of(settings.state_dir)
    return None if kind not in _TEMPORARY else f"{settings.state_dir} is on a file system that does not last ({kind})"


def _filesystem_of(directory: Path) -> str | None:
    """The type of the file system that a directory is on, or would be on when it is made; None if unknown.

    Of the mount points above it, the longest holds it, and the last of several at one place (proc_pid_mountinfo(5)).
    """
    at = directory.absolute()
    while not at.exists() and at != at.parent:
        at = at.parent
    at = at.resolve()
    found: tuple[int, str] | None = None
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4]))
        if at.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), after.split(" ")[0])
    return found[1] if found is not None else None
