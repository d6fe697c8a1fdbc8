"""Maps: streets, countries, contour lines, islands, lines of a railway."""

from __future__ import annotations

import math

from kind_head.draft import Draft, Page, Template
from kind_head.svg import Point, blob, circle, drawn, fill, line, path, rectangle, text


def _street_walk(draft: Draft, width: int, height: int) -> list[Point]:
    angle = draft.random.random() * 6.28
    x, y = draft.random.random() * width, draft.random.random() * height
    points = []
    for _ in range(24):
        points.append((x, y))
        angle += draft.random.gauss(0, 0.18)
        x, y = x + 60 * math.cos(angle), y + 60 * math.sin(angle)
    return points


def _streets(draft: Draft) -> Page:
    width, height = draft.one(((800, 800), (900, 650), (600, 800)))
    ground = draft.one(("#f2efe9", "#eef0ea", "#f8f4ec", "#e9e5dc", "#fff", "#24282f"))
    shapes = []
    for colour in ("#c9dfb0", "#aad3df", "#d9d0c9", "#cfe8cf"):
        for _ in range(draft.between(0, 4)):
            shapes.append(
                path(
                    blob(draft, draft.between(0, width), draft.between(0, height), draft.between(30, 150), 9),
                    fill(colour),
                    closed=True,
                    smooth=draft.chance(0.5),
                )
            )
    if draft.chance(0.5):
        shapes.append(path(_street_walk(draft, width, height), line("#9cc9de", draft.between(12, 50)), smooth=True))
    tilt, gap = draft.random.uniform(-0.6, 0.6), draft.between(28, 90)
    for k in range(-20, 40):  # the grid of small streets
        for turn in (tilt, tilt + 1.5708 + draft.random.gauss(0, 0.03)):
            if draft.chance(0.75):
                x, y = width / 2 + (k - 10) * gap * math.sin(turn), height / 2 - (k - 10) * gap * math.cos(turn)
                a, b = draft.random.uniform(-900, 100), draft.random.uniform(100, 900)
                ends = [
                    (x + a * math.cos(turn), y + a * math.sin(turn)),
                    (x + b * math.cos(turn), y + b * math.sin(turn)),
                ]
                shapes += [path(ends, line("#bbb", 6)), path(ends, line("#fff", 4))]
    for _ in range(draft.between(2, 6)):
        walk, colour = (
            _street_walk(draft, width, height),
            draft.one(("#fcd6a4", "#f7fabf", "#e892a2", "#f9b29c", "#fff")),
        )
        shapes += [path(walk, line("#a88", 12), smooth=True), path(walk, line(colour, 9), smooth=True)]
    for _ in range(draft.between(4, 24)):
        x, y = draft.between(0, width), draft.between(0, height)
        shapes.append(
            text(
                x,
                y,
                draft.title(1, 2),
                draft.between(10, 22),
                f"fill='{draft.one(('#333', '#555', '#146', '#363'))}' stroke='#fff' stroke-width='3' paint-order='stroke' transform='rotate({draft.one((0, 0, math.degrees(tilt)))} {x} {y})'",
            )
        )
    if draft.chance(0.4):
        shapes.append(
            path(
                blob(draft, width / 2, height / 2, 18, 12, 0.02),
                fill("#d33", "stroke='#fff' stroke-width='4'"),
                closed=True,
            )
        )
    return drawn(draft, shapes, width, height, ground)


def _wobbly(draft: Draft, a: Point, b: Point, depth: int) -> list[Point]:
    """A border between two points, by moving the middle of each half."""
    if depth == 0:
        return [a]
    size = math.dist(a, b) * 0.16
    middle = ((a[0] + b[0]) / 2 + draft.random.gauss(0, size), (a[1] + b[1]) / 2 + draft.random.gauss(0, size))
    return _wobbly(draft, a, middle, depth - 1) + _wobbly(draft, middle, b, depth - 1)


