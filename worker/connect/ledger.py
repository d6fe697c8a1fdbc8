"""The ledger: which tags we have written to which asset, and which of them people have removed. SQLite, in one file.

A write is entered before it is made and again once it was made: what is only `adding` may or may not stand in the
target after a crash, and what is missing of it was not removed by people. A ledger that cannot be read is set aside,
one that cannot be written is not used to remove anything: a lost ledger only ever adds.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from worker.connect.merge import folded

_log = structlog.get_logger(__name__)

_BUSY_TIMEOUT_S: Final = 0.5
_LOG_INTERVAL_S: Final = 60.0
_TRY_INTERVAL_S: Final = 5.0
_READ: Final = (
    "SELECT mine, adding, removing, removed, event_time_s, result_time_s FROM assets WHERE connection = ? AND asset = ?"
)
_DAMAGE: Final = ("SQLITE_ERROR", "SQLITE_IOERR_SHORT_READ")
"""The first: there is no such table, or no such column."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS assets (
    connection TEXT NOT NULL, asset TEXT NOT NULL,
    mine TEXT NOT NULL, adding TEXT NOT NULL, removing TEXT NOT NULL, removed TEXT NOT NULL,
    event_time_s REAL, result_time_s REAL NOT NULL,
    PRIMARY KEY (connection, asset)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class OwnTag:
    """A tag of ours in a target, and where it comes from."""

    name: str
    """As the target spells it."""
    label: str
    """The tag's name in the result."""
    provider: str


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """What is known of one asset. Times are seconds since the epoch."""

    mine: tuple[OwnTag, ...] = ()
    adding: tuple[OwnTag, ...] = ()
    """A write of these was begun, and it is not known whether it was made."""
    removing: tuple[str, ...] = ()
    """Names; likewise."""
    removed: tuple[OwnTag, ...] = ()
    """By people."""
    event_time_s: float | None = None
    """Of the newest event whose result was taken; None where events have none."""
    result_time_s: float = 0.0

    def is_newer_than(self, event_time_s: float | None, result_time_s: float) -> bool:
        """Whether a result with these times has been overtaken. The same result once more has not."""
        if event_time_s is not None and self.event_time_s is not None and event_time_s != self.event_time_s:
            return event_time_s < self.event_time_s
        return result_time_s < self.result_time_s

    def mine_before(self, current: Iterable[str], theirs: Iterable[str] = ()) -> tuple[OwnTag, ...]:
        """Our tags before a change: with what stands of a write that was begun, without what we were removing.

        `theirs` are tags that people had set before that write.
        """
        standing = {folded(name) for name in current}
        known = {folded(name) for name in theirs}
        removing = {folded(name) for name in self.removing}
        mine = {folded(tag.name): tag for tag in self.mine}
        for tag in self.adding:
            fold = folded(tag.name)
            if fold in standing and fold not in known:
                mine.setdefault(fold, tag)
        return tuple(tag for fold, tag in mine.items() if fold in standing or fold not in removing)


@dataclass(frozen=True, slots=True)
class Removals:
    """How often people have removed one label of one provider, and on how many assets it stands."""

    connection: str
    label: str
    provider: str
    removed: int
    standing: int


