"""Charts as SVG in several looks, and by matplotlib in its own styles."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

from PIL import Image

from kind_head.draft import Draft, Page, Template
from kind_head.svg import circle, drawn, fill, line, path, polygon, rectangle, text

_PALETTES = (
    ("#4472c4", "#ed7d31", "#a5a5a5", "#ffc000", "#5b9bd5", "#70ad47"),
    ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"),
    ("#003f5c", "#58508d", "#bc5090", "#ff6361", "#ffa600", "#7a5195"),
    ("#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51", "#8ab17d"),
    ("#222", "#555", "#888", "#aaa", "#ccc", "#333"),
)


class _Axes:
    """The frame of a chart in SVG: axes, grid, labels, title, legend."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.width, self.height = draft.one(((900, 600), (800, 600), (1000, 560), (640, 640)))
        self.colours = list(draft.one(_PALETTES)) if draft.chance(0.7) else [draft.colour() for _ in range(6)]
        dark = draft.chance(0.12)
        self.ground, self.ink = (
            (draft.one(("#1b1d22", "#101820")), "#ddd")
            if dark
            else (draft.one(("#fff", "#fff", "#fff", "#f5f5f5", "#fffdf5")), "#333")
        )
        self.left, self.right, self.top, self.bottom = (
            80.0,
            self.width - draft.between(30, 160),
            draft.between(30, 90),
            self.height - 70.0,
        )
        self.shapes: list[str] = []
        self._frame()

    def _frame(self) -> None:
        draft, ink = self.draft, self.ink
        size = draft.between(11, 17)
        if draft.chance(0.8):
            self.shapes.append(
                text(self.width / 2, self.top - 12, draft.title(2, 6), size * 1.6, f"fill='{ink}' text-anchor='middle'")
            )
        for k in range(6):
            y = self.bottom - k * (self.bottom - self.top) / 5
            self.shapes.append(
                text(self.left - 8, y + 4, str(k * draft.one((10, 20, 25))), size, f"fill='{ink}' text-anchor='end'")
            )
            if draft.chance(0.8):
                self.shapes.append(path([(self.left, y), (self.right, y)], line(ink, 0.7, "opacity='.3'")))
        labels = draft.between(4, 10)
        for k in range(labels):
            x = self.left + (k + 0.5) * (self.right - self.left) / labels
            self.shapes.append(
                text(
                    x,
                    self.bottom + 20,
                    draft.one((str(2000 + k), draft.title(1, 1)[:8])),
                    size,
                    f"fill='{ink}' text-anchor='middle'",
                )
            )
        self.shapes.append(
            path([(self.left, self.top), (self.left, self.bottom), (self.right, self.bottom)], line(ink, 1.5))
        )
        if draft.chance(0.5):
            for k in range(draft.between(2, 5)):
                self.shapes.append(rectangle(self.right + 10, self.top + 24 * k, 14, 14, fill(self.colours[k])))
                self.shapes.append(
                    text(self.right + 30, self.top + 24 * k + 12, draft.title(1, 1), 13, f"fill='{ink}'")
                )

    def series(self, points: int) -> list[tuple[float, float]]:
        """A random walk from left to right."""
        value, found = self.draft.random.random(), []
        for k in range(points):
            value = min(1.0, max(0.02, value + self.draft.random.gauss(0.01, 0.13)))
            found.append(
                (
                    self.left + (k + 0.5) * (self.right - self.left) / points,
                    self.bottom - value * (self.bottom - self.top),
                )
            )
        return found

    def page(self) -> Page:
        return drawn(self.draft, self.shapes, self.width, self.height, self.ground)


