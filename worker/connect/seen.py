"""Which images were seen, by their content marks, and how far each poller has come. SQLite, in one file.

Losing it costs only work: what is seen once more has the same event id as before. A file that is damaged is set aside;
while nothing can be written, everything counts as not seen.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import structlog

_log = structlog.get_logger(__name__)

_BUSY_TIMEOUT_S: Final = 0.5
_FORGET_EVERY: Final = 1000
_TRY_AGAIN_AFTER_S: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (
    connection TEXT NOT NULL, asset BLOB NOT NULL, mark BLOB NOT NULL, at_s REAL NOT NULL,
    PRIMARY KEY (connection, asset)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_at ON seen (at_s);
CREATE TABLE IF NOT EXISTS cursors (connection TEXT PRIMARY KEY, cursor TEXT NOT NULL);
"""

_T = TypeVar("_T")


class SeenImages:
    """What was seen, of all connections, for `keep_s`. No method raises; `fault` says why nothing is kept."""

    def __init__(self, file: Path, keep_s: float, now_s: Callable[[], float] = time.time) -> None:
        self.file = file
        self.fault: str | None = None
        self._keep_s = keep_s
        self._now_s = now_s
        self._database: sqlite3.Connection | None = None
        self._noted = 0
        self._try_from_s = 0.0
        self._open()

    def has(self, connection: str, asset_id: str, mark: str) -> bool:
        """Whether this content of an asset was noted as the last one. What is asked about now and then is kept."""
        query = "SELECT at_s FROM seen WHERE connection = ? AND asset = ? AND mark = ?"
        values = (connection, _digest(asset_id), _digest(mark))
        row = self._do(lambda database: database.execute(query, values).fetchone(), None)
        if row is not None and row[0] < self._now_s() - self._keep_s / 2:
            self.note(connection, asset_id, mark)
        return row is not None

    def can_keep(self) -> bool:
        """Whether something can be written now, found out by writing."""

        def write(database: sqlite3.Connection) -> bool:
            with database:
                database.execute("INSERT OR REPLACE INTO cursors VALUES ('', '')")  # no connection's name is empty
            return True

        return self._do(write, False)

    def note(self, connection: str, asset_id: str, mark: str) -> None:
        """Its event is published."""
        row = (connection, _digest(asset_id), _digest(mark), self._now_s())

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", row)
                self._noted += 1
                if self._noted % _FORGET_EVERY == 0:
                    database.execute("DELETE FROM seen WHERE at_s < ?", (self._now_s() - self._keep_s,))

        self._do(write, None)

    def cursor(self, connection: str) -> str | None:
        """Where the poller's next listing begins; None for one that begins at the start."""
        query = "SELECT cursor FROM cursors WHERE connection = ?"

        def read(database: sqlite3.Connection) -> str | None:
            row = database.execute(query, (connection,)).fetchone()
            return None if row is None else str(row[0])

        return self._do(read, None)

    def set_cursor(self, connection: str, cursor: str) -> None:
        """Everything up to there is published."""

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (connection, cursor))

        self._do(write, None)

    def forget(self, connection: str) -> None:
        """Every image of a connection counts as not seen."""

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("DELETE FROM seen WHERE connection = ?", (connection,))

        self._do(write, None)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _do(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        if self._database is None and time.monotonic() >= self._try_from_s:
            self._open()
        if self._database is None:
            return otherwise
        try:
            result = work(self._database)
        except (sqlite3.Error, ValueError) as error:
            self._on_error(error)
            return otherwise
        self.fault = None
        return result

    def _open(self) -> None:
        self._try_from_s = time.monotonic() + _TRY_AGAIN_AFTER_S
        for _ in range(2):
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(self.file, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.executescript(_SCHEMA)
            except (sqlite3.Error, OSError) as error:
                self._on_error(error)
            else:
                return

    def _on_error(self, error: Exception) -> None:
        """Close the file; one that is damaged is set aside, with its name in the log."""
        self.close()
        if self.fault is None:
            _log.error("what was seen can't be kept: images may be sent once more", file=str(self.file), why=str(error))
        self.fault = f"{self.file}: {error}"
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            aside = self.file.with_name(f"{self.file.name}.damaged")
            with suppress(OSError):
                self.file.replace(aside)
                _log.warning("the damaged file is set aside", file=str(aside))
            for suffix in ("-wal", "-shm"):
                with suppress(OSError):
                    self.file.with_name(self.file.name + suffix).unlink()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
