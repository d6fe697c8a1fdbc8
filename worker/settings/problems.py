"""Problems with the settings, and the error that reports them to the operator."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from worker.errors import Misconfigured
from worker.settings.schema import MASK, SettingKey, dotted, find_field, is_secret


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A value that a source sets, and which source it was."""

    value: Any = field(repr=False)  # may be a key or a password
    origin: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of an error: the key, what is wrong with it, where it was set."""

    key: str
    message: str
    origin: str = ""
    about: tuple[SettingKey, ...] = field(default=(), compare=False, repr=False)
    """The settings that it concerns, the one to change first."""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" + (f" ({self.origin})" if self.origin else "")


def refused(key: SettingKey, value: SettingValue | None, message: str) -> Problem:
    """A problem with the value of a known setting; the value is shown unless it is a secret."""
    if value is None:
        return Problem(dotted(key), message, about=(key,))
    field_info = find_field(key)
    # A value where no setting is expected may be anything, even a password.
    public = field_info is not None and not is_secret(field_info)
    shown = json.dumps(value.value, ensure_ascii=False, default=str) if public else MASK
    return Problem(f"{dotted(key)} = {shown}", message, value.origin, (key,))


class UnusableSettings(Misconfigured):
    """The settings as a whole cannot be used: the message has a line for each of `problems`."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(map(str, problems)))
        """Each once, in the order in which they were found."""
        super().__init__("the settings cannot be used:\n" + "\n".join(f"  {line}" for line in self.problems))