def _countries(draft: Draft) -> Page:
    width, height = draft.one(((900, 650), (800, 800), (1000, 600)))
    columns, rows = draft.between(3, 7), draft.between(3, 6)
    corner = {
        (c, r): (
            (c + draft.random.uniform(-0.35, 0.35)) * width / columns,
            (r + draft.random.uniform(-0.35, 0.35)) * height / rows,
        )
        for c in range(columns + 1)
        for r in range(rows + 1)
    }
    edges: dict[tuple[tuple[int, int], tuple[int, int]], list[Point]] = {}

    def border(a: tuple[int, int], b: tuple[int, int]) -> list[Point]:
        key = (min(a, b), max(a, b))
        if key not in edges:
            edges[key] = [*_wobbly(draft, corner[key[0]], corner[key[1]], 4), corner[key[1]]]
        return edges[key] if a < b else edges[key][::-1]

    hue, political = draft.colour((25, 60), (70, 85)), draft.chance(0.6)
    palette = [draft.colour((30, 80), (70, 88)) for _ in range(6)] if political else [hue]
    sea = draft.one(("#cfe5f2", "#a9d3e8", "#fff", "#dfeefc", "#e8e8e8", "#98c1d9"))
    shapes = []
    for c in range(columns):
        for r in range(rows):
            if draft.chance(0.25 if 0 < c < columns - 1 and 0 < r < rows - 1 else 0.5):
                continue
            ring = (
                border((c, r), (c + 1, r))
                + border((c + 1, r), (c + 1, r + 1))
                + border((c + 1, r + 1), (c, r + 1))
                + border((c, r + 1), (c, r))
            )
            shapes.append(path(ring, fill(draft.one(palette), "stroke='#666' stroke-width='1.5'"), closed=True))
            x, y = (c + 0.5) * width / columns, (r + 0.5) * height / rows
            if draft.chance(0.7):
                shapes.append(
                    text(
                        x,
                        y,
                        draft.one((draft.city().upper(), draft.city())),
                        draft.between(10, 18),
                        "text-anchor='middle' fill='#333'",
                    )
                )
            if draft.chance(0.5):
                shapes.append(circle(x + 10, y + 16, 3, fill("#222")) + text(x + 16, y + 22, draft.city(), 11))
    for _ in range(draft.between(0, 4)):
        shapes.append(path(_street_walk(draft, width, height), line(draft.one(("#6aaed6", "#c33")), 2), smooth=True))
    return drawn(draft, shapes, width, height, sea)


def _contours(draft: Draft) -> Page:
    width, height = 800, 700
    ground, ink = draft.one((("#f6f1e1", "#b5793a"), ("#e4efd6", "#9a6b3a"), ("#fff", "#a75"), ("#e8f0e0", "#7a8f5a")))
    shapes = []
    for _ in range(draft.between(2, 6)):
        x, y, radius = draft.between(0, width), draft.between(0, height), draft.between(120, 380)
        ring = blob(draft, x, y, radius, 16, 0.3)
        for k in range(draft.between(6, 16)):
            s = 1 - k * 0.07
            shapes.append(
                path(
                    [(x + (px - x) * s, y + (py - y) * s) for px, py in ring],
                    line(ink, 2.2 if k % 5 == 0 else 1),
                    closed=True,
                    smooth=True,
                )
            )
        shapes.append(text(x, y, f"▲ {draft.between(200, 4000)}", 13))
    shapes += [
        path(
            _street_walk(draft, width, height),
            line(draft.one(("#48a", "#d33", "#333")), draft.between(2, 4), draft.one(("", "stroke-dasharray='9 5'"))),
            smooth=True,
        )
        for _ in range(4)
    ]
    shapes += [
        text(draft.between(20, 700), draft.between(20, 680), draft.city(), draft.between(12, 20), "font-style='italic'")
        for _ in range(8)
    ]
    if draft.chance(0.4):
        shapes += [path([(0, y), (width, y)], line("#58c", 0.8)) for y in range(50, 700, 130)] + [
            path([(x, 0), (x, height)], line("#58c", 0.8)) for x in range(50, 800, 130)
        ]
    return drawn(draft, shapes, width, height, ground)


