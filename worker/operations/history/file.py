"""The history on disk: a database of ended events, limited in size and age, that can be thrown away at any time.

It is written by one thread of a worker (`writer.py`), or by those of several workers with the same `state_dir`, and
searched by the status page and by `autotag results`. A damaged file is set aside and another begun; one that a newer
version has written is left as it is.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from worker.errors import Unavailable
from worker.operations.history.day import STEPS, DayStep
from worker.operations.history.kept import HistoryPage, HistoryQuery, KeptResult, with_details

FILE_NAME = "history.sqlite3"
SET_ASIDE_NAME = "history.damaged.sqlite3"
"""The last damaged file; the one before it is overwritten, so that damage cannot fill a disk."""

UNUSABLE = "history_unusable"

SCHEMA: tuple[str, ...] = (
    """
    CREATE TABLE results (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, instance TEXT NOT NULL, asset TEXT NOT NULL,
        file_name TEXT, status TEXT NOT NULL, reason TEXT, dead_lettered INTEGER NOT NULL, complete INTEGER NOT NULL,
        took REAL NOT NULL
    ) STRICT;
    CREATE INDEX results_of_instance ON results (instance, number);
    CREATE INDEX results_with_status ON results (status, number);
    CREATE TABLE details (number INTEGER PRIMARY KEY, json TEXT NOT NULL) STRICT;
    CREATE TABLE tags (tag TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (tag, number)) STRICT, WITHOUT ROWID;
    CREATE TABLE steps (
        step INTEGER PRIMARY KEY, answered INTEGER NOT NULL, failed INTEGER NOT NULL, put_off INTEGER NOT NULL
    ) STRICT;
    """,
)
"""What makes each version of the file from the one before it; the number of the version is `user_version`."""

_BUSY_TIMEOUT_S = 5.0
_SEARCH_WITHIN_S = 3.0
_STEPS_OF_THE_CLOCK = 20_000
"""SQLite's instructions between two looks at the clock: well below a millisecond."""

_PARTS = 10
"""A file is pruned by so many parts of it."""
_KEEP_SHARE = 0.9
_CACHE_KIB = 512
_WAL_BYTES = 4 << 20

