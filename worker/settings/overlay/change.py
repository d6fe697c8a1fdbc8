"""Changing settings: the one way in which commands and the status page write the overlay.

What would be written is loaded first, together with all other sources: a change that is refused, or would have no
effect, is not written. Nothing is lost: the state before is kept as a version, and a change from elsewhere is noticed.
"""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import tomli_w
from filelock import FileLock, Timeout

from worker.errors import CannotBeDone, Misconfigured
from worker.operations.clock import written
from worker.settings.load import LoadedSettings
from worker.settings.overlay.atomic import hand_over, make_directory, write_whole
from worker.settings.overlay.layer import Overlay
from worker.settings.overlay.versions import (
    Version,
    fingerprint_of,
    forget,
    forget_oldest,
    keep,
    read_versions,
)
from worker.settings.overlay.written import as_written, shortened
from worker.settings.schema import SettingKey, dotted, find_field

_LOCK_WAIT_S = 10.0

HEADER = (
    "# Written by `autotag config set` and the status page, over the settings file and below the environment.\n"
    "# `autotag config history` shows who changed what; `autotag config unset KEY` and `undo` take it back.\n"
)


class Unset:
    """In place of a value: the overlay no longer sets the key."""


UNSET: Final = Unset()

Changes = Mapping[SettingKey, Any]
"""What the overlay is to have for each key: a value as TOML has it, or `UNSET`."""


class Loader(Protocol):
    """Reads all sources, with another tree in place of what the overlay's file holds if there is one."""

    def __call__(self, *, overlay: Mapping[str, Any] | None = None) -> LoadedSettings:
        """Raises Misconfigured."""
        ...


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change has done. `version` is None where there was nothing to change."""

    before: LoadedSettings
    after: LoadedSettings
    version: Version | None


class Editor:
    """Writes the overlay that `load` reads. `by`: who does, and from where, for the history."""

    def __init__(self, load: Loader, by: str, clock: datetime) -> None:
        self._load = load
        self._by = by
        self._at = written(clock)

    def change(self, changes: Changes, *, seen: str | None = None) -> Changed:
        """Apply changes. `seen`: the fingerprint of the overlay that they were made for; refused if it has changed.

        Raises CannotBeDone with the reason; then everything is as it was.
        """
        with self._locked() as before:
            overlay = _overlay_of(before)
            _refuse_if_changed(overlay, seen)
            tree = copy.deepcopy(dict(overlay.tree))
            what = []
            for key, value in changes.items():
                what.append(_apply(tree, key, value, before))
            after = self._try(tree, before, [key for key, value in changes.items() if value is not UNSET])
            return self._write(before, after, tree, tuple(what))

    def undo(self, to: int | None = None, *, seen: str | None = None) -> Changed:
        """Take the content of an earlier version again: of `to`, or of the one before that in use.

        Raises CannotBeDone with the reason; then everything is as it was.
        """
        with self._locked() as before:
            overlay = _overlay_of(before)
            _refuse_if_changed(overlay, seen)
            target = _to_restore(overlay, read_versions(overlay.path), to)
            tree = tomllib.loads(target.content)
            after = self._try(tree, before, [])
            what = (f"back to version {target.number}",)
            return self._write(before, after, tree, what, restores=target.stands_for)

    def take_back(self, changed: Changed, why: str) -> None:
        """Write what was there before a change that the running service has refused. Raises CannotBeDone."""
        if changed.version is None:
            return
        with self._locked() as now:
            if _overlay_of(now).fingerprint != changed.version.fingerprint:
                return  # somebody has changed it again: that stands
            old = in_use(_overlay_of(changed.before), read_versions(_overlay_of(now).path))
            restores = old.stands_for if old is not None else None
            tree = dict(_overlay_of(changed.before).tree)
            self._write(now, changed.before, tree, (f"taken back: {why}",), restores=restores)

    def note(self, what: str) -> None:
        """Have the history say what was done that is not in the overlay itself, such as a new secret."""
        with self._locked() as before:
            self._write(before, before, dict(_overlay_of(before).tree), (what,), is_note=True)

    @contextmanager
    def _locked(self) -> Iterator[LoadedSettings]:
        """The settings before the change, with nobody else changing them meanwhile."""
        path = _overlay_of(self._load()).path
        try:
            make_directory(path.parent)
            lock = path.with_name(f"{path.name}.lock")
            with FileLock(lock, timeout=_LOCK_WAIT_S, mode=0o600):
                hand_over(lock)
                yield self._load()
        except Timeout:
            raise CannotBeDone(
                f"{path} is being changed by somebody else; try again", reason="overlay_changed"
            ) from None
        except OSError as error:
            raise CannotBeDone(
                f"{path} cannot be written: {error.strerror}; nothing was changed", reason="overlay_not_written"
            ) from error

    def _try(self, tree: dict[str, Any], before: LoadedSettings, wanted: Sequence[SettingKey]) -> LoadedSettings:
        """The settings with another tree in the overlay. Raises CannotBeDone unless all of it would have effect."""
        try:
            after = self._load(overlay=tree)
        except Misconfigured as error:
            raise CannotBeDone(f"not written: {error}", reason="setting_refused") from error
        known = set(map(str, _overlay_of(before).refused))
        refused = [each for each in _overlay_of(after).refused if str(each) not in known]
        if refused:
            lines = "\n".join(f"  {each.key}: {each.message.partition('; left out')[0]}" for each in refused)
            raise CannotBeDone(f"not written:\n{lines}", reason="setting_refused")
        origin = _overlay_of(after).origin
        for key in wanted:
            if (wins := after.origins.get(key, origin)) != origin and not wins.startswith(f"{origin}, and "):
                raise CannotBeDone(
                    f"not written: {dotted(key)} would have no effect, since {wins} takes precedence; change it there",
                    reason="setting_has_no_effect",
                )
        return after

    def _write(
        self,
        before: LoadedSettings,
        after: LoadedSettings,
        tree: dict[str, Any],
        what: tuple[str, ...],
        *,
        restores: int | None = None,
        is_note: bool = False,
    ) -> Changed:
        overlay = _overlay_of(before)
        path = overlay.path
        if tree == overlay.tree and not overlay.damaged and not is_note:
            return Changed(before, after, None)
        content = _as_toml(tree)
        kept = read_versions(path)
        self._keep_state_before(overlay, kept)
        kept = read_versions(path)
        number = kept[-1].number + 1 if kept else 1
        version = Version(number, self._at, self._by, what, content, restores)
        keep(path, version, kept)
        try:
            write_whole(path, content.encode())
        except BaseException:
            forget(path, version)
            raise
        forget_oldest(path)
        return Changed(before, self._load(), version)

    def _keep_state_before(self, overlay: Overlay, kept: Sequence[Version]) -> None:
        """Keep what is there now, unless it is the newest version: an empty overlay at first, or a change by hand."""
        if overlay.damaged:
            if overlay.path.exists():
                write_whole(overlay.path.with_name(f"{overlay.path.name}.damaged"), overlay.path.read_bytes())
            return
        text = overlay.path.read_text("utf-8-sig") if overlay.path.is_file() else ""
        if kept and kept[-1].fingerprint == fingerprint_of(text):
            return
        number = kept[-1].number + 1 if kept else 0
        what = ("written by hand",) if text else ("nothing was set",)
        by = "somebody who edited the file" if text else "nobody"
        keep(overlay.path, Version(number, self._at, by, what, text), kept)


def why_not_writable(loaded: LoadedSettings) -> str | None:
    """Why the overlay of these settings cannot be written by this process, in words; None when it can, as it seems."""
    path = _overlay_of(loaded).path
    if path.exists() and not os.access(path, os.W_OK):
        return f"{path} is read-only"
    there = next(each for each in path.absolute().parents if each.exists())
    if not there.is_dir():
        return f"{there} is no directory"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} is read-only"


def in_use(overlay: Overlay, versions: Sequence[Version]) -> Version | None:
    """The version that the overlay's file holds; None for one that was edited by hand, or never written."""
    return next((each for each in reversed(versions) if each.fingerprint == overlay.fingerprint), None)


