"""Small charts as SVG. They stretch with the page: positions scale with its width, and strokes keep theirs."""

from __future__ import annotations

from collections.abc import Sequence

from worker.http.page.markup import Child, Html, h
from worker.operations.history import Interval, State

WIDTH = 900
HEIGHT = 56
_TIMELINE_HEIGHT = 18


def bars(series: Sequence[Sequence[float]], classes: Sequence[str], label: str) -> Html:
    """One stacked bar per step; `series` are stacked from the bottom in the order of `classes`."""
    steps = list(zip(*series, strict=True))
    highest = max((sum(step) for step in steps), default=0) or 1
    step_width = WIDTH / max(1, len(steps))
    shapes = []
    for number, step in enumerate(steps):
        top = float(HEIGHT)
        for value, name in zip(step, classes, strict=True):
            if value:
                height = max(1.5, value / highest * (HEIGHT - 2))
                top -= height
                x = number * step_width + 1
                shapes.append(h("rect", class_=name, x=x, y=top, width=step_width - 2, height=height))
    return _svg(HEIGHT, label, _baseline(), shapes)


def area(values: Sequence[float | None], name: str, label: str, highest: float | None = None) -> Html:
    """A line with the area below it filled; it has gaps where values are None."""
    return lines([(values, name, True)], label, highest)


def lines(series: Sequence[tuple[Sequence[float | None], str, bool]], label: str, highest: float | None = None) -> Html:
    """Lines on one axis, each as its values, its class and whether the area below is filled."""
    known = [value for values, _, _ in series for value in values if value is not None]
    top = highest or max(known, default=0) or 1
    shapes: list[Child] = []
    for values, name, filled in series:
        for run in _runs(values):
            points = [_point(number, value, len(values), top) for number, value in run]
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            if filled:
                closed = f"{path}L{points[-1][0]:.1f} {HEIGHT}L{points[0][0]:.1f} {HEIGHT}Z"
                shapes.append(h("path", class_=f"{name} fill", d=closed))
            shapes.append(h("path", class_=f"{name} stroke", d=path))
    return _svg(HEIGHT, label, _baseline(), shapes)


def timeline(intervals: Sequence[Interval], marks_s: Sequence[float], from_s: float, to_s: float, label: str) -> Html:
    """States over time as coloured sections, with a mark at each time in `marks_s` (crashes)."""

    def x(time_s: float) -> float:
        return (min(max(time_s, from_s), to_s) - from_s) / (to_s - from_s) * WIDTH

    shapes: list[Child] = [h("rect", class_="track", x=0, y=0, width=WIDTH, height=_TIMELINE_HEIGHT)]
    for each in intervals:
        width = max(2.0, x(each.to_s) - x(each.from_s))
        name = f"state {class_of(each.state)}"
        shapes.append(h("rect", class_=name, x=x(each.from_s), y=0, width=width, height=_TIMELINE_HEIGHT))
    for name in ("mark around", "mark"):
        shapes.extend(h("line", class_=name, x1=x(each), x2=x(each), y1=0, y2=_TIMELINE_HEIGHT) for each in marks_s)
    return _svg(_TIMELINE_HEIGHT, label, shapes, class_="chart timeline")


def bar(value: float, threshold: float | None = None) -> Html:
    """A confidence from 0 to 1, with a tick at the threshold. Decorative: the number itself is shown beside it."""
    tick = None
    if threshold is not None:
        x = min(99.5, max(0.5, threshold * 100))
        tick = h("line", class_="threshold", x1=x, x2=x, y1=0, y2=8)
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
    """The CSS class that gives a state its colour."""
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


def _baseline() -> Html:
    return h("line", class_="baseline", x1=0, x2=WIDTH, y1=HEIGHT - 0.5, y2=HEIGHT - 0.5)


def _point(number: int, value: float, steps: int, top: float) -> tuple[float, float]:
    return (number + 0.5) * WIDTH / steps, HEIGHT - 2 - min(1.0, value / top) * (HEIGHT - 5)


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The values between gaps, each with its index. A run of one is doubled, so that it is drawn as a short dash."""
    runs: list[list[tuple[int, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((number, value))
    return [run if len(run) > 1 else [*run, (run[0][0], run[0][1])] for run in runs if run]
