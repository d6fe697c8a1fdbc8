"""The overlay as a source of settings: where it is, what is in it, and what is done about one that is damaged.

A service must start whatever has become of this file: what cannot be used is left out, and said.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.settings.overlay.versions import fingerprint_of, read_versions
from worker.settings.problems import Problem, refused
from worker.settings.schema import SettingKey, dotted, find_field, is_secret
from worker.settings.sources import SettingsReader
from worker.settings.trust import why_not_read

PLACE = ("overlay_file", "state_dir")
"""Settings that say where the overlay is, and cannot be in it."""

_NO_VERSION = "damaged"
"""In place of a fingerprint."""

HOW_TO_REMOVE = "left out; `autotag config unset {}` removes it"


@dataclass(frozen=True, slots=True)
class Overlay:
    """What was read of the overlay. `refused`: what was left out, each with how to remove it."""

    path: Path
    tree: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = fingerprint_of("")
    refused: tuple[Problem, ...] = ()
    damaged: bool = False
    """The file cannot be read; `tree` is of the newest version kept that can."""

    @property
    def origin(self) -> str:
        """Where a value from it comes from, in words."""
        return f"overlay {self.path}"

    def has(self, key: SettingKey) -> bool:
        """Whether it sets this key, whether or not that has effect."""
        return self.get(key) is not None

    def get(self, key: SettingKey) -> Any:
        """The value it has for a key; None for one it does not set."""
        found: Any = self.tree
        for part in key:
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def to_json(self) -> dict[str, Any]:
        """What a person has to know of it: where it is, and what of it is left out."""
        return {
            "path": str(self.path),
            "fingerprint": self.fingerprint,
            "damaged": self.damaged,
            "left_out": [str(each) for each in self.refused],
        }


def read_overlay(path: Path, *, named: bool) -> Overlay:
    """Read the file; one that is not there is empty. It is trusted if it was `named`, or belongs to whom it should."""
    try:
        if not path.exists():
            return Overlay(path)
        if not named and (why := why_not_read(path)) is not None:
            return _unread(path, f"is not read: {why}")
        text = path.read_text("utf-8-sig")
        return Overlay(path, tomllib.loads(text), fingerprint_of(text))
    except OSError as error:
        return _of_newest_version(path, str(error.strerror))
    except (ValueError, RecursionError) as error:  # neither TOML nor UTF-8
        return _of_newest_version(path, f"it is damaged: {error}")


def _unread(path: Path, message: str, tree: Mapping[str, Any] | None = None) -> Overlay:
    return Overlay(path, tree or {}, _NO_VERSION, (Problem(str(path), message),), damaged=True)


def _of_newest_version(path: Path, why: str) -> Overlay:
    for version in reversed(read_versions(path)):
        try:
            tree = tomllib.loads(version.content)
        except ValueError:
            continue
        message = (
            f"cannot be read: {why}; version {version.number} of {version.at} is used in its place, which "
            f"`autotag config undo --to {version.number}` writes again"
        )
        return _unread(path, message, tree)
    return _unread(
        path, f"cannot be read: {why}; no earlier version is kept, and nothing of it is used: mend or remove it"
    )


def take_overlay(reader: SettingsReader, overlay: Overlay) -> list[Problem]:
    """Lay it over what has been read so far. Returns what was left out of it."""
    layer = SettingsReader()
    layer.read_tree(overlay.tree, overlay.origin)
    left_out = [
        Problem(each.key, f"{each.message}; {HOW_TO_REMOVE.format(_bare_key(each))}", each.origin)
        for each in layer.problems
    ]
    for key, value in layer.values.items():
        found = find_field(key)
        if key[0] in PLACE:
            left_out.append(refused(key, value, f"says where the overlay is; {HOW_TO_REMOVE.format(dotted(key))}"))
        elif found is not None and is_secret(found):
            why = "is a secret, which belongs into the secrets directory"
            left_out.append(refused(key, value, f"{why}; {HOW_TO_REMOVE.format(dotted(key))}"))
        else:
            reader.values[key] = value
    for above, names in layer.named.items():
        reader.named.setdefault(above, set()).update(names)
    return left_out


def _bare_key(problem: Problem) -> str:
    return problem.key.partition(" = ")[0]
