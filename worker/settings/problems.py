"""What can be wrong with the settings, and how it is told to the operator."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from worker.errors import Misconfigured
from worker.settings.schema import MASK, Key, dotted, find, is_secret


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A value that a source gives for a setting, and which source it was."""

    value: Any = field(repr=False)  # may be a key or a password
    origin: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of an error: which key, what about it, where it was written."""

    key: str
    message: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" + (f" ({self.origin})" if self.origin else "")


def refused(key: Key, given: SettingValue | None, message: str) -> Problem:
    """A problem with the value of a known setting, which is shown unless it is a secret."""
    if given is None:
        return Problem(dotted(key), message)
    setting = find(key)
    # What stands where no setting is expected may be anything, a password too.
    shown = json.dumps(given.value, ensure_ascii=False, default=str) if setting and not is_secret(setting) else MASK
    return Problem(f"{dotted(key)} = {shown}", message, given.origin)


def misconfigured(problems: Iterable[Problem]) -> Misconfigured:
    """One error that lists them all, one a line, each once."""
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    return Misconfigured("the settings cannot be used:\n" + "\n".join(f"  {line}" for line in lines))
