"""The call budget in a database file of the state directory: it survives restarts; the processes of a host share it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from worker.providers.cloud.budget import CallBudget, Reservation, unusable, utc_now

_BUSY_TIMEOUT_S = 10.0
_TABLE = """
CREATE TABLE IF NOT EXISTS calls (
    provider TEXT NOT NULL, instance TEXT NOT NULL, month TEXT NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (provider, instance, month)
) STRICT, WITHOUT ROWID
"""


class FileBudget(CallBudget):
    """Counts calls in the database `file`."""

    def __init__(self, file: Path, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__(now)
        self._file = file

    async def reserve(self, provider: str, instance: str, calls: int, limit: int) -> Reservation:
        """Reserve `calls` calls, or what is left of `limit` a month. Raises TryLater if the file can't be used."""
        return await asyncio.to_thread(self._reserve, provider, instance, calls, limit)

    async def release(self, reservation: Reservation, calls: int) -> None:
        """Return calls of a reservation that were not carried out. Raises TryLater if the file can't be used."""
        await asyncio.to_thread(self._release, reservation, calls)

    async def used(self, provider: str, instance: str) -> int:
        """Calls made or reserved this month. Raises TryLater if the file can't be used."""
        return await asyncio.to_thread(self._used, provider, instance)

    def _reserve(self, provider: str, instance: str, calls: int, limit: int) -> Reservation:
        month = self.month()
        with self._transaction() as database:
            reserved = max(0, min(calls, limit - _used(database, provider, instance, month)))
            database.execute(
                "INSERT INTO calls VALUES (?, ?, ?, ?) "
                "ON CONFLICT (provider, instance, month) DO UPDATE SET used = used + excluded.used",
                (provider, instance, month, reserved),
            )
        return Reservation(provider, instance, month, reserved)

    def _release(self, reservation: Reservation, calls: int) -> None:
        with self._transaction() as database:
            database.execute(
                "UPDATE calls SET used = max(0, used - ?) WHERE provider = ? AND instance = ? AND month = ?",
                (calls, reservation.provider, reservation.instance, reservation.month),
            )

    def _used(self, provider: str, instance: str) -> int:
        with self._transaction() as database:
            return _used(database, provider, instance, self.month())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction on a new connection: any thread may run it, and a call to a service costs far more."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")  # takes the write lock first: what is read stays true until COMMIT
                database.execute(_TABLE)
                yield database
                database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise unusable(str(self._file), error) from error


def _used(database: sqlite3.Connection, provider: str, instance: str, month: str) -> int:
    row = database.execute(
        "SELECT used FROM calls WHERE provider = ? AND instance = ? AND month = ?", (provider, instance, month)
    ).fetchone()
    return int(row[0]) if row else 0
