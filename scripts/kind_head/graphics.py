"""Diagrams, logos and drawings, all as SVG."""

from __future__ import annotations

import itertools
import math

from kind_head.draft import Draft, Page, Template
from kind_head.svg import blob, circle, drawn, fill, line, path, polygon, rectangle, text

_ARROW = "<defs><marker id='a' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='8' markerHeight='8' orient='auto'><path d='M0,0L10,5L0,10z' fill='#333'/></marker></defs>"
_END = "marker-end='url(#a)'"


def _box(draft: Draft, x: float, y: float, width: float, height: float, colour: str) -> str:
    style = f"fill='{colour}' stroke='#333' stroke-width='{draft.between(1, 3)}'"
    shape = draft.one(("r", "r", "r", "o", "d", "c"))
    words = text(
        x + width / 2, y + height / 2 + 5, draft.title(1, 2)[:18], draft.between(12, 17), "text-anchor='middle'"
    )
    if shape == "d":
        corners = [
            (x + width / 2, y - 6),
            (x + width + 8, y + height / 2),
            (x + width / 2, y + height + 6),
            (x - 8, y + height / 2),
        ]
        return path(corners, style, closed=True) + words
    if shape == "c":
        return (
            f"<ellipse cx='{x + width / 2}' cy='{y + height / 2}' rx='{width / 2}' ry='{height / 2}' {style}/>" + words
        )
    return rectangle(x, y, width, height, f"{style} rx='{12 if shape == 'o' else 0}'") + words


def _tints(draft: Draft) -> list[str]:
    if draft.chance(0.35):
        return ["#fff"]
    return [draft.colour((30, 90), (75, 95)) for _ in range(draft.between(1, 4))]


def _flow(draft: Draft) -> Page:
    width, height = draft.one(((800, 800), (900, 700), (640, 900)))
    columns, rows = draft.between(2, 4), draft.between(3, 6)
    cell_x, cell_y, tints = width / columns, height / rows, _tints(draft)
    places = [(c, r) for r in range(rows) for c in range(columns) if draft.chance(0.75)]
    shapes = [_ARROW]
    for (c, r), (d, q) in itertools.pairwise(places):
        a, b = ((c + 0.5) * cell_x, (r + 0.5) * cell_y), ((d + 0.5) * cell_x, (q + 0.5) * cell_y)
        shapes.append(path([a, (a[0], b[1]), b] if draft.chance(0.6) else [a, b], line("#333", 1.6, _END)))
    shapes += [
        _box(draft, (c + 0.18) * cell_x, (r + 0.28) * cell_y, cell_x * 0.64, cell_y * 0.44, draft.one(tints))
        for c, r in places
    ]
    return drawn(draft, shapes, width, height, draft.one(("#fff", "#fff", "#f8f8f8")))


