"""What a label is called in a target: its characters, its length, its case."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

LengthUnit = Literal["characters", "bytes", "utf16"]
"""Bytes are those of UTF-8; utf16 are the units that Java, JavaScript and AWS count."""

_MARKS: Final = ("Mn", "Mc", "Me")
_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@dataclass(frozen=True, slots=True)
class NameRules:
    """What names a target takes."""

    prefix: str = ""
    """Stands before every name: the parent tag or folder below which ours are."""
    forbidden: frozenset[str] = frozenset()
    """Characters that become a space."""
    only: re.Pattern[str] | None = None
    """What a character has to match; others become a space."""
    longest: int | None = None
    """Of the whole name with its prefix."""
    unit: LengthUnit = "characters"
    case: Literal["as_is", "lower"] = "as_is"

    def name_of(self, label: str) -> str | None:
        """The label as the target takes it, cut between characters; None where nothing is left of it."""
        text = unicodedata.normalize("NFC", label)
        text = "".join(each if self._takes(each) else " " for each in text)
        text = " ".join(text.split())
        if self.case == "lower":
            text = unicodedata.normalize("NFC", text.lower())
        if self.longest is not None:
            text = _cut(text, self.longest - length(self.prefix, self.unit), self.unit).rstrip()
        return self.prefix + text if text else None

    def _takes(self, character: str) -> bool:
        if character in self.forbidden or unicodedata.category(character) in _INVISIBLE:
            return False
        return self.only is None or self.only.fullmatch(character) is not None


def length(text: str, unit: LengthUnit) -> int:
    """How long a text is for a target."""
    match unit:
        case "bytes":
            return len(text.encode())
        case "utf16":
            return len(text.encode("utf-16-le")) // 2
        case "characters":
            return len(text)


def _cut(text: str, longest: int, unit: LengthUnit) -> str:
    """The beginning of a text that is not too long. A letter keeps the marks that belong to it, or goes with them."""
    if length(text, unit) <= longest:
        return text
    end, used = 0, 0
    for character in text:
        used += length(character, unit)
        if used > longest:
            break
        end += 1
    while end > 0 and unicodedata.category(text[end]) in _MARKS:
        end -= 1
    return text[:end]


def joined(names: Iterable[str], separator: str, longest: int, unit: LengthUnit) -> str:
    """As many of the names, from the first on, as fit into one text; none is cut."""
    text = ""
    for name in names:
        longer = f"{text}{separator}{name}" if text else name
        if length(longer, unit) > longest:
            break
        text = longer
    return text