def _bars(draft: Draft) -> Page:
    axes = _Axes(draft)
    groups, each = draft.between(3, 10), draft.between(1, 4)
    step = (axes.right - axes.left) / groups
    width = step * draft.random.uniform(0.5, 0.9) / each
    for k in range(groups * each):
        height = draft.random.uniform(0.05, 1) * (axes.bottom - axes.top)
        x = axes.left + (k // each + 0.1) * step + (k % each) * width
        axes.shapes.append(rectangle(x, axes.bottom - height, width * 0.95, height, fill(axes.colours[k % each])))
    return axes.page()


def _stacked(draft: Draft) -> Page:
    axes = _Axes(draft)
    groups = draft.between(4, 14)
    step = (axes.right - axes.left) / groups
    for k in range(groups):
        y = axes.bottom
        for colour in axes.colours[: draft.between(2, 4)]:
            height = draft.random.uniform(0.03, 0.25) * (axes.bottom - axes.top)
            y -= height
            axes.shapes.append(rectangle(axes.left + (k + 0.15) * step, y, step * 0.7, height, fill(colour)))
    return axes.page()


def _lines(draft: Draft) -> Page:
    axes = _Axes(draft)
    for colour in axes.colours[: draft.between(1, 5)]:
        points = axes.series(draft.between(6, 60))
        axes.shapes.append(path(points, line(colour, draft.between(1, 4)), smooth=draft.chance(0.3)))
        if draft.chance(0.4):
            axes.shapes += [circle(x, y, 4, fill(colour)) for x, y in points]
    return axes.page()


def _areas(draft: Draft) -> Page:
    axes = _Axes(draft)
    for colour in axes.colours[: draft.between(1, 3)]:
        points = axes.series(draft.between(8, 40))
        closed = [(points[0][0], axes.bottom), *points, (points[-1][0], axes.bottom)]
        axes.shapes.append(path(closed, fill(colour, "opacity='.6'"), closed=True))
    return axes.page()


def _scatter(draft: Draft) -> Page:
    axes = _Axes(draft)
    for colour in axes.colours[: draft.between(1, 4)]:
        cx, cy = draft.random.uniform(axes.left, axes.right), draft.random.uniform(axes.top, axes.bottom)
        for _ in range(draft.between(15, 90)):
            x, y = draft.random.gauss(cx, 90), draft.random.gauss(cy, 70)
            if axes.left < x < axes.right and axes.top < y < axes.bottom:
                axes.shapes.append(circle(x, y, draft.between(3, 7), fill(colour, "opacity='.75'")))
    return axes.page()


def _slices(draft: Draft, inner: float) -> Page:
    size = 640
    colours = [*draft.one(_PALETTES), *(draft.colour() for _ in range(4))]
    radius = draft.between(150, 240)
    shapes = [text(size / 2, 45, draft.title(2, 5), 28, "text-anchor='middle' fill='#333'")]
    parts = [draft.random.uniform(0.3, 2) for _ in range(draft.between(3, 9))]
    angle = draft.random.random() * 6
    for k, part in enumerate(parts):
        turn = part / sum(parts) * 6.2832
        ring = [
            (320 + radius * math.cos(angle + turn * s / 24), 340 + radius * math.sin(angle + turn * s / 24))
            for s in range(25)
        ]
        shapes.append(path([(320, 340), *ring], fill(colours[k % 10], "stroke='#fff' stroke-width='2'"), closed=True))
        x, y = 320 + radius * 1.18 * math.cos(angle + turn / 2), 340 + radius * 1.18 * math.sin(angle + turn / 2)
        label = draft.one((f"{part / sum(parts):.0%}", draft.title(1, 1)))
        shapes.append(text(x, y, label, 17, "text-anchor='middle' fill='#333'"))
        angle += turn
    if inner:
        shapes.append(circle(320, 340, radius * inner, fill("#fff")))
    return drawn(draft, shapes, size, size, "#fff")


def _pie(draft: Draft) -> Page:
    return _slices(draft, draft.one((0.0, 0.0, 0.55)))


def _radar(draft: Draft) -> Page:
    corners = draft.between(5, 9)
    shapes = [path(polygon(350, 340, r, corners, -1.57), line("#999"), closed=True) for r in (60, 120, 180, 240)]
    for x, y in polygon(350, 340, 275, corners, -1.57):
        shapes.append(text(x, y, draft.title(1, 1), 16, "text-anchor='middle'"))
        shapes.append(path([(350, 340), (x, y)], line("#bbb")))
    for colour in draft.one(_PALETTES)[: draft.between(1, 3)]:
        ring = [
            (350 + (x - 350) * s, 340 + (y - 340) * s)
            for x, y in polygon(350, 340, 240, corners, -1.57)
            for s in [draft.random.uniform(0.3, 1)]
        ]
        shapes.append(path(ring, f"fill='{colour}' fill-opacity='.3' stroke='{colour}' stroke-width='3'", closed=True))
    return drawn(draft, shapes, 700, 660, "#fff")


def _horizontal(draft: Draft) -> Page:
    count, colour = draft.between(5, 14), draft.colour()
    shapes = [text(30, 44, draft.title(3, 6), 26, "font-weight='bold'")]
    for k in range(count):
        y, length = 80 + k * 480 / count, draft.random.uniform(20, 560)
        shapes += [
            text(190, y + 18, draft.title(1, 2)[:20], 15, "text-anchor='end'"),
            rectangle(200, y, length, 330 / count, fill(colour)),
            text(206 + length, y + 18, draft.money(100), 14),
        ]
    return drawn(draft, shapes, 860, 600, draft.one(("#fff", "#fafafa")))


def _candles(draft: Draft) -> Page:
    axes = _Axes(draft)
    for x, y in axes.series(draft.between(30, 70)):
        height, colour = draft.between(4, 50), draft.one(("#2a9d4a", "#d33"))
        axes.shapes += [
            path([(x, y - height), (x, y + height)], line(colour, 1.5)),
            rectangle(x - 4, y - height / 2, 8, height, fill(colour)),
        ]
    return axes.page()


def _gantt(draft: Draft) -> Page:
    shapes = [path([(200 + k * 60, 40), (200 + k * 60, 560)], line("#ccc")) for k in range(12)]
    for k in range(draft.between(6, 14)):
        x = 200 + draft.between(0, 350)
        shapes += [
            text(190, 75 + k * 36, draft.title(1, 2)[:22], 14, "text-anchor='end'"),
            rectangle(x, 60 + k * 36, draft.between(40, 300), 20, fill(draft.colour(), "rx='4'")),
        ]
    return drawn(draft, shapes, 920, 600, "#fff")


def _plain_columns(draft: Draft) -> Page:
    """As magazines draw them: figures on the columns, no axes."""
    count, width, height = draft.between(3, 8), 760, 640
    ground = draft.one(("#fff", "#fff", draft.colour((10, 50), (88, 96))))
    colours = draft.one(_PALETTES)
    shapes = [
        text(40, 60, draft.title(2, 5), 34, "font-weight='bold'"),
        text(40, 92, draft.words(4, 9), 17, fill("#666")),
    ]
    for k in range(count):
        tall, x = draft.random.uniform(40, 380), 40 + k * 680 / count
        shapes += [
            rectangle(x, 540 - tall, 560 / count, tall, fill(draft.one((colours[0], colours[k % 6])))),
            text(
                x + 280 / count, 525 - tall, f"{draft.between(1, 99)}%", 20, "text-anchor='middle' font-weight='bold'"
            ),
            text(x + 280 / count, 570, draft.title(1, 1)[:10], 15, "text-anchor='middle'"),
        ]
    return drawn(draft, shapes, width, height, ground)


def _rings(draft: Draft) -> Page:
    """Some figures, each in a ring of its own."""
    across, shapes = draft.between(2, 4), []
    for k in range(across * draft.between(1, 2)):
        x, y, part, colour = (
            130 + k % across * 220,
            150 + k // across * 260,
            draft.random.uniform(0.05, 0.95),
            draft.colour(),
        )
        arc = [
            (x + 80 * math.sin(part * 6.2832 * s / 40), y - 80 * math.cos(part * 6.2832 * s / 40)) for s in range(41)
        ]
        width = draft.between(12, 34)
        shapes += [circle(x, y, 80, line("#ddd", width)), path(arc, line(colour, width))]
        shapes += [
            text(x, y + 10, f"{part:.0%}", 30, "text-anchor='middle'"),
            text(x, y + 125, draft.title(1, 2)[:18], 17, "text-anchor='middle'"),
        ]
    return drawn(draft, shapes, across * 220 + 40, 560, draft.one(("#fff", "#fafafa", "#20232a")))


def _small_charts(draft: Draft) -> Page:
    """A grid of little charts."""
    across, down, shapes = draft.between(2, 4), draft.between(2, 3), []
    colour = draft.colour()
    for k in range(across * down):
        left, top, value = 40 + k % across * 240, 50 + k // across * 210, 0.5
        shapes += [
            text(left, top - 8, draft.title(1, 2)[:22], 14),
            path([(left, top), (left, top + 150), (left + 200, top + 150)], line("#444")),
        ]
        points = []
        for step in range(30):
            value = min(1, max(0, value + draft.random.gauss(0, 0.1)))
            points.append((left + step * 200 / 29, top + 145 - value * 130))
        bars = draft.chance(0.4)
        shapes += (
            [rectangle(x, y, 5, top + 150 - y, fill(colour)) for x, y in points]
            if bars
            else [path(points, line(colour, 2))]
        )
    return drawn(draft, shapes, across * 240 + 20, down * 210 + 40, "#fff")


def _waterfall(draft: Draft) -> Page:
    axes = _Axes(draft)
    count, level = draft.between(5, 12), axes.bottom - 120
    step = (axes.right - axes.left) / count
    for k in range(count):
        change = draft.random.gauss(15, 50)
        top, x = min(level, level - change), axes.left + (k + 0.15) * step
        axes.shapes.append(rectangle(x, top, step * 0.7, abs(change), fill("#2a9d4a" if change > 0 else "#d34a3a")))
        axes.shapes.append(
            text(x + step * 0.35, top - 6, f"{change:+.0f}", 13, f"text-anchor='middle' fill='{axes.ink}'")
        )
        level = min(axes.bottom - 20, max(axes.top + 60, level - change))
    return axes.page()


def _bubbles(draft: Draft) -> Page:
    axes = _Axes(draft)
    for _ in range(draft.between(6, 25)):
        x, y, radius = (
            draft.random.uniform(axes.left + 30, axes.right - 30),
            draft.random.uniform(axes.top + 20, axes.bottom - 20),
            draft.between(6, 48),
        )
        axes.shapes.append(circle(x, y, radius, fill(draft.one(axes.colours), "opacity='.65' stroke='#fff'")))
        if radius > 20:
            axes.shapes.append(text(x, y + 4, draft.title(1, 1)[:8], 13, "text-anchor='middle'"))
    return axes.page()


def _rows(draft: Draft) -> Page:
    """Bars that lie, from a line in the middle, or one beside the other up to a hundred per cent."""
    count, shapes, both = (
        draft.between(4, 12),
        [text(360, 40, draft.title(2, 5), 24, "text-anchor='middle'")],
        draft.chance(0.5),
    )
    colours = draft.one(_PALETTES)
    for k in range(count):
        y, height = 70 + k * 470 / count, 320 / count
        shapes.append(text(130, y + height * 0.7, draft.title(1, 1)[:14], 14, "text-anchor='end'"))
        x = 140.0
        for colour in colours[: 2 if both else draft.between(3, 5)]:
            length = draft.random.uniform(30, 270 if both else 120)
            shapes.append(
                rectangle(430 - length if both and x == 140 else 430 if both else x, y, length, height, fill(colour))
            )
            x += length
    return drawn(draft, shapes, 760, 580, draft.one(("#fff", "#fff", "#f6f6f2")))


TEMPLATES: tuple[Template, ...] = (
    _bars,
    _stacked,
    _lines,
    _areas,
    _scatter,
    _pie,
    _gantt,
    _plain_columns,
    _rings,
    _small_charts,
    _waterfall,
    _bubbles,
    _rows,
    _radar,
    _horizontal,
    _candles,
)

PLOTS = (
    "default",
    "ggplot",
    "bmh",
    "classic",
    "grayscale",
    "seaborn-v0_8",
    "Solarize_Light2",
    "seaborn-v0_8-whitegrid",
    "dark_background",
    "fivethirtyeight",
    "seaborn-v0_8-darkgrid",
    "tableau-colorblind10",
    "fast",
)


def plotted(draft: Draft, style: str) -> Image.Image:
    """A plot by matplotlib, in one of its styles."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.style.context(style):
        plot = draft.one(_PLOTS)
        projection = "3d" if plot is _plot_surface else "polar" if plot is _plot_polar else None
        size = (draft.random.uniform(5, 8), draft.random.uniform(4, 6))
        figure, axes = plt.subplots(figsize=size, dpi=100, subplot_kw={"projection": projection})
        plot(draft, axes)
        axes.set_title(f"{draft.brand()} {draft.between(1, 99)}")
        axes.set_xlabel(draft.brand())
        axes.set_ylabel(draft.city())
        written = io.BytesIO()
        figure.savefig(written, format="png")
        plt.close(figure)
    return Image.open(written).convert("RGB")


def _values(draft: Draft, count: int) -> list[float]:
    total, found = 0.0, []
    for _ in range(count):
        total += draft.random.gauss(0.1, 1)
        found.append(total)
    return found


def _plot_lines(draft: Draft, axes: object) -> None:
    for _ in range(draft.between(1, 5)):
        axes.plot(_values(draft, draft.between(5, 300)), label=draft.brand())  # type: ignore[attr-defined]
    axes.legend()  # type: ignore[attr-defined]
    axes.grid(draft.chance(0.5))  # type: ignore[attr-defined]


def _plot_bars(draft: Draft, axes: object) -> None:
    labels = [draft.city() for _ in range(draft.between(3, 9))]
    drawing = axes.barh if draft.chance(0.4) else axes.bar  # type: ignore[attr-defined]
    drawing(range(len(labels)), [draft.between(1, 90) for _ in labels])


def _plot_histogram(draft: Draft, axes: object) -> None:
    axes.hist([draft.random.gauss(0, 1) for _ in range(500)], bins=draft.between(8, 40))  # type: ignore[attr-defined]


def _plot_scatter(draft: Draft, axes: object) -> None:
    for _ in range(draft.between(1, 3)):
        count = draft.between(20, 200)
        axes.scatter(_values(draft, count), _values(draft, count), s=draft.between(8, 60))  # type: ignore[attr-defined]


def _plot_pie(draft: Draft, axes: object) -> None:
    parts = [draft.between(1, 20) for _ in range(draft.between(3, 8))]
    axes.pie(parts, labels=[draft.brand() for _ in parts])  # type: ignore[attr-defined]


def _plot_boxes(draft: Draft, axes: object) -> None:
    axes.boxplot([[draft.random.gauss(k, 1) for _ in range(50)] for k in range(draft.between(3, 8))])  # type: ignore[attr-defined]


def _plot_heat(draft: Draft, axes: object) -> None:
    side = draft.between(5, 20)
    grid = [[draft.random.random() for _ in range(side)] for _ in range(side)]
    axes.imshow(grid, cmap=draft.one(("viridis", "coolwarm", "Blues")))  # type: ignore[attr-defined]


def _plot_surface(draft: Draft, axes: object) -> None:
    import numpy as np

    x, y = np.meshgrid(np.linspace(-3, 3, 40), np.linspace(-3, 3, 40))
    a, b = draft.random.uniform(0.3, 2), draft.random.uniform(0.3, 2)
    drawing = draft.one((axes.plot_surface, axes.plot_wireframe, axes.contour3D))  # type: ignore[attr-defined]
    drawing(x, y, np.sin(a * x) * np.cos(b * y) * np.exp(-(x**2 + y**2) / draft.between(3, 20)))


def _plot_polar(draft: Draft, axes: object) -> None:
    turns = draft.between(1, 6)
    angles = [k * 0.05 for k in range(126 * turns)]
    axes.plot(angles, [1 + math.sin(turns * angle / 2) * draft.random.uniform(0.9, 1) for angle in angles])  # type: ignore[attr-defined]


def _plot_functions(draft: Draft, axes: object) -> None:
    xs = [k * 0.05 - 5 for k in range(200)]
    for _ in range(draft.between(1, 6)):
        a, b, c = (draft.random.uniform(-2, 2) for _ in range(3))
        axes.plot(xs, [a * math.sin(b * x) + c * x * 0.2 for x in xs], draft.one(("-", "--", ":", "o", "+", "-.")))  # type: ignore[attr-defined]


def _plot_contours(draft: Draft, axes: object) -> None:
    import numpy as np

    x, y = np.meshgrid(np.linspace(-3, 3, 60), np.linspace(-3, 3, 60))
    z = np.sin(x * draft.random.uniform(0.5, 2)) + np.cos(y * draft.random.uniform(0.5, 2)) * x
    drawing = draft.one((axes.contour, axes.contourf))  # type: ignore[attr-defined]
    drawing(x, y, z, levels=draft.between(5, 20))


_PLOTS: tuple[Callable[[Draft, object], None], ...] = (
    _plot_lines, _plot_lines, _plot_bars, _plot_bars, _plot_histogram, _plot_scatter, _plot_pie, _plot_boxes, _plot_heat,
    _plot_surface, _plot_polar, _plot_functions, _plot_functions, _plot_contours,
)  # fmt: skip