def _tree(draft: Draft) -> Page:
    width, levels, tints = 1000, draft.between(3, 4), _tints(draft)
    shapes: list[str] = []
    count, above = 1, [(width / 2, 50.0)]
    for level in range(levels):
        row = [((k + 0.5) * width / count, 50.0 + level * 150) for k in range(count)]
        for k, (x, y) in enumerate(row):
            px, py = above[min(len(above) - 1, k * len(above) // count)]
            shapes.insert(0, path([(px, py + 20), (px, y - 40), (x, y - 40), (x, y)], line("#444", 2)))
            shapes.append(
                _box(draft, x - 0.4 * width / max(count, 3), y - 25, 0.8 * width / max(count, 3), 50, draft.one(tints))
            )
        count, above = count * draft.between(2, 3), row
    return drawn(draft, shapes, width, 50 + levels * 150, "#fff")


def _network(draft: Draft) -> Page:
    nodes = [(draft.between(60, 740), draft.between(60, 640)) for _ in range(draft.between(7, 30))]
    tints, shapes = _tints(draft), []
    for a in nodes:
        for b in sorted(nodes, key=lambda n: math.dist(a, n))[1 : draft.between(2, 4)]:
            shapes.append(path([a, b], line("#555", draft.between(1, 3))))
    for x, y in nodes:
        shapes.append(circle(x, y, draft.between(14, 34), f"fill='{draft.one(tints)}' stroke='#333' stroke-width='2'"))
        shapes.append(
            text(x, y + 5, draft.one((draft.one("ABCDEFGH"), draft.words(1, 1)[:8])), 14, "text-anchor='middle'")
        )
    return drawn(draft, shapes, 800, 700, "#fff")


def _circuit(draft: Draft) -> Page:
    shapes = []
    step = draft.between(70, 110)
    for x in range(step, 900, step):
        for y in range(step, 700, step):
            kind = draft.between(0, 6)
            shapes.append(
                path([(x, y), (x + step, y)] if draft.chance(0.5) else [(x, y), (x, y + step)], line("#111", 2))
            )
            if kind == 0:
                shapes.append(rectangle(x + 20, y - 8, 32, 16, "fill='#fff' stroke='#111' stroke-width='2'"))
                shapes.append(text(x + 22, y - 14, f"R{draft.between(1, 40)}", 13))
            elif kind == 1:
                shapes.append(
                    circle(x, y, 18, "fill='#fff' stroke='#111' stroke-width='2'")
                    + text(x - 5, y + 5, draft.one("VAMG"), 15)
                )
            elif kind == 2:
                shapes.append(circle(x, y, 4, fill("#111")))
    return drawn(draft, shapes, 900, 700, draft.one(("#fff", "#fdfdf5")))


def _sequence(draft: Draft) -> Page:
    count = draft.between(3, 6)
    shapes, step = [_ARROW], 900 / count
    for k in range(count):
        x = (k + 0.5) * step
        shapes += [
            path([(x, 80), (x, 700)], line("#666", 1.5, "stroke-dasharray='6 5'")),
            rectangle(x - 60, 30, 120, 46, "fill='#eef' stroke='#333'"),
            text(x, 58, draft.title(1, 1)[:12], 15, "text-anchor='middle'"),
        ]
    for y in range(120, 680, draft.between(34, 60)):
        a, b = draft.random.sample(range(count), 2)
        shapes += [
            path([((a + 0.5) * step, y), ((b + 0.5) * step, y)], line("#333", 1.5, _END)),
            text((a + b + 1) / 2 * step, y - 5, draft.words(1, 3), 13, "text-anchor='middle'"),
        ]
    return drawn(draft, shapes, 900, 720, "#fff")


def _venn(draft: Draft) -> Page:
    shapes = []
    for x, y in polygon(400, 350, 120, draft.between(2, 4), draft.random.random()):
        shapes.append(circle(x, y, 190, fill(draft.colour(), "fill-opacity='.4' stroke='#333'")))
        shapes.append(text(400 + (x - 400) * 1.9, 350 + (y - 350) * 1.9, draft.title(1, 2), 22, "text-anchor='middle'"))
    return drawn(draft, shapes, 800, 700, "#fff")


def _layers(draft: Draft) -> Page:
    shapes, y = [_ARROW], 40.0
    for _ in range(draft.between(3, 6)):
        height, count = draft.between(70, 120), draft.between(1, 5)
        shapes.append(rectangle(40, y, 820, height, f"fill='{draft.colour((20, 60), (85, 95))}' stroke='#888'"))
        shapes += [
            rectangle(60 + k * 780 / count, y + 24, 700 / count, height - 36, "fill='#fff' stroke='#444'")
            + text(70 + k * 780 / count, y + 50, draft.title(1, 2)[:14], 14)
            for k in range(count)
        ]
        shapes += [
            text(48, y + 17, draft.title(1, 2), 14, "font-weight='bold'"),
            path([(450, y + height), (450, y + height + 24)], line("#333", 2, _END)),
        ]
        y += height + 26
    return drawn(draft, shapes, 900, int(y + 20), "#fff")


def _plan(draft: Draft) -> Page:
    shapes = [rectangle(80, 80, 740, 540, line("#111", 9))]
    for _ in range(draft.between(3, 6)):
        x, y = draft.between(150, 750), draft.between(140, 560)
        shapes.append(path([(x, 80), (x, y)] if draft.chance(0.5) else [(80, y), (x, y)], line("#111", 7)))
        shapes.append(path([(x, y), (x + 50, y), (x, y + 50)], line("#555", 1.5), smooth=True))
        shapes.append(text(x - 60, y - 30, f"{draft.title(1, 1)} {draft.between(6, 40)} m²", 15))
        shapes.append(rectangle(x - 70, y + 20, draft.between(20, 80), draft.between(20, 60), line("#777", 1.5)))
    return drawn(draft, shapes, 900, 700, "#fff")


def _classes(draft: Draft) -> Page:
    """Boxes with rows, as of classes or tables of a database."""
    shapes, places = [_ARROW], []
    head = draft.one(("#fff", draft.colour((30, 80), (70, 90)), "#dde"))
    for k in range(draft.between(3, 7)):
        x, y = 40 + k % 3 * 290 + draft.between(0, 50), 40 + k // 3 * 240 + draft.between(0, 50)
        rows = draft.between(2, 6)
        places.append((x + 90, y + 40))
        shapes += [
            rectangle(x, y, 190, 30 + rows * 20, "fill='#fff' stroke='#333'"),
            rectangle(x, y, 190, 28, f"fill='{head}' stroke='#333'"),
        ]
        shapes.append(text(x + 95, y + 19, draft.title(1, 1)[:16], 15, "text-anchor='middle' font-weight='bold'"))
        shapes += [
            text(
                x + 8,
                y + 46 + n * 20,
                f"{draft.one('+-#')} {draft.words(1, 1)}: {draft.one(('int', 'str', 'date'))}",
                13,
            )
            for n in range(rows)
        ]
    lines = [path([a, (a[0], b[1]), b], line("#333", 1.5, _END)) for a, b in itertools.pairwise(places)]
    return drawn(draft, [_ARROW, *lines, *shapes], 920, 780, "#fff")


def _mind_map(draft: Draft) -> Page:
    shapes = []
    count = draft.between(4, 8)
    for k, (x, y) in enumerate(polygon(450, 350, 230, count, draft.random.random())):
        colour = draft.colour((40, 90), (45, 75))
        shapes.append(path([(450, 350), ((450 + x) / 2, y), (x, y)], line(colour, 6), smooth=True))
        for u, v in polygon(x, y, 95, draft.between(1, 3), k * 6.28 / count):
            shapes += [
                path([(x, y), (u, v)], line(colour, 3)),
                text(u, v, draft.words(1, 2)[:16], 14, "text-anchor='middle'"),
            ]
        shapes += [
            f"<ellipse cx='{x}' cy='{y}' rx='65' ry='28' fill='{colour}'/>",
            text(x, y + 5, draft.title(1, 1)[:12], 15, "text-anchor='middle'"),
        ]
    shapes += [
        "<ellipse cx='450' cy='350' rx='100' ry='48' fill='#fff' stroke='#333' stroke-width='3'/>",
        text(450, 357, draft.title(1, 1)[:14], 21, "text-anchor='middle'"),
    ]
    return drawn(draft, shapes, 900, 700, draft.one(("#fff", "#fff", "#fbfaf4")))


def _timeline(draft: Draft) -> Page:
    count, colour = draft.between(4, 8), draft.colour()
    shapes = [
        path([(40, 300), (960, 300)], line(colour, 6)),
        text(500, 60, draft.title(2, 5), 30, "text-anchor='middle'"),
    ]
    for k in range(count):
        x, above = 70 + k * 860 / (count - 1), k % 2
        shapes += [
            circle(x, 300, 13, f"fill='#fff' stroke='{colour}' stroke-width='5'"),
            text(x, 275 if not above else 340, str(1990 + k * 3), 17, "text-anchor='middle' font-weight='bold'"),
        ]
        shapes += [
            text(x, (370 if not above else 180) + n * 20, draft.words(1, 2)[:16], 14, "text-anchor='middle'")
            for n in range(draft.between(1, 4))
        ]
    return drawn(draft, shapes, 1000, 560, draft.one(("#fff", "#f6f8fa")))


def _cycle(draft: Draft) -> Page:
    """Steps in a ring, or in a row, as arrows or discs with words in them."""
    shapes, colours = [_ARROW], [draft.colour((30, 90), (55, 85)) for _ in range(3)]
    count = draft.between(3, 7)
    places = (
        polygon(400, 360, 230, count, -1.57)
        if draft.chance(0.6)
        else [(90 + k * 640 / count, 360.0) for k in range(count)]
    )
    ring = [*places, places[0]] if places[0][0] == 400 else places
    shapes += [
        path(
            [a, ((a[0] * 3 + b[0]) / 4, (a[1] * 3 + b[1]) / 4), ((a[0] + 2 * b[0]) / 3, (a[1] + 2 * b[1]) / 3)],
            line("#444", 4, _END),
        )
        for a, b in itertools.pairwise(ring)
    ]
    for x, y in places:
        shape = (
            circle(x, y, 62, fill(draft.one(colours), "stroke='#333'"))
            if draft.chance(0.5)
            else rectangle(x - 62, y - 38, 124, 76, fill(draft.one(colours), "rx='10'"))
        )
        shapes += [
            shape,
            text(x, y - 2, draft.title(1, 1)[:13], 16, "text-anchor='middle'"),
            text(x, y + 18, draft.words(1, 1)[:13], 13, "text-anchor='middle'"),
        ]
    return drawn(draft, shapes, 800, 720, "#fff")


def _pyramid(draft: Draft) -> Page:
    count, shapes = draft.between(3, 6), [text(400, 50, draft.title(1, 4), 26, "text-anchor='middle'")]
    for k in range(count):
        top, bottom = 90 + k * 520 / count, 90 + (k + 1) * 520 / count - 5
        a, b = 330 * k / count, 330 * (k + 1) / count
        shapes.append(
            path(
                [(400 - a, top), (400 + a, top), (400 + b, bottom), (400 - b, bottom)],
                fill(draft.colour((40, 80), (50, 80))),
                closed=True,
            )
        )
        shapes.append(text(400, (top + bottom) / 2 + 8, draft.title(1, 1)[:14], 18, "text-anchor='middle'"))
    return drawn(draft, shapes, 800, 660, "#fff")


def _lanes(draft: Draft) -> Page:
    lanes, shapes = draft.between(2, 5), [_ARROW]
    height = 640 / lanes
    for k in range(lanes):
        shapes += [
            rectangle(30, 30 + k * height, 900, height, "fill='#fff' stroke='#555' stroke-width='2'"),
            rectangle(30, 30 + k * height, 90, height, "fill='#eef' stroke='#555'"),
            text(75, 30 + (k + 0.5) * height, draft.title(1, 1)[:10], 14, "text-anchor='middle'"),
        ]
    places = [(150 + k * 110.0, 30 + (draft.between(0, lanes - 1) + 0.3) * height) for k in range(draft.between(5, 7))]
    shapes += [
        path([(a[0] + 90, a[1] + 20), (b[0], b[1] + 20)], line("#333", 1.6, _END))
        for a, b in itertools.pairwise(places)
    ]
    shapes += [_box(draft, x, y, 90, 44, draft.one(("#fff", "#ffe9c9", "#d9ecff"))) for x, y in places]
    return drawn(draft, shapes, 960, 700, "#fff")


def _geometry(draft: Draft) -> Page:
    """As in a schoolbook: axes, triangles, circles, letters, measures."""
    shapes = [_ARROW]
    if draft.chance(0.5):
        shapes += [
            path([(60, 640), (60, 40)], line("#111", 2, _END)),
            path([(60, 640), (760, 640)], line("#111", 2, _END)),
        ]
    for _ in range(draft.between(1, 4)):
        x, y, r = draft.between(200, 600), draft.between(180, 520), draft.between(70, 180)
        corners = polygon(x, y, r, draft.between(3, 6), draft.random.random() * 3)
        shapes.append(
            path(corners, line("#111", 2.4), closed=True) if draft.chance(0.6) else circle(x, y, r, line("#111", 2.4))
        )
        shapes += [
            text(u + 6, v - 6, letter, 20, "font-style='italic'")
            for (u, v), letter in zip(corners, "ABCDEF", strict=False)
        ]
        shapes.append(path([(x, y), corners[0]], line("#333", 1.4, draft.one(("", "stroke-dasharray='6 4'", _END)))))
        shapes.append(text(x, y, f"{draft.one('abrhx')} = {draft.between(2, 40)} cm", 17))
    return drawn(draft, shapes, 800, 700, draft.one(("#fff", "#fff", "#fdfbf3")))


def _nested(draft: Draft) -> Page:
    """Systems in systems: boxes that hold boxes, with arrows between them."""
    shapes, places = [_ARROW], []
    for k in range(draft.between(2, 4)):
        x, y, width, height = 30 + k % 2 * 460, 30 + k // 2 * 350, 400, 300
        ground = draft.one(("#fff", "#f2f2f2", draft.colour((20, 60), (88, 96))))
        edge = draft.one(("", "stroke-dasharray='8 5'", "rx='10'"))
        shapes.append(rectangle(x, y, width, height, f"fill='{ground}' stroke='#777' stroke-width='2' {edge}"))
        shapes.append(text(x + 12, y + 22, draft.title(1, 2)[:26], 15))
        for n in range(draft.between(1, 4)):
            u, v = x + 20 + n % 2 * 195, y + 50 + n // 2 * 125
            places.append((u + 80.0, v + 40.0))
            shapes.append(_box(draft, u, v, 165, 85, draft.one(_tints(draft))))
    arrows = [
        path([a, b], line("#222", 2, _END))
        for a, b in zip(places, draft.random.sample(places, len(places)), strict=True)
        if a != b
    ]
    return drawn(draft, [*shapes, *arrows], 920, 720, "#fff")


def _emblem(draft: Draft, x: float, y: float, radius: float, colours: list[str]) -> list[str]:
    """One to three shapes around a centre, as companies' marks are."""
    shapes = []
    for k in range(draft.between(1, 4)):
        size, colour = radius * (1 - k * 0.27), draft.one(colours)
        kind = draft.between(0, 5)
        if kind == 0:
            shapes.append(circle(x, y, size, fill(colour)))
        elif kind == 1:
            shapes.append(
                path(polygon(x, y, size, draft.between(3, 8), draft.random.random() * 3), fill(colour), closed=True)
            )
        elif kind == 2:
            shapes.append(circle(x, y, size * 0.9, line(colour, size * 0.25)))
        elif kind == 3:
            ring = [
                p
                for a, b in zip(polygon(x, y, size, 6), polygon(x, y, size * 0.45, 6, 0.52), strict=True)
                for p in (a, b)
            ]
            shapes.append(path(ring, fill(colour), closed=True))
        elif kind == 4:
            shapes += [
                path(polygon(x + dx, y, size * 0.5, 30), fill(c, "opacity='.8'"), closed=True)
                for dx, c in ((-size * 0.3, colour), (size * 0.3, draft.one(colours)))
            ]
        else:
            shapes.append(
                path(blob(draft, x, y, size, draft.between(3, 6), 0.4), fill(colour), closed=True, smooth=True)
            )
    return shapes


def _mark(draft: Draft) -> Page:
    width, height = draft.one(((600, 600), (800, 500), (700, 400), (512, 512)))
    ground = draft.one(("#fff", "#fff", "#fff", draft.colour((40, 90), (15, 45)), "#000", "#f2f2f2"))
    light = ground not in ("#fff", "#f2f2f2")
    colours = [draft.colour((50, 100), (60, 90) if light else (25, 60)) for _ in range(draft.between(1, 3))]
    name, style = draft.brand(), draft.one(("bold", "normal", "900"))
    name = name.upper() if draft.chance(0.5) else name
    spacing = draft.between(0, 12)
    attributes = f"text-anchor='middle' font-weight='{style}' letter-spacing='{spacing}' fill='{draft.one([*colours, '#fff' if light else '#222'])}'"
    size = min(width, height) * draft.random.uniform(0.13, 0.2)
    family = f'style="font-family:{draft.font("sans", "serif", "script")}"'
    layout = draft.between(0, 3)
    x, y = width / 2, height / 2
    if layout == 0:  # the emblem alone
        shapes = _emblem(draft, x, y, min(width, height) * 0.33, colours)
    elif layout == 1:  # above the name
        shapes = [
            *_emblem(draft, x, height * 0.38, min(width, height) * 0.24, colours),
            text(x, height * 0.82, name, size, f"{attributes} {family}"),
        ]
    elif layout == 2:  # the name alone
        shapes = [
            text(x, y + size * 0.4, name, size * 1.3, f"{attributes} {family}"),
            path([(x - size * 2, y + size), (x + size * 2, y + size)], line(colours[0], draft.between(0, 8))),
        ]
    else:  # beside the name
        shapes = [
            *_emblem(draft, width * 0.22, y, min(width, height) * 0.16, colours),
            text(width * 0.64, y + size * 0.35, name, size * 0.9, f"{attributes} {family}"),
        ]
    return drawn(draft, shapes, width, height, ground)


def _badge(draft: Draft) -> Page:
    colour, second = draft.colour(), draft.colour((40, 90), (70, 92))
    ring = f"<defs><path id='c' d='M300,300m-205,0a205,205 0 1,1 410,0a205,205 0 1,1 -410,0'/></defs><text font-size='44' font-weight='bold' letter-spacing='8' fill='{second}'><textPath href='#c'>{draft.brand().upper()} ★ {draft.city().upper()} ★ {draft.between(1850, 2020)}</textPath></text>"
    shapes = [
        circle(300, 300, 270, fill(colour)),
        circle(300, 300, 180, fill(second)),
        ring,
        *_emblem(draft, 300, 300, 120, [colour, draft.colour()]),
    ]
    return drawn(draft, shapes, 600, 600, draft.one(("#fff", "#fff", "#eee")))


def _monogram(draft: Draft) -> Page:
    colour = draft.colour()
    frame = draft.one(
        (
            rectangle(130, 130, 340, 340, line(colour, 14)),
            circle(300, 300, 190, line(colour, 10)),
            rectangle(110, 110, 380, 380, fill(colour, "rx='60'")),
        )
    )
    ink = "#fff" if "rx" in frame else colour
    letters = draft.one("ABCDEFGHKLMNRSTVWZ") + draft.one("ABCDEFGHKLMNRSTVWZ ")
    return drawn(
        draft,
        [frame, text(300, 360, letters.strip(), 170, f"text-anchor='middle' fill='{ink}' font-weight='bold'")],
        600,
        600,
        "#fff",
    )


def _figure(draft: Draft, x: float, y: float, size: float, outline: str) -> list[str]:
    """A person, an animal or a plant, of simple shapes with an outline."""
    edge = f"stroke='#111' stroke-width='{draft.between(2, 5)}'" if outline else ""

    def part(dx: float, dy: float, radius: float, colour: str, corners: int = 10, roughness: float = 0.12) -> str:
        return path(
            blob(draft, x + dx * size, y + dy * size, radius * size, corners, roughness),
            fill(colour, edge),
            closed=True,
            smooth=True,
        )

    skin, cloth = draft.colour((30, 80), (60, 85)), draft.colour()
    kind = draft.between(0, 3)
    if kind == 0:  # a person
        eyes = [circle(x + dx * size, y - 0.75 * size, size * 0.05, fill("#111")) for dx in (-0.12, 0.12)]
        mouth = path(
            [(x - 0.12 * size, y - 0.58 * size), (x, y - 0.5 * size), (x + 0.12 * size, y - 0.58 * size)],
            line("#111", 3),
            smooth=True,
        )
        limbs = [
            path([(x, y), (x + dx * size, y + dy * size)], line(skin, size * 0.14, "stroke-linecap='round'"))
            for dx, dy in ((-0.6, 0.2), (0.6, 0.1), (-0.3, 1), (0.3, 1))
        ]
        return [
            *limbs,
            part(0, 0.2, 0.45, cloth),
            part(0, -0.7, 0.35, skin, 12, 0.05),
            part(0, -0.98, 0.2, draft.colour((20, 70), (15, 45)), 8, 0.3),
            *eyes,
            mouth,
        ]
    if kind == 1:  # an animal
        legs = [
            path([(x + dx * size, y), (x + dx * size, y + 0.8 * size)], line(skin, size * 0.15))
            for dx in (-0.5, -0.25, 0.25, 0.5)
        ]
        return [
            *legs,
            part(0, 0, 0.6, skin),
            part(0.65, -0.5, 0.35, skin),
            part(0.5, -0.8, 0.13, cloth),
            part(0.8, -0.8, 0.13, cloth),
            circle(x + 0.6 * size, y - 0.55 * size, size * 0.05, fill("#111")),
        ]
    if kind == 2:  # a tree
        return [
            rectangle(x - 0.1 * size, y, 0.2 * size, size, fill("#7a5230", edge)),
            part(0, -0.3, 0.6, draft.colour((40, 80), (30, 50)), 14, 0.2),
        ]
    petals = [
        path(blob(draft, px, py, 0.25 * size, 8, 0.1), fill(cloth, edge), closed=True, smooth=True)
        for px, py in polygon(x, y - 0.3 * size, 0.4 * size, draft.between(5, 8))
    ]
    return [
        path([(x, y), (x + 0.1 * size, y + size)], line("#3a7a35", size * 0.08)),
        *petals,
        circle(x, y - 0.3 * size, 0.2 * size, fill("#fc3", edge)),
    ]


def _scene(draft: Draft) -> Page:
    width, height = draft.one(((800, 600), (700, 700), (600, 800)))
    sky, ground = draft.colour((30, 90), (75, 92)), draft.colour((30, 70), (45, 70))
    hills = [
        (0, height),
        (0, height * 0.7),
        *((k * width / 5, height * draft.random.uniform(0.5, 0.75)) for k in range(1, 5)),
        (width, height * 0.7),
        (width, height),
    ]
    shapes = [path(hills, fill(ground), closed=True), circle(draft.between(80, width - 80), 100, 50, fill("#fd5"))]
    for _ in range(draft.between(1, 4)):
        shapes += _figure(
            draft, draft.between(100, width - 100), height * 0.62, draft.between(70, 160), draft.one(("", "edge"))
        )
    return drawn(draft, shapes, width, height, sky)


def _clip(draft: Draft) -> Page:
    return drawn(
        draft,
        _figure(draft, 300, 310, draft.between(150, 220), "edge"),
        600,
        600,
        draft.one(("#fff", "#fff", draft.colour((20, 60), (85, 95)))),
    )


def _sketch(draft: Draft) -> Page:
    shapes = []
    ink = draft.one(("#222", "#444", "#1d3a7a", "#555"))
    for _ in range(draft.between(4, 12)):
        ring = blob(
            draft, draft.between(120, 580), draft.between(120, 580), draft.between(30, 170), draft.between(5, 14), 0.35
        )
        for _ in range(draft.between(1, 3)):
            shaky = [(x + draft.random.gauss(0, 4), y + draft.random.gauss(0, 4)) for x, y in ring]
            shapes.append(path(shaky, line(ink, draft.random.uniform(0.8, 3)), closed=draft.chance(0.7), smooth=True))
        if draft.chance(0.5):
            x, y, length = draft.between(100, 500), draft.between(100, 500), draft.between(30, 90)
            shapes += [
                path([(x + k * 7, y), (x + k * 7 + length, y + length)], line(ink, 1))
                for k in range(draft.between(5, 20))
            ]
    return drawn(draft, shapes, 700, 700, draft.paper())


def _face(draft: Draft) -> Page:
    skin, hair = draft.colour((30, 70), (60, 85)), draft.colour((10, 80), (10, 60))
    edge = "stroke='#111' stroke-width='5'"
    shapes = [
        path(blob(draft, 350, 300, 250, 18, 0.12), fill(hair, edge), closed=True, smooth=True),
        path(blob(draft, 350, 350, 200, 16, 0.05), fill(skin, edge), closed=True, smooth=True),
    ]
    for x in (280, 420):
        shapes += [
            f"<ellipse cx='{x}' cy='320' rx='38' ry='{draft.between(25, 55)}' fill='#fff' {edge}/>",
            circle(x + 6, 325, 16, fill(draft.colour((40, 90), (20, 45)))),
        ]
    shapes += [
        path([(350, 340), (335, 390), (355, 395)], line("#111", 5)),
        path([(280, 450), (350, draft.between(430, 500)), (420, 450)], line("#a22", 9), smooth=True),
    ]
    return drawn(draft, shapes, 700, 700, draft.colour((30, 80), (70, 95)))


DIAGRAMS: tuple[Template, ...] = (
    _flow, _flow, _tree, _network, _circuit, _plan, _classes, _mind_map, _timeline, _cycle, _pyramid, _lanes, _geometry, _nested,
    _sequence, _venn, _layers,
)  # fmt: skip
LOGOS: tuple[Template, ...] = (_mark, _badge, _monogram)
DRAWINGS: tuple[Template, ...] = (_scene, _clip, _sketch, _face)
