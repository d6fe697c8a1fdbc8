"""Formats numbers, times and sizes for people."""

from __future__ import annotations

UNKNOWN = "\u2013"
"""A dash, shown for an unknown value."""


def took(seconds: float | None) -> str:
    """`8 ms`, `1.3 s`, `2 min 5 s`; a dash for None."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return lasted(seconds)


def lasted(seconds: float) -> str:
    """`42 s`, `3 min 7 s`, `5 h 12 min`, `8 d 3 h`."""
    whole = max(0, round(seconds))
    for size, unit, below, of_it in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {of_it}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def ago(seconds: float) -> str:
    """`just now`, `12 s ago`, `3 min ago`."""
    if seconds < 2:
        return "just now"
    if seconds < 60:
        return f"{round(seconds)} s ago"
    if seconds < 5400:
        return f"{round(seconds / 60)} min ago"
    return f"{lasted(seconds // 60 * 60)} ago"


def count(number: float) -> str:
    """`7`, `12 480`: with a thin space between thousands."""
    return f"{round(number):,}".replace(",", "\u202f")


def times(number: int) -> str:
    """`once`, `twice`, `14 times`."""
    return {1: "once", 2: "twice"}.get(number, f"{count(number)} times")


def of(number: int, one: str, many: str | None = None) -> str:
    """A count with its noun: `1 event`, `3 events`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def share(value: float) -> str:
    """A confidence: `93 %`, `0.7 %`."""
    return f"{value:.0%}".replace("%", " %") if value >= 0.0995 else f"{value:.1%}".replace("%", " %")


def pixels(width: int, height: int) -> str:
    """Width and height with a multiplication sign between them."""
    return f"{width}\u00a0\u00d7\u00a0{height}"


def size(number: int) -> str:
    """`312 kB`, `4.2 MB`."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{max(1, round(number / 1e3))} kB"
