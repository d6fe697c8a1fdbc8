"""Small charts as SVG. They stretch with the page: positions are shares of a width, and lines keep their own."""

from __future__ import annotations

from collections.abc import Sequence

from worker.http.page.markup import Child, Html, h
from worker.operations.history import Interval, State

WIDTH = 900
HEIGHT = 56
_STRIP_HEIGHT = 18


def bars(series: Sequence[Sequence[float]], classes: Sequence[str], label: str) -> Html:
    """One stacked bar for each step; `series` lie on each other in the order of `classes`."""
    steps = list(zip(*series, strict=True))
    highest = max((sum(step) for step in steps), default=0) or 1
    wide = WIDTH / max(1, len(steps))
    drawn = []
    for number, step in enumerate(steps):
        foot = float(HEIGHT)
        for value, name in zip(step, classes, strict=True):
            if value:
                tall = max(1.5, value / highest * (HEIGHT - 2))
                foot -= tall
                drawn.append(h("rect", class_=name, x=number * wide + 1, y=foot, width=wide - 2, height=tall))
    return _svg(HEIGHT, label, _ground(), drawn)


def area(values: Sequence[float | None], name: str, label: str, highest: float | None = None) -> Html:
    """A filled line; it breaks off where a value is missing."""
    return lines([(values, name, True)], label, highest)


def lines(series: Sequence[tuple[Sequence[float | None], str, bool]], label: str, highest: float | None = None) -> Html:
    """Lines over one another: values, class, and whether the area below is filled."""
    known = [value for values, _, _ in series for value in values if value is not None]
    top = highest or max(known, default=0) or 1
    drawn: list[Child] = []
    for values, name, filled in series:
        for run in _runs(values):
            points = [_point(number, value, len(values), top) for number, value in run]
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            if filled:
                closed = f"{path}L{points[-1][0]:.1f} {HEIGHT}L{points[0][0]:.1f} {HEIGHT}Z"
                drawn.append(h("path", class_=f"{name} fill", d=closed))
            drawn.append(h("path", class_=f"{name} stroke", d=path))
    return _svg(HEIGHT, label, _ground(), drawn)


def strip(intervals: Sequence[Interval], marks_s: Sequence[float], from_s: float, to_s: float, label: str) -> Html:
    """States one after the other, with a mark wherever something broke."""

    def at(time_s: float) -> float:
        return (min(max(time_s, from_s), to_s) - from_s) / (to_s - from_s) * WIDTH

    drawn: list[Child] = [h("rect", class_="track", x=0, y=0, width=WIDTH, height=_STRIP_HEIGHT)]
    for each in intervals:
        wide = max(2.0, at(each.to_s) - at(each.from_s))
        name = f"state {class_of(each.state)}"
        drawn.append(h("rect", class_=name, x=at(each.from_s), y=0, width=wide, height=_STRIP_HEIGHT))
    for name in ("mark around", "mark"):
        drawn.extend(h("line", class_=name, x1=at(each), x2=at(each), y1=0, y2=_STRIP_HEIGHT) for each in marks_s)
    return _svg(_STRIP_HEIGHT, label, drawn, class_="chart strip")


def bar(value: float, threshold: float | None = None) -> Html:
    """A confidence from 0 to 1, and where the threshold lies. The number stands beside it, so it is only decoration."""
    tick = None
    if threshold is not None:
        at = min(99.5, max(0.5, threshold * 100))
        tick = h("line", class_="threshold", x1=at, x2=at, y1=0, y2=8)
    return h(
        "svg",
        h("rect", class_="track", x=0, y=2, width=100, height=4),
        h("rect", class_="value", x=0, y=2, width=max(0.5, min(1.0, value) * 100), height=4),
        tick,
        class_="bar",
        viewbox="0 0 100 8",
        preserve_aspect_ratio="none",
        aria_hidden="true",
    )


def class_of(state: State) -> str:
    """The class that gives a state its colour."""
    return f"is-{state.value}"


def _svg(height: int, label: str, *children: Child, class_: str = "chart") -> Html:
    return h(
        "svg",
        *children,
        class_=class_,
        viewbox=f"0 0 {WIDTH} {height}",
        preserve_aspect_ratio="none",
        role="img",
        aria_label=label,
    )


def _ground() -> Html:
    return h("line", class_="ground", x1=0, x2=WIDTH, y1=HEIGHT - 0.5, y2=HEIGHT - 0.5)


def _point(number: int, value: float, steps: int, top: float) -> tuple[float, float]:
    return (number + 0.5) * WIDTH / steps, HEIGHT - 2 - min(1.0, value / top) * (HEIGHT - 5)


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The values that follow one another without a gap. A run of one is drawn as a short dash."""
    runs: list[list[tuple[int, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((number, value))
    return [run if len(run) > 1 else [*run, (run[0][0], run[0][1])] for run in runs if run]
