"""SVG as text: the few shapes that the generators of graphics use."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from kind_head.draft import Draft, Page, page

Point = tuple[float, float]


def drawn(draft: Draft, shapes: Iterable[str], width: int, height: int, ground: str) -> Page:
    """A page that is one SVG picture."""
    text = "".join(shapes)
    return page(
        "svg{display:block}",
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' style=\"background:{ground};font-family:"
        f'{draft.font("sans", "sans", "serif")}">{text}</svg>',
        width,
        height,
    )


def path(points: Sequence[Point], style: str, *, closed: bool = False, smooth: bool = False) -> str:
    """A line through points, or an area; smooth: through the middles of its segments."""
    if smooth and len(points) > 2:
        ring = [*points, points[0]] if closed else list(points)
        middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in itertools.pairwise(ring)]
        start = middles[0]
        curve = "".join(
            f"Q{b[0]:.1f},{b[1]:.1f} {m[0]:.1f},{m[1]:.1f}" for b, m in zip(ring[1:], middles[1:], strict=False)
        )
        end = f"Q{ring[0][0]:.1f},{ring[0][1]:.1f} {start[0]:.1f},{start[1]:.1f}Z" if closed else ""
        return f"<path d='M{start[0]:.1f},{start[1]:.1f}{curve}{end}' {style}/>"
    line = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<path d='M{line}{'Z' if closed else ''}' {style}/>"


def text(x: float, y: float, words: str, size: float, style: str = "") -> str:
    """A line of text."""
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size:.1f}' {style}>{words}</text>"


def rectangle(x: float, y: float, width: float, height: float, style: str) -> str:
    """A rectangle."""
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(0, width):.1f}' height='{max(0, height):.1f}' {style}/>"


def circle(x: float, y: float, radius: float, style: str) -> str:
    """A circle."""
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{max(0, radius):.1f}' {style}/>"


def blob(draft: Draft, x: float, y: float, radius: float, corners: int = 14, roughness: float = 0.35) -> list[Point]:
    """A ring of points around a centre, at random distances."""
    phase = draft.random.random() * 6.28
    return [
        (x + r * math.cos(phase + k * 6.2832 / corners), y + r * math.sin(phase + k * 6.2832 / corners))
        for k, r in ((k, radius * (1 + draft.random.uniform(-roughness, roughness))) for k in range(corners))
    ]


def polygon(x: float, y: float, radius: float, corners: int, turn: float = 0.0) -> list[Point]:
    """A regular polygon."""
    return [
        (x + radius * math.cos(turn + k * 6.2832 / corners), y + radius * math.sin(turn + k * 6.2832 / corners))
        for k in range(corners)
    ]


def fill(colour: str, more: str = "") -> str:
    """Attributes of an area."""
    return f"fill='{colour}' {more}"


def line(colour: str, width: float = 1.0, more: str = "") -> str:
    """Attributes of a line."""
    return f"fill='none' stroke='{colour}' stroke-width='{width:.1f}' {more}"