class Ledger:
    """All connections' ledger. Methods do not raise: what cannot be kept is logged and shown in `fault`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fault: str | None = None
        """Why nothing can be kept; None while it can. While it is set, nothing may be removed from a target."""
        self._database: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._log_from_s = 0.0
        self._try_from_s = 0.0
        self._open()

    def get(self, connection: str, asset: str) -> AssetRecord | None:
        """What is known of an asset. While the ledger cannot be written, that is what stood in it before."""
        if self._database is not None and self._inode != _inode_of(self.file):
            _log.error(
                "the ledger's file is gone or another one: from here on tags are only added", file=str(self.file)
            )
            self.close()
            self._open()
        for _ in range(2):
            if self._database is None:
                self._try_again()
            if self._database is None:
                return None
            try:
                row = self._database.execute(_READ, (connection, _text(asset))).fetchone()
                return _record(row) if row is not None else None
            except (sqlite3.Error, ValueError, TypeError) as error:
                self._on_error(error)
        return None

    def put(self, connection: str, asset: str, record: AssetRecord) -> bool:
        """Keep what is known of an asset; returns whether it is kept."""
        lists: tuple[Sequence[OwnTag | str], ...] = (record.mine, record.adding, record.removing, record.removed)
        values = (connection, _text(asset), *map(_json, lists), record.event_time_s, record.result_time_s)
        if self.fault is not None or self._database is None:
            self._try_again()
        if self._database is None or self.fault is not None:
            return False
        try:
            self._database.execute("INSERT OR REPLACE INTO assets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            self._on_error(error)
            return False
        return True

    def any_asset(self, connection: str) -> str | None:
        """One asset of a connection, if any is known."""
        if self._database is None:
            return None
        try:
            row = self._database.execute(
                "SELECT asset FROM assets WHERE connection = ? LIMIT 1", (connection,)
            ).fetchone()
        except sqlite3.Error:
            return None
        return str(row[0]) if row is not None else None

    def removals(self, connection: str | None = None) -> list[Removals]:
        """What people have removed, the most often removed first. Raises sqlite3.Error."""
        if self._database is None:
            return []
        rows = self._database.execute(
            """
            SELECT connection, json_extract(tag, '$[1]') AS label, json_extract(tag, '$[2]') AS provider,
                sum(removed), sum(NOT removed)
            FROM (
                SELECT connection, value AS tag, 1 AS removed FROM assets, json_each(assets.removed)
                UNION ALL
                SELECT connection, value, 0 FROM assets, json_each(assets.mine)
            ) WHERE ?1 IS NULL OR connection = ?1
            GROUP BY connection, label, provider HAVING sum(removed) > 0
            ORDER BY sum(removed) DESC, connection, label, provider
            """,
            (connection,),
        )
        return [Removals(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _open(self) -> None:
        """Open the file for writing or, where that cannot be, for reading. One that is damaged is set aside first."""
        for is_last in (False, True):
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._database = _opened_for_writing(self.file)
            except (sqlite3.Error, OSError) as error:
                if not is_last and _is_damage(error) and self._set_aside(error):
                    continue
                self._on_fault(error)
                self._database = _opened_for_reading(self.file)
            else:
                if self.fault is not None:
                    _log.info("the ledger can be written again", file=str(self.file))
                self.fault = None
            break
        self._inode = _inode_of(self.file)

    def _try_again(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._try_from_s:
            self._try_from_s = now_s + _TRY_INTERVAL_S
            self.close()
            self._open()

    def _on_error(self, error: Exception) -> None:
        if _is_damage(error):
            self.close()
            self._set_aside(error)
            self._open()
        else:
            self._on_fault(error)

    def _on_fault(self, error: Exception) -> None:
        self.fault = f"the ledger {self.file} cannot be used: {error}; until it can, tags are added and none removed"
        now_s = time.monotonic()
        self._try_from_s = now_s + _TRY_INTERVAL_S
        if now_s >= self._log_from_s:
            self._log_from_s = now_s + _LOG_INTERVAL_S
            _log.error(
                "the ledger cannot be used: tags are added and none removed", file=str(self.file), why=str(error)
            )

    def _set_aside(self, error: Exception) -> bool:
        aside = f"{self.file.name}.damaged-{time.time_ns()}"
        try:
            for file in (self.file, *_companions(self.file)):
                if file.exists():
                    file.rename(file.with_name(aside + file.name.removeprefix(self.file.name)))
        except OSError:
            return False
        _log.error(
            "the ledger is damaged and was set aside: for what stood in it, tags are only added from here on",
            file=str(self.file),
            kept_as=aside,
            why=str(error),
        )
        return True


def _opened_for_writing(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        file.chmod(0o600)
        # What was entered in the last moments before a power cut may be lost; what a process has entered is not.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_SCHEMA)
        database.execute(_READ, ("", ""))
        database.execute("PRAGMA user_version = 1")  # a write: a file that can only be read is found out here
    except (sqlite3.Error, OSError):
        database.close()
        raise
    return database


def _opened_for_reading(file: Path) -> sqlite3.Connection | None:
    """Of a file that nobody can write, which is why it may be called immutable; None where it cannot be read either."""
    try:
        database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error:
        return None
    try:
        database.execute(_READ, ("", ""))
    except sqlite3.Error:
        database.close()
        return None
    return database


def _is_damage(error: Exception) -> bool:
    """Whether the file is no ledger: neither locked, nor read-only, nor on a full disk."""
    if isinstance(error, OSError):
        return False
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorname in _DAMAGE
    return isinstance(error, sqlite3.DatabaseError | ValueError | TypeError)


def _companions(file: Path) -> Iterator[Path]:
    for suffix in ("-wal", "-shm"):
        yield file.with_name(file.name + suffix)


def _inode_of(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


def _text(asset: str) -> str:
    """An asset id as SQLite takes it: one that is not UTF-8 has lone surrogates."""
    return asset.encode("utf-8", "backslashreplace").decode()


def _json(tags: Sequence[OwnTag | str]) -> str:
    return json.dumps([each if isinstance(each, str) else (each.name, each.label, each.provider) for each in tags])


def _record(row: tuple[str, str, str, str, float | None, float]) -> AssetRecord:
    mine, adding, removing, removed, event_time_s, result_time_s = row
    return AssetRecord(
        mine=_own_tags(mine),
        adding=_own_tags(adding),
        removing=tuple(str(name) for name in json.loads(removing)),
        removed=_own_tags(removed),
        event_time_s=event_time_s,
        result_time_s=float(result_time_s),
    )


def _own_tags(text: str) -> tuple[OwnTag, ...]:
    return tuple(OwnTag(str(name), str(label), str(provider)) for name, label, provider in json.loads(text))