def to_undo(overlay: Overlay, versions: Sequence[Version]) -> Version | None:
    """The version that an undo would restore; None where nothing older is kept."""
    now = in_use(overlay, versions)
    if now is None:  # by hand, or damaged
        return versions[-1] if versions else None
    older = [each for each in versions if each.number < now.stands_for]
    return next((each for each in reversed(older) if each.content != now.content), None)


def _to_restore(overlay: Overlay, versions: Sequence[Version], to: int | None) -> Version:
    if to is not None:
        found = next((each for each in versions if each.number == to), None)
        if found is None:
            known = ", ".join(str(each.number) for each in versions) or "none"
            raise CannotBeDone(f"there is no version {to}; kept are: {known}", reason="no_such_version")
        return found
    found = to_undo(overlay, versions)
    if found is None:
        raise CannotBeDone("there is nothing to undo: no earlier version is kept", reason="no_such_version")
    return found


def _refuse_if_changed(overlay: Overlay, seen: str | None) -> None:
    if seen is None or seen == overlay.fingerprint:
        return
    last = in_use(overlay, read_versions(overlay.path))
    who = f" by {last.by} at {last.at} ({'; '.join(last.what)})" if last else ""
    raise CannotBeDone(
        f"not written: the settings have been changed{who} since you looked; look again, then make your change",
        reason="overlay_changed",
    )


def _apply(tree: dict[str, Any], key: SettingKey, value: Any, before: LoadedSettings) -> str:
    """Set or remove one key in the tree. Returns what that is, for the history."""
    *tables, name = key
    if value is UNSET:
        _remove(tree, key, before)
        return f"{dotted(key)} unset"
    table = tree
    for part in tables:
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            below = table[part] = {}
        table = below
    table[name] = value
    return f"{dotted(key)} = {shortened(value)}"


def _remove(tree: dict[str, Any], key: SettingKey, before: LoadedSettings) -> None:
    path: list[dict[str, Any]] = [tree]
    for part in key[:-1]:
        below = path[-1].get(part)
        if not isinstance(below, dict):
            break
        path.append(below)
    if len(path) < len(key) or key[-1] not in path[-1]:
        where = f"; it comes from {before.origin(key)}" if find_field(key) is not None else ""
        raise CannotBeDone(
            f"{dotted(key)} is not set in {_overlay_of(before).path}{where}", reason="setting_not_in_overlay"
        )
    del path[-1][key[-1]]
    for table, part in zip(reversed(path[:-1]), reversed(key[:-1]), strict=False):
        if not table[part]:  # nothing is left below it
            del table[part]


def _as_toml(tree: dict[str, Any]) -> str:
    """The text of the file; empty for an overlay that sets nothing."""
    if not tree:
        return HEADER
    try:
        return f"{HEADER}\n{tomli_w.dumps(as_written(tree))}"
    except (TypeError, ValueError) as error:
        raise CannotBeDone(f"not written: TOML cannot hold it ({error})", reason="setting_refused") from error


def _overlay_of(loaded: LoadedSettings) -> Overlay:
    if loaded.overlay is None:
        raise RuntimeError("these settings were not read from sources")
    return loaded.overlay


def overlay_path(loaded: LoadedSettings) -> Path:
    """Where the overlay of these settings is."""
    return _overlay_of(loaded).path
