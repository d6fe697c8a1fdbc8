"""The reliability plot as SVG: for each tenth of the confidences, the share of the tags that are true.

Above, a dot for each tenth with its 95 % interval, beside the diagonal on which confidences mean what they say; below,
how many tags there are in each. It is drawn by hand: no library for it is needed where the service runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from worker.diagnostics.reliability import BINS, Reliability
from worker.operations.printable import printable

_WIDTH, _HEIGHT = 460, 560
_LEFT, _TOP, _SIDE = 64, 76, 360
_BARS_TOP, _BARS_HEIGHT = 468, 48
_LONGEST_TITLE = 48

_STYLE = """\
  svg { background: #fff }
  text { font: 12px system-ui, sans-serif; fill: #5c6773 }
  .title { font-size: 16px; font-weight: 600; fill: #1c2430 }
  .grid { stroke: #e3e7ec }
  .diagonal { stroke: #8a95a1; stroke-dasharray: 4 4 }
  .interval { stroke: #1766b5; stroke-width: 2; stroke-opacity: .55 }
  .share { fill: #1766b5 }
  .bar { fill: #1766b5; fill-opacity: .45 }
  @media (prefers-color-scheme: dark) {
    svg { background: #14181d }
    text { fill: #98a3af }
    .title { fill: #e8ecf0 }
    .grid { stroke: #2b323a }
    .interval { stroke: #6cb2f5 }
    .share, .bar { fill: #6cb2f5 }
  }"""


def svg(found: Reliability, title: str, subtitle: str = "") -> str:
    """The file's text. `title` and `subtitle` may hold what others wrote."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-labelledby="title description">',
        f'<title id="title">{_text(title)}</title>',
        f'<desc id="description">{_text(_description(found))}</desc>',
        f"<style>\n{_STYLE}\n</style>",
        f'<text class="title" x="24" y="32">{_text(title, _LONGEST_TITLE)}</text>',
        f'<text x="24" y="52">{_text(subtitle)}</text>',
        *_axes(),
        *_points(found),
        *_bars(found),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _x(share: float) -> float:
    return round(_LEFT + share * _SIDE, 1)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * _SIDE, 1)


def _axes() -> Iterator[str]:
    for tenth in range(0, BINS + 1, 2):
        share = tenth / BINS
        yield f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(share)}" y2="{_y(share)}"/>'
        yield f'<line class="grid" x1="{_x(share)}" x2="{_x(share)}" y1="{_y(0)}" y2="{_y(1)}"/>'
        yield f'<text x="{_LEFT - 8}" y="{_y(share) + 4}" text-anchor="end">{share:.0%}</text>'
        yield f'<text x="{_x(share)}" y="{_y(0) + 18}" text-anchor="middle">{share:.0%}</text>'
    yield f'<line class="diagonal" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    middle = _TOP + _SIDE / 2
    turned = f'text-anchor="middle" transform="rotate(-90 18 {middle})"'
    yield f'<text x="18" y="{middle}" {turned}>tags that are true</text>'
    yield f'<text x="{_x(0.5)}" y="{_HEIGHT - 12}" text-anchor="middle">confidence, and how many tags have it</text>'


def _points(found: Reliability) -> Iterator[str]:
    for mean, share in found:
        within = share.interval
        if within is None:  # a tenth without tags is not among them
            continue
        low, high = within
        hint = _text(f"confidence {mean:.0%}: {share}")
        yield f'<line class="interval" x1="{_x(mean)}" x2="{_x(mean)}" y1="{_y(low)}" y2="{_y(high)}"/>'
        yield f'<circle class="share" cx="{_x(mean)}" cy="{_y(share.value or 0)}" r="5"><title>{hint}</title></circle>'


def _bars(found: Reliability) -> Iterator[str]:
    numbers = found.numbers()
    width = _SIDE / BINS
    for tenth, number in enumerate(numbers):
        if not number:
            continue
        height = round(max(1.0, _BARS_HEIGHT * number / max(numbers)), 1)
        left, top, bottom = _x(tenth / BINS), round(_BARS_TOP + _BARS_HEIGHT - height, 1), _BARS_TOP + _BARS_HEIGHT
        yield f'<rect class="bar" x="{left + 2}" y="{top}" width="{width - 4}" height="{height}" rx="2"/>'
        yield f'<text x="{left + width / 2}" y="{bottom + 14}" text-anchor="middle">{number}</text>'


def _description(found: Reliability) -> str:
    return "; ".join(f"confidence {mean:.0%}: {share}" for mean, share in found) or "There are no tags."


def _text(text: str, maximum: int | None = None) -> str:
    return escape(printable(text, maximum=maximum))