def _transit(draft: Draft) -> Page:
    shapes = []
    for _ in range(draft.between(3, 8)):
        colour, x, y = draft.colour((70, 100), (35, 55)), draft.between(1, 9) * 80, draft.between(1, 8) * 80
        points = [(float(x), float(y))]
        for _ in range(draft.between(4, 9)):
            dx, dy = draft.one(((1, 0), (1, 1), (0, 1), (1, -1), (-1, 0), (0, -1)))
            x, y = min(820, max(60, x + dx * 80)), min(740, max(60, y + dy * 80))
            points.append((float(x), float(y)))
        shapes.append(path(points, line(colour, 9, "stroke-linejoin='round'")))
        shapes += [
            circle(px, py, 7, "fill='#fff' stroke='#222' stroke-width='3'") + text(px + 10, py - 9, draft.city(), 12)
            for px, py in points
            if draft.chance(0.8)
        ]
    return drawn(draft, shapes, 880, 800, "#fff")


def _island(draft: Draft) -> Page:
    ring = blob(draft, 400, 370, 230, 9, 0.4)
    coast = [p for a, b in zip(ring, [*ring[1:], ring[0]], strict=True) for p in _wobbly(draft, a, b, 4)]
    land = draft.one(("#efe6c8", "#d8e6b8", "#e9d9b0", "#cfd8c0"))
    shapes = [
        path([(400 + (x - 400) * s, 370 + (y - 370) * s) for x, y in coast], fill(c), closed=True)
        for s, c in ((1.25, "#b9dcec"), (1.12, "#cde8f2"))
    ]
    shapes += [path(coast, fill(land, "stroke='#777' stroke-width='2'"), closed=True)]
    for _ in range(draft.between(6, 12)):
        x, y = draft.random.gauss(400, 90), draft.random.gauss(370, 90)
        shapes += [circle(x, y, 4, fill("#c22")), text(x + 8, y + 4, draft.city(), 15)]
    cities = [(draft.random.gauss(400, 100), draft.random.gauss(370, 100)) for _ in range(6)]
    shapes.append(path(cities, line("#c84", 2.5), smooth=True))
    shapes += [
        rectangle(40, 640, 120, 8, fill("#222")),
        text(40, 632, f"0   {draft.between(5, 90)} km", 14),
        text(700, 80, "N ↑", 30),
    ]
    return drawn(draft, shapes, 800, 700, "#a9d0e6")


def _outline(draft: Draft) -> Page:
    """One country or province on plain ground, in parts of one colour or of many."""
    width, height = draft.one(((700, 700), (900, 650), (600, 800)))
    ground, shapes = draft.one(("#fff", "#fff", "#bcd8ee", "#e6e6e6")), []
    x, y, radius = width / 2, height / 2, min(width, height) * 0.4
    ring = blob(draft, x, y, radius, draft.between(6, 11), 0.38)
    coast = [p for a, b in zip(ring, [*ring[1:], ring[0]], strict=True) for p in _wobbly(draft, a, b, 5)]
    clip = path(coast, "", closed=True)
    shapes.append(f"<defs><clipPath id='land'>{clip}</clipPath></defs>")
    parts, hue = [], draft.colour((20, 90), (55, 85))
    many = draft.chance(0.6)
    for _ in range(draft.between(5, 30)):
        centre = (draft.random.gauss(x, radius / 2), draft.random.gauss(y, radius / 2))
        corners = blob(draft, *centre, draft.random.uniform(0.2, 0.6) * radius, 7, 0.3)
        border = [p for a, b in zip(corners, [*corners[1:], corners[0]], strict=True) for p in _wobbly(draft, a, b, 3)]
        colour = draft.colour((60, 100), (45, 85)) if many else hue
        parts.append(
            path(
                border,
                f"fill='{colour}' stroke='{draft.one(('#000', '#fff', '#555'))}' stroke-width='{draft.one((1, 2))}'",
                closed=True,
            )
        )
    shapes += [
        path(coast, fill(hue), closed=True),
        f"<g clip-path='url(#land)'>{''.join(parts)}</g>",
        path(coast, line("#333", 2), closed=True),
    ]
    if draft.chance(0.4):
        shapes += [
            text(
                draft.random.gauss(x, radius / 2),
                draft.random.gauss(y, radius / 2),
                draft.city(),
                draft.between(11, 18),
            )
            for _ in range(8)
        ]
    return drawn(draft, shapes, width, height, ground)