_COLUMNS = "number, at, instance, asset, file_name, status, reason, dead_lettered, complete, took"

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""The last is a wrong header, or tables that are not ours; our own statements are right."""


class DamagedHistory(Exception):
    """The file is damaged, or no database at all. Raised and caught in this package. `inode`: which file that is."""

    def __init__(self, message: str, inode: int | None = None) -> None:
        super().__init__(message)
        self.inode = inode


class HistoryFile:
    """The file, open for writing. Every method raises Unavailable if it can't be used, or DamagedHistory."""

    def __init__(self, path: Path, maximum_bytes: int, maximum_age_s: float, schema: Sequence[str] = SCHEMA) -> None:
        self._path = path
        self._maximum_bytes = maximum_bytes
        self._maximum_age_s = maximum_age_s
        with _translated(path), suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # names of assets are nobody else's
        with _translated(path):
            self._inode = path.stat().st_ino
            self._database = _connect(path)
        try:
            with self._using():
                self._prepare(schema)
        except BaseException:
            self._database.close()
            raise

    def _prepare(self, schema: Sequence[str]) -> None:
        database = self._database
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise DamagedHistory(str(found), self._inode)
        _require_known(_version(database), self._path, len(schema))  # before anything that writes
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect on a new file only
        database.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
        database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last seconds, never the file
        database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        database.execute("BEGIN IMMEDIATE")
        for step in schema[_version(database) :]:
            for statement in filter(str.strip, step.split(";")):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(schema)}")
        database.execute("COMMIT")

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still there, and has not been deleted or replaced by another."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Close it; its write-ahead log is put into the file."""
        with suppress(sqlite3.Error):
            self._database.close()

    def add(self, results: Iterable[KeptResult], steps: Mapping[int, DayStep]) -> None:
        """Add ended events, and counts to the steps of the day, all or nothing."""
        with self._using(), self._transaction() as database:
            for each in results:
                number = database.execute(
                    "INSERT INTO results (at, instance, asset, file_name, status, reason, dead_lettered, complete, "
                    "took) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        each.at_s,
                        each.instance,
                        each.asset_id,
                        each.file_name,
                        each.status,
                        each.reason,
                        each.dead_lettered,
                        each.complete,
                        each.took_s,
                    ),
                ).lastrowid
                database.execute("INSERT INTO details VALUES (?, ?)", (number, each.details()))
                names = {_folded(tag.name) for tag in each.tags}
                database.executemany("INSERT INTO tags VALUES (?, ?)", [(name, number) for name in names])
            database.executemany(
                "INSERT INTO steps VALUES (?, ?, ?, ?) ON CONFLICT (step) DO UPDATE SET answered = answered + "
                "excluded.answered, failed = failed + excluded.failed, put_off = put_off + excluded.put_off",
                [(number, step.answered, step.failed, step.put_off) for number, step in steps.items()],
            )

    def prune(self, clock_s: float, current_step: int) -> None:
        """Delete what is older than it may be, and the oldest while the file is larger than it may be."""
        with self._using():
            with self._transaction() as database:
                database.execute("DELETE FROM steps WHERE step <= ?", (current_step - STEPS,))
            oldest_s = clock_s - self._maximum_age_s
            while self._delete_oldest("at < ?", oldest_s):
                pass
            if self._used_bytes() > self._maximum_bytes:
                while self._used_bytes() > self._maximum_bytes * _KEEP_SHARE and self._delete_oldest("?", 1):
                    pass
            self._database.execute("PRAGMA incremental_vacuum").fetchall()

    def _delete_oldest(self, condition: str, value: float) -> bool:
        """Delete some of the oldest that meet a condition; whether there were any."""
        with self._transaction() as database:
            first, newest = database.execute("SELECT min(number), max(number) FROM results").fetchone()
            if first is None:
                return False
            last = database.execute(
                f"SELECT max(number) FROM results WHERE number <= ? AND {condition}",  # noqa: S608
                (first + (newest - first) // _PARTS, value),
            ).fetchone()[0]
            if last is None:
                return False
            for table in ("results", "details", "tags"):
                database.execute(f"DELETE FROM {table} WHERE number <= ?", (last,))  # noqa: S608
        return True

    def _used_bytes(self) -> int:
        pages, free, size = (
            int(self._database.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def day(self, current_step: int) -> list[tuple[int, DayStep]]:
        """The counts of the last 24 hours, as numbered steps."""
        with self._using():
            rows = self._database.execute(
                "SELECT step, answered, failed, put_off FROM steps WHERE step > ? AND step <= ?",
                (current_step - STEPS, current_step),
            ).fetchall()
        return [(number, DayStep(*counts)) for number, *counts in rows]

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            with _translated(self._path):
                yield
        except DamagedHistory as error:
            error.inode = self._inode
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise


def search(path: Path, query: HistoryQuery) -> HistoryPage:
    """What is in the file, the newest first. Raises Unavailable if there is none or it can't be used.

    Takes a few seconds at most: what has not been looked through by then is not in the answer, which says so.
    """
    if not path.exists():
        raise Unavailable(f"there is no history yet: no file {path}", reason=UNUSABLE)
    try:
        with _translated(path), closing(_connect(path, mode="ro")) as database:
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            version = _version(database)
            _require_known(version, path)
            return _search(database, query) if version else HistoryPage((), more=False)  # just about to be made
    except DamagedHistory as error:
        raise Unavailable(
            f"the history in {path} is damaged ({error}); the running service sets it aside and begins another one",
            reason=UNUSABLE,
        ) from error


def _search(database: sqlite3.Connection, query: HistoryQuery) -> HistoryPage:
    conditions, values = _conditions(query)
    # The conditions are made of constants; what is searched for is in the values.
    statement = f"SELECT {_COLUMNS} FROM results {conditions} ORDER BY number DESC"  # noqa: S608
    deadline_s = time.monotonic() + _SEARCH_WITHIN_S
    database.set_progress_handler(lambda: time.monotonic() > deadline_s, _STEPS_OF_THE_CLOCK)
    rows: list[tuple[Any, ...]] = []
    in_time = True
    try:
        for row in database.execute(statement, values):
            rows.append(row)
            if len(rows) > query.limit:
                break
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        in_time = False
    database.set_progress_handler(None, 0)
    found = [_kept(database, row) for row in rows[: query.limit]]
    return HistoryPage(tuple(each for each in found if each is not None), len(rows) > query.limit, in_time)


def _conditions(query: HistoryQuery) -> tuple[str, list[object]]:
    conditions: list[str] = []
    values: list[object] = []

    def add(condition: str, *value: object) -> None:
        conditions.append(condition)
        values.extend(value)

    if query.asset is not None:
        pattern = "%" + "".join(f"\\{each}" if each in "\\%_" else each for each in _plain(query.asset)) + "%"
        add("(asset LIKE ? ESCAPE '\\' OR file_name LIKE ? ESCAPE '\\')", pattern, pattern)
    if query.instance is not None:
        add("instance = ?", _plain(query.instance))
    if query.status is not None:
        add("status = ?", _plain(query.status))
    if query.tag is not None:
        add("number IN (SELECT number FROM tags WHERE tag = ?)", _folded(query.tag))
    if query.since_s is not None:
        add("at >= ?", query.since_s)
    if query.before is not None:
        add("number < ?", query.before)
    return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), values


def _kept(database: sqlite3.Connection, row: tuple[Any, ...]) -> KeptResult | None:
    """A row with its details; None if it has just been deleted, or its details can't be read."""
    number, at_s, instance, asset, file_name, status, reason, dead_lettered, complete, took_s = row
    details = database.execute("SELECT json FROM details WHERE number = ?", (number,)).fetchone()
    fields = {
        "number": number,
        "at_s": at_s,
        "instance": instance,
        "asset_id": asset,
        "file_name": file_name,
        "status": status,
        "reason": reason,
        "dead_lettered": bool(dead_lettered),
        "complete": bool(complete),
        "took_s": took_s,
    }
    try:
        return with_details(fields, details[0]) if details is not None else None
    except (ValueError, KeyError, TypeError):
        return None


def set_aside(path: Path, inode: int | None) -> Path:
    """Rename a damaged file, unless another worker has begun a new one in its place; its new path.

    Raises Unavailable if it can't be renamed.
    """
    aside = path.with_name(SET_ASIDE_NAME)
    with _translated(path), suppress(FileNotFoundError):
        if inode is None or path.stat().st_ino == inode:
            for ending in ("-wal", "-shm"):  # they belong to the damaged file, and would damage the next one
                path.with_name(path.name + ending).unlink(missing_ok=True)
            path.replace(aside)
    return aside


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # one thread at a time, but not always the same
    )


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _require_known(version: int, path: Path, known: int = len(SCHEMA)) -> None:
    if version > known:
        raise Unavailable(
            f"the history in {path} was written by a newer version of Autotag and is left as it is; move it away, and "
            "this version begins its own",
            reason=UNUSABLE,
        )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What SQLite and the file system raise, as what a caller decides by."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGE:
            raise DamagedHistory(str(error)) from error
        raise Unavailable(f"the history in {path} cannot be used: {error}", reason=UNUSABLE) from error
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"the history in {path} cannot be used: {error}", reason=UNUSABLE) from error


def _folded(text: str) -> str:
    return _plain(text).casefold()


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode()
