"""Receipts and forms."""

from __future__ import annotations

from kind_head.draft import Draft, Page, Template, page


def _strip(draft: Draft, body: str, style: str = "") -> Page:
    width, height = draft.between(300, 460), draft.between(430, 1150)
    size = draft.between(12, 18)
    return page(
        f"body{{background:{draft.one(('#fff', '#fff', '#f8f8f6', '#f1efe9'))};color:{draft.one(('#000', '#222', '#444', '#336'))};"
        f"padding:18px {draft.between(10, 30)}px;font:{size}px/{draft.between(115, 160)}% "
        f"{draft.font('mono', 'mono', 'mono', 'sans')}}}.r{{display:flex;justify-content:space-between;gap:8px}}"
        f".c{{text-align:center}}hr{{border:0;border-top:{draft.one(('1px dashed', '2px solid', '1px dotted', '3px double'))} #333}}{style}",
        body,
        width,
        height,
    )


def _items(draft: Draft, low: int, high: int) -> str:
    return "".join(
        f"<div class=r><span>{draft.words(1, 3).upper() if draft.language != 'ja' else draft.words(1, 2)}</span><span>"
        f"{draft.money(60)}{draft.one(('', ' A', ' B', ' *'))}</span></div>"
        for _ in range(draft.between(low, high))
    )


def _barcode(draft: Draft) -> str:
    bars = "".join(
        f"<i style='display:inline-block;height:46px;width:{draft.between(1, 4)}px;background:{'#000' if n % 2 else '#fff'}'></i>"
        for n in range(70)
    )
    return f"<div class=c style='white-space:nowrap;overflow:hidden;font-size:0'>{bars}</div><div class=c>{draft.between(10**11, 10**12)}</div>"


def _till(draft: Draft) -> Page:
    foot = _barcode(draft) if draft.chance(0.4) else ""
    return _strip(
        draft,
        f"<div class=c><b style='font-size:150%'>{draft.brand().upper()}</b><br>{draft.title(1, 2)} {draft.between(1, 99)}<br>"
        f"{draft.city()}<br>Tel {draft.between(10**6, 10**7)}</div><hr>{_items(draft, 3, 24)}<hr><div class=r><b>"
        f"{draft.one(('TOTAL', 'SUMME', 'TOTALE', 'EUR', 'BETRAG'))}</b><b>{draft.money(400)}</b></div><div class=r><span>"
        f"{draft.one(('VISA', 'BAR', 'CASH', 'MAESTRO'))}</span><span>{draft.money(400)}</span></div><hr><div class=r><span>"
        f"{draft.date()}</span><span>{draft.between(8, 21)}:{draft.between(10, 59)}</span></div>{foot}<div class=c>{draft.title(2, 5)}</div>",
    )


def _restaurant(draft: Draft) -> Page:
    lines = "".join(
        f"<div class=r><span>{draft.between(1, 5)} x {draft.title(1, 2)}</span><span>{draft.money(50)}</span></div>"
        for _ in range(draft.between(2, 10))
    )
    return _strip(
        draft,
        f"<div class=c style='font:italic 26px {draft.font('script')}'>{draft.brand()}</div><div class=c>{draft.city()}<br>"
        f"{draft.date()}</div><br>{lines}<br><div class=r style='font-size:130%'><b>{draft.title(1, 1)}</b><b>€ {draft.money(200)}"
        f"</b></div><br><div class=r><span>19%</span><span>{draft.money(30)}</span></div><div class=r><span>7%</span><span>"
        f"{draft.money(9)}</span></div><br><div class=c>{draft.sentences(1, 1)}</div>",
    )


def _card_slip(draft: Draft) -> Page:
    rows = "".join(
        f"<div class=r><span>{name}</span><span>{draft.between(1000, 999999)}</span></div>"
        for name in ("Terminal", "TA-Nr", "Trace", "Auth", "AID", "PAN")[: draft.between(3, 6)]
    )
    return _strip(
        draft,
        f"<div class=c><b>{draft.brand()}</b><br>* * {draft.title(1, 2)} * *</div>{rows}<hr><div class=c style='font-size:150%'>"
        f"EUR {draft.money(300)}</div><hr>{rows}<div class=c>{draft.title(2, 6)}</div>",
    )