def _world(draft: Draft) -> Page:
    """Some coasts, with a grid of degrees, in one colour or in shades that a legend explains."""
    width, height = 1000, draft.one((520, 640))
    shades = (
        [f"hsl({draft.between(0, 359)},60%,{light}%)" for light in (85, 70, 55, 40)]
        if draft.chance(0.5)
        else [draft.colour((10, 60), (60, 85))]
    )
    shapes = [path([(x, 0), (x, height)], line("#9ab", 0.8)) for x in range(0, width, 100)] + [
        path([(0, y), (width, y)], line("#9ab", 0.8)) for y in range(0, height, 90)
    ]
    for _ in range(draft.between(5, 14)):
        ring = blob(draft, draft.between(0, width), draft.between(0, height), draft.between(30, 190), 8, 0.45)
        coast = [p for a, b in zip(ring, [*ring[1:], ring[0]], strict=True) for p in _wobbly(draft, a, b, 4)]
        shapes.append(path(coast, f"fill='{draft.one(shades)}' stroke='#666'", closed=True))
    if len(shades) > 1:
        shapes += [
            rectangle(20, height - 40 - k * 24, 22, 18, fill(shade))
            + text(50, height - 26 - k * 24, f"{k * 10}-{k * 10 + 9}", 14)
            for k, shade in enumerate(shades)
        ]
    return drawn(draft, shapes, width, height, draft.one(("#d6e8f4", "#fff", "#b5d3e7", "#f4f4f4")))


def _old(draft: Draft) -> Page:
    """A map from an old atlas: brown paper, hills and names by hand."""
    shapes, ink = [], draft.one(("#4a3218", "#333", "#5b2d1c"))
    for _ in range(draft.between(2, 5)):
        ring = blob(draft, draft.between(100, 700), draft.between(100, 600), draft.between(90, 260), 8, 0.4)
        coast = [p for a, b in zip(ring, [*ring[1:], ring[0]], strict=True) for p in _wobbly(draft, a, b, 4)]
        shapes += [
            path(
                coast,
                f"fill='{draft.one(('#e3cf9c', '#d9c48c', '#e8d9b4'))}' stroke='{ink}' stroke-width='2'",
                closed=True,
            )
        ]
        for _ in range(draft.between(5, 25)):
            x, y = draft.random.gauss(ring[0][0], 90), draft.random.gauss(ring[0][1], 90)
            shapes.append(path([(x - 10, y), (x, y - 14), (x + 10, y)], line(ink, 1.4)))
    shapes += [
        text(
            draft.between(40, 650),
            draft.between(60, 640),
            draft.city(),
            draft.between(14, 26),
            f"font-style='italic' fill='{ink}' letter-spacing='{draft.between(0, 5)}'",
        )
        for _ in range(10)
    ]
    shapes += [
        path([(700, 100), (700 + 50 * math.cos(a), 100 + 50 * math.sin(a))], line(ink, 2))
        for a in (0, 0.785, 1.571, 2.356, 3.142, 3.927, 4.712, 5.498)
    ]
    return drawn(draft, shapes, 800, 700, draft.one(("#efe0b9", "#e9d8a6", "#f3ead0")))


TEMPLATES: tuple[Template, ...] = (
    _streets,
    _streets,
    _countries,
    _countries,
    _contours,
    _outline,
    _outline,
    _world,
    _old,
    _transit,
    _island,
)
