"""Formats numbers, times and sizes for people."""

from __future__ import annotations

UNKNOWN = "\u2013"
"""A dash, shown for an unknown value."""


def duration(seconds: float | None) -> str:
    """How long something took, precisely: `8 ms`, `1.3 s`, `2 min 5 s`; a dash for None."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return period(seconds)


def period(seconds: float) -> str:
    """How long a state lasted, in whole seconds: `42 s`, `3 min 7 s`, `5 h 12 min`, `8 d 3 h`."""
    whole = max(0, round(seconds))
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    for unit_s, unit, smaller_unit_s, smaller_unit in units:
        if whole >= unit_s:
            rest = whole % unit_s // smaller_unit_s
            return f"{whole // unit_s} {unit} {rest} {smaller_unit}" if rest else f"{whole // unit_s} {unit}"
    return f"{whole} s"


def ago(seconds: float) -> str:
    """`just now`, `12 s ago`, `3 min ago`."""
    if seconds < 2:
        return "just now"
    if seconds < 60:
        return f"{round(seconds)} s ago"
    if seconds < 5400:
        return f"{round(seconds / 60)} min ago"
    return f"{period(seconds // 60 * 60)} ago"


def number(value: float) -> str:
    """`7`, `12 480`: rounded, with a thin space between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def times(count: int) -> str:
    """`once`, `twice`, `14 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{number(count)} times")


def quantity(count: int, singular: str, plural: str | None = None) -> str:
    """A count with its noun: `1 event`, `3 events`."""
    return f"{number(count)} {singular if count == 1 else plural or singular + 's'}"


def percentage(share: float) -> str:
    """A share from 0 to 1: `93 %`, `0.7 %`."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.0995 else f"{share:.1%}".replace("%", " %")


def dimensions(width: int, height: int) -> str:
    """Width and height with a multiplication sign between them."""
    return f"{width}\u00a0\u00d7\u00a0{height}"


def size(size_bytes: int) -> str:
    """`312 kB`, `4.2 MB`."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{max(1, round(size_bytes / 1e3))} kB"