def _parking(draft: Draft) -> Page:
    return _strip(
        draft,
        f"<div class=c><h1>P</h1><h2>{draft.city()}</h2><p>{draft.date()}</p><h1>{draft.between(8, 21)}:{draft.between(10, 59)}"
        f"</h1><p>{draft.money(20)} EUR</p></div><hr>{_barcode(draft)}",
    )


def _fuel(draft: Draft) -> Page:
    return _strip(
        draft,
        f"{draft.brand().upper()} {draft.city().upper()}<br>{draft.title(1, 3)}<br><br>{_items(draft, 1, 4)}<br><div class=r><span>"
        f"{draft.money(70)} L</span><span>x {draft.money(2)}</span></div><div class=r style='font-size:160%'><b>=</b><b>"
        f"{draft.money(150)}</b></div><br>{_items(draft, 3, 8)}<br>{draft.date()}<br>{_barcode(draft)}",
    )


def _tabular_receipt(draft: Draft) -> Page:
    rows = "".join(
        f"<tr><td>{draft.between(1, 9)}<td>{draft.words(1, 2)}<td>{draft.money(40)}<td>{draft.money(90)}"
        for _ in range(draft.between(4, 18))
    )
    return _strip(
        draft,
        f"<h2 class=c>{draft.brand()} {draft.brand()}</h2><table style='width:100%;border-top:1px solid;border-bottom:1px solid'>{rows}"
        f"</table><h3 style='text-align:right'>{draft.money(500)}</h3><div class=c>{draft.date()}<br>{draft.title(2, 4)}<br>#{draft.between(1, 9999)}</div>",
    )


def _paper(draft: Draft, body: str, style: str = "") -> Page:
    return page(
        f"body{{background:{draft.paper()};color:{draft.ink()};padding:{draft.between(20, 60)}px {draft.between(25, 70)}px;"
        f"font:{draft.between(10, 15)}px/1.35 {draft.font('sans', 'sans', 'serif')}}}h1,h2,h3{{margin:.4em 0}}"
        f"td{{border:1px solid #444;padding:3px 6px;vertical-align:top}}table{{border-collapse:collapse;width:100%}}"
        f".b{{display:inline-block;width:13px;height:13px;border:1px solid #222;margin:0 5px;text-align:center;line-height:12px}}"
        f".w{{color:#1b3f9c;font:17px {draft.font('script', 'sans')}}}{style}",
        body,
        760,
        draft.one((1075, 984)),
    )


def _written(draft: Draft, filled: float) -> str:
    return (
        f"<span class=w>{draft.one((draft.person(), draft.city(), draft.date()))}</span>"
        if draft.chance(filled)
        else "&nbsp;"
    )


def _ticks(draft: Draft, low: int, high: int) -> str:
    return "".join(
        f"<span class=b>{'✕' if draft.chance(0.3) else ''}</span>{draft.words(1, 2)} "
        for _ in range(draft.between(low, high))
    )


def _grid_form(draft: Draft) -> Page:
    filled = draft.one((0.0, 0.5, 0.9))
    height = draft.between(28, 54)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td style='height:{height}px'><small>{draft.title(1, 3)}</small><br>{_written(draft, filled)}"
            for _ in range(draft.between(1, 4))
        )
        + "</table><table>"
        for _ in range(draft.between(10, 20))
    )
    return _paper(draft, f"<h2>{draft.title(2, 5)}</h2><p>{draft.sentences(1, 2)}</p><table>{rows}</table>")


