"""Leaving out what cannot be used of the overlay, so that the rest of the settings can be.

The overlay was valid when it was written. A new version, or another value in the file below it, may refuse a part of it
later: a service that then did not start would be worse than one that says so and goes on without that part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from worker.settings.overlay.layer import HOW_TO_REMOVE, Overlay
from worker.settings.problems import Problem, SettingValue, refused
from worker.settings.schema import SettingKey, dotted
from worker.settings.sources import SettingsReader

_MAXIMUM_TRIALS = 64


class Checked(Protocol):
    """What validation made of the values of a reader."""

    @property
    def problems(self) -> Sequence[Problem]:
        """What is wrong with them, each with the keys that it is `about`."""
        ...


_Result = TypeVar("_Result", bound=Checked)


def leave_out_refused(
    reader: SettingsReader,
    overlay: Overlay,
    below: dict[SettingKey, SettingValue],
    check: Callable[[], _Result],
) -> tuple[_Result, list[Problem]]:
    """Take values of the overlay out of the reader until none of them is refused; `below`: what they lie over.

    Returns what `check` says then, and what was left out. What is wrong without the overlay too stays wrong.
    """
    left_out: list[Problem] = []

    def leave_out(key: SettingKey, why: str) -> None:
        value = reader.values.pop(key)
        if key in below:
            reader.values[key] = below[key]
        left_out.append(refused(key, value, f"{why}; {HOW_TO_REMOVE.format(dotted(key))}"))

    result = check()
    while result.problems:
        blamed = {
            key: problem.message for problem in result.problems for key in problem.about if _is_of(overlay, reader, key)
        }
        if not blamed:
            found = _culprit(reader, overlay, below, check, result)
            if found is None:
                break
            blamed = {found: result.problems[0].message}
        for key, why in blamed.items():
            leave_out(key, why)
        result = check()
    return result, left_out


def _is_of(overlay: Overlay, reader: SettingsReader, key: SettingKey) -> bool:
    value = reader.values.get(key)
    return value is not None and value.origin == overlay.origin


def _culprit(
    reader: SettingsReader,
    overlay: Overlay,
    below: dict[SettingKey, SettingValue],
    check: Callable[[], _Result],
    result: _Result,
) -> SettingKey | None:
    """A value of the overlay without which there is less wrong: it contradicts one of another source."""
    for key in _suspects(reader, overlay, result.problems):
        value = reader.values.pop(key)
        if key in below:
            reader.values[key] = below[key]
        fewer = len(check().problems) < len(result.problems)
        reader.values[key] = value
        if fewer:
            return key
    return None


def _suspects(reader: SettingsReader, overlay: Overlay, problems: Sequence[Problem]) -> list[SettingKey]:
    """What may be behind these problems: the service's own values, then those of the instances that they are about."""
    instances = {key[:2] for problem in problems for key in problem.about if key[:1] == ("instances",)}

    def candidates() -> Iterator[SettingKey]:
        keys = [key for key in reader.values if _is_of(overlay, reader, key)]
        yield from (key for key in keys if key[:1] != ("instances",))
        yield from (key for key in keys if key[:2] in instances)

    return [key for key, _ in zip(candidates(), range(_MAXIMUM_TRIALS), strict=False)]
