"""Text for people: what a terminal, a log viewer or a reader could be misled by is replaced by a visible escape.

File names, message headers, labels and answers are written by others. Control characters command a terminal (ECMA-48),
bidirectional controls show text in another order than it is in (https://www.unicode.org/reports/tr36/), and characters
without a glyph hide it. Every way out to people uses these functions: the command line, the log, the status page.

The escapes are for the eye: text that holds a backslash and `x1b` looks the same as an escape character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_CANDIDATE = re.compile(r"\r\n|[^\x20-\x7e]")
_CANDIDATE_IN_JSON = re.compile(r"[^\n\x20-\x7e]")
"""The line breaks of a JSON text are its layout: those of its values are escaped already."""

_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0"
_VARIATION = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_HIDDEN = re.compile(f"[{_BLANK}{_VARIATION}]")
"""Without a glyph, although `str.isprintable` is true: fillers and variation selectors. Text can be hidden in them."""
_SELECTOR = re.compile(f"[{_VARIATION}]")

_JOINERS = "\u200c\u200d"
"""ZWNJ and ZWJ: part of words in Persian and the scripts of India, and of emoji."""

_SHORT = {"\n": "␤", "\r\n": "␤", "\t": "  "}


def printable(text: str, *, maximum: int | None = None) -> str:
    """The text on one line, with every character that cannot be seen as an escape: `\\x1b`, `\\u202e`, `\\U000e0041`.

    A line break becomes `␤`, a tab two spaces. What can be printed stays, and so do joiners and variation selectors
    beside a character that can be seen. At most `maximum` characters are returned; a text that is cut ends in `…`.
    """
    if maximum is not None and len(text) > maximum:
        # No character becomes less than one, except that a line break may consist of two.
        text = text[: 2 * maximum + 2]
    if not is_printable(text):
        text = _CANDIDATE.sub(_replaced_by(_escape), text)
    if maximum is not None and len(text) > maximum:
        return text[: maximum - 1] + "…"
    return text


def printable_lines(text: str) -> str:
    """The same for a text of several lines. All but the first are indented: none can pass for a line of its own."""
    if is_printable(text):
        return text
    first, *others = text.rstrip("\n").replace("\r\n", "\n").split("\n")
    shown = (printable(line) for line in others)
    return "\n".join([printable(first), *(line if line.startswith("  ") else f"  {line}" for line in shown)])


def printable_json(text: str) -> str:
    """A JSON text that means the same, with every character that cannot be seen as JSON's own escape `\\u202e`."""
    return text if is_printable(text) else _CANDIDATE_IN_JSON.sub(_replaced_by(_escape_in_json), text)


def is_printable(text: str) -> bool:
    """Whether `printable` is sure to leave the text as it is; cheap, because every value of the log is examined.

    False for some texts that it leaves as they are, too: with a no-break space, or a joiner inside a word.
    """
    return text.isprintable() and (text.isascii() or _HIDDEN.search(text) is None)


def _replaced_by(escape: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
    return lambda found: found[0] if _is_visible(found.string, found.start()) else escape(found[0])


def _is_visible(text: str, at: int) -> bool:
    character = text[at]
    if character in _JOINERS:
        # Between letters or emoji; between ASCII characters they have no use but to make two names look the same.
        return 0 < at < len(text) - 1 and _can_be_joined(text[at - 1]) and _can_be_joined(text[at + 1])
    if _SELECTOR.match(character):
        return at > 0 and _has_glyph(text[at - 1])
    return _has_glyph(character) or unicodedata.category(character) == "Zs"


def _can_be_joined(character: str) -> bool:
    return not character.isascii() and (_has_glyph(character) or _SELECTOR.match(character) is not None)


def _has_glyph(character: str) -> bool:
    return character.isprintable() and _HIDDEN.match(character) is None


def _escape(found: str) -> str:
    if (short := _SHORT.get(found)) is not None:
        return short
    code = ord(found)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_in_json(found: str) -> str:
    units = found.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