def _line_form(draft: Draft) -> Page:
    filled = draft.one((0.0, 0.5, 0.9))
    rows = "".join(
        f"<div style='display:flex;margin:{draft.between(8, 16)}px 0'><span>{draft.title(1, 3)}:</span><span style='flex:1;border-bottom:"
        f"1px solid #333;margin-left:8px'>{_written(draft, filled)}</span></div>"
        + (f"<div>{_ticks(draft, 2, 4)}</div>" if draft.chance(0.35) else "")
        for _ in range(draft.between(12, 24))
    )
    return _paper(draft, f"<h1 style='text-align:center'>{draft.title(2, 4)}</h1>{rows}")


def _box_form(draft: Draft) -> Page:
    def boxes() -> str:
        text = f"{draft.person().upper():<30}" if draft.chance(0.5) else ""
        cells = "".join(
            f"<i style='display:inline-block;width:22px;height:26px;border:1px solid {line};text-align:center;font-style:normal'>"
            f"{text[n : n + 1].strip()}</i>"
            for n in range(draft.between(8, 28))
        )
        return f"<div style='margin:4px 0 12px'><small>{draft.title(1, 3)}</small><br>{cells}</div>"

    line = draft.one(("#888", "#d33", "#393", "#36c", "#333"))
    tint = draft.one(("#fff", "#fff3e8", "#eaf6ea", "#e8f0fb"))
    parts = "".join(
        f"<div style='background:{tint};border:1px solid {line};padding:8px;margin-bottom:8px'><b>{n} {draft.title(1, 3)}</b>"
        f"{''.join(boxes() for _ in range(draft.between(1, 3)))}{_ticks(draft, 2, 5)}</div>"
        for n in range(1, draft.between(4, 8))
    )
    return _paper(draft, f"<h2 style='color:{line}'>{draft.title(2, 5)}</h2>{parts}")


def _questionnaire(draft: Draft) -> Page:
    scale = draft.between(3, 6)
    head = "<tr><td>" + "".join(f"<td>{n}" for n in range(1, scale + 1))
    rows = "".join(
        f"<tr><td>{n}. {draft.title(4, 9)}?"
        + "".join(f"<td><span class=b>{'✓' if draft.chance(0.2) else ''}</span>" for _ in range(scale))
        for n in range(1, draft.between(10, 24))
    )
    return _paper(draft, f"<h2>{draft.title(2, 4)}</h2><p>{draft.sentences(1, 2)}</p><table>{head}{rows}</table>")


def _shaded_form(draft: Draft) -> Page:
    colour = draft.colour((20, 70), (80, 92))
    fields = "".join(
        f"<div style='flex:1 0 {draft.one((30, 45, 95))}%;margin:4px'><small>{draft.title(1, 2)}</small><div style='background:{colour};"
        f"height:30px;padding:5px'>{_written(draft, 0.4)}</div></div>"
        for _ in range(draft.between(18, 34))
    )
    return _paper(
        draft,
        f"<h1 style='background:{draft.colour()};color:#fff;padding:10px'>{draft.title(2, 4)}</h1><div style='display:flex;flex-wrap:wrap'>"
        f"{fields}</div><p>{_ticks(draft, 3, 8)}</p><br>_________________________<br>{draft.title(1, 2)}",
    )


def _transfer_form(draft: Draft) -> Page:
    rows = "".join(
        f"<tr><td style='height:38px;width:{draft.between(30, 60)}%'><small>{n}. {draft.title(1, 4)}</small> {_written(draft, 0.5)}<td>"
        f"<small>{draft.title(1, 2)}</small><br>{_ticks(draft, 1, 3)}"
        for n in range(1, draft.between(9, 18))
    )
    return _paper(
        draft,
        f"<h3>{draft.brand()} {draft.between(10, 999)}-{draft.one('ABCD')}</h3><table>{rows}</table><p>{draft.sentences(2, 3)}</p>",
    )


RECEIPTS: tuple[Template, ...] = (_till, _restaurant, _card_slip, _parking, _fuel, _tabular_receipt)
FORMS: tuple[Template, ...] = (_grid_form, _line_form, _box_form, _questionnaire, _shaded_form, _transfer_form)
