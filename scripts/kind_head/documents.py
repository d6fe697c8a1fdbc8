"""Pages of text: letters, reports, articles, contracts, tables, invoices, minutes, nearly empty and typed pages."""

from __future__ import annotations

from kind_head.draft import Draft, Page, Template, page


def _sheet(draft: Draft, body: str, style: str = "", *, wide: bool = False) -> Page:
    width, height = (1000, 707) if wide else draft.one(((760, 1075), (760, 984), (760, 1075)))
    size, line = draft.between(11, 19), draft.between(120, 190) / 100
    margin = draft.between(30, 100)
    return page(
        f"body{{background:{draft.paper()};color:{draft.ink()};padding:{draft.between(20, 90)}px {margin}px;"
        f"font:{size}px/{line} {draft.font('serif', 'sans')}}}h1,h2{{font-family:{draft.font('serif', 'sans')};"
        f"line-height:1.2}}td,th{{padding:{draft.between(2, 8)}px 6px;text-align:left}}p{{margin:.7em 0}}{style}",
        body,
        width,
        height,
    )


def _letter(draft: Draft) -> Page:
    head = (
        f"<h2 style='text-align:{draft.one(('left', 'right', 'center'))};color:{draft.colour()}'>{draft.brand()}</h2>"
    )
    address = f"{draft.person()}<br>{draft.title(1, 2)} {draft.between(1, 99)}<br>{draft.between(10000, 99999)} {draft.city()}"
    body = "".join(f"<p>{draft.sentences(1, 5)}</p>" for _ in range(draft.between(1, 6)))
    return _sheet(
        draft,
        f"{head if draft.chance(0.7) else ''}<p>{address}</p><p style='text-align:right'>{draft.city()}, {draft.date()}"
        f"</p><p><b>{draft.title(2, 6)}</b></p>{body}<p>{draft.words(2, 3)}</p><p style='font:28px "
        f"{draft.font('script')};color:#224'>{draft.person()}</p>",
    )


def _report(draft: Draft) -> Page:
    parts = "".join(
        f"<h2>{number}. {draft.title(2, 5)}</h2>" + "".join(f"<p>{draft.sentences(2, 5)}</p>" for _ in range(2))
        for number in range(1, draft.between(2, 6))
    )
    align = draft.one(("left", "justify", "justify"))
    return _sheet(
        draft, f"<h1>{draft.title(2, 6)}</h1><p>{draft.person()}, {draft.date()}</p>{parts}", f"p{{text-align:{align}}}"
    )


def _article(draft: Draft) -> Page:
    text = "".join(
        f"{f'<h3>{draft.title(2, 5)}</h3>' if draft.chance(0.3) else ''}<p>{draft.sentences(3, 6)}</p>"
        for _ in range(14)
    )
    rule = draft.one(("1px solid #999", "none"))
    columns = draft.between(2, 3)
    return _sheet(
        draft,
        f"<h1 style='text-align:center'>{draft.title(3, 8)}</h1><div class=c>{text}</div>",
        f".c{{columns:{columns};column-rule:{rule};text-align:justify;font-size:{draft.between(9, 13)}px}}",
    )


def _table(draft: Draft) -> Page:
    columns, rows = draft.between(3, 8), draft.between(8, 34)
    cells = [
        "<tr>" + "".join(f"<td>{draft.words(1, 2) if c == 0 else draft.money()}</td>" for c in range(columns)) + "</tr>"
        for _ in range(rows)
    ]
    head = "".join(f"<th>{draft.title(1, 1)}</th>" for _ in range(columns))
    border = draft.one(("1px solid #555", "1px solid #bbb", "0"))
    stripe = draft.one(("#fff0", "#0001"))
    return _sheet(
        draft,
        f"<h2>{draft.title(2, 5)}</h2><table><tr>{head}</tr>{''.join(cells)}</table><p>{draft.sentences(1, 3)}</p>",
        f"table{{border-collapse:collapse;width:100%;font-size:{draft.between(9, 14)}px}}td,th{{border:{border}}}"
        f"tr:nth-child(even){{background:{stripe}}}",
        wide=draft.chance(0.25),
    )


def _invoice(draft: Draft) -> Page:
    rows = "".join(
        f"<tr><td>{number}<td>{draft.title(1, 4)}<td>{draft.between(1, 20)}<td>{draft.money()}<td>{draft.money()}"
        for number in range(1, draft.between(3, 14))
    )
    colour = draft.colour()
    return _sheet(
        draft,
        f"<h1 style='color:{colour}'>{draft.brand()} GmbH</h1><p>{draft.person()}<br>{draft.title(1, 2)} "
        f"{draft.between(1, 90)}<br>{draft.city()}</p><h2>{draft.title(1, 2)} {draft.between(1000, 99999)}</h2>"
        f"<p>{draft.date()}</p><table><tr style='background:{colour};color:#fff'><th>#<th>{draft.title(1, 1)}<th>x<th>"
        f"{draft.title(1, 1)}<th>{draft.title(1, 1)}</tr>{rows}</table><p style='text-align:right'><b>{draft.title(1, 1)}: "
        f"{draft.money(9000)} €</b></p><p>{draft.sentences(1, 2)}</p><hr><small>{draft.sentences(1, 2)}</small>",
        "table{width:100%;border-collapse:collapse}td{border-bottom:1px solid #ccc}",
    )


def _nearly_empty(draft: Draft) -> Page:
    lines = "".join(f"<p>{draft.words(1, 8)}</p>" for _ in range(draft.between(1, 4)))
    top = draft.between(0, 500)
    return _sheet(draft, f"<div style='margin-top:{top}px;text-align:{draft.one(('left', 'center'))}'>{lines}</div>")


def _title_page(draft: Draft) -> Page:
    return _sheet(
        draft,
        f"<div style='text-align:center;margin-top:{draft.between(60, 330)}px'><h1 style='font-size:{draft.between(30, 64)}px'>"
        f"{draft.title(2, 6)}</h1><p>{draft.words(3, 8)}</p><p>{draft.person()}</p><p>{draft.date()}</p></div>",
    )


def _minutes(draft: Draft) -> Page:
    items = "".join(f"<li>{draft.sentences(1, 2)}</li>" for _ in range(draft.between(5, 16)))
    tag = draft.one(("ul", "ol"))
    return _sheet(draft, f"<h2>{draft.title(2, 4)}</h2><p>{draft.date()} {draft.city()}</p><{tag}>{items}</{tag}>")


def _typed(draft: Draft) -> Page:
    text = "\n".join(draft.words(4, 9) for _ in range(draft.between(12, 50)))
    return _sheet(
        draft,
        f"<pre style='font-size:{draft.between(11, 17)}px'>{text}</pre>",
        f"pre{{font-family:{draft.font('mono')};white-space:pre-wrap}}",
    )


def _handwritten(draft: Draft) -> Page:
    text = "".join(f"<p>{draft.words(4, 9)}</p>" for _ in range(draft.between(4, 16)))
    line = draft.one(("#9bd", "#ccc", "transparent"))
    return _sheet(
        draft,
        f"<div style='font:{draft.between(22, 36)}px/40px {draft.font('script')};color:{draft.one(('#123a8c', '#222', '#345'))}'>{text}</div>",
        f"body{{background-image:linear-gradient({line} 1px,transparent 1px);background-size:100% 40px}}p{{margin:0}}",
    )


def _slide(draft: Draft) -> Page:
    items = "".join(f"<li>{draft.words(3, 8)}</li>" for _ in range(draft.between(2, 6)))
    return page(
        f"body{{background:{draft.one(('#fff', '#fff', draft.colour((20, 60), (90, 97))))};color:#222;padding:50px 80px;"
        f"font:{draft.between(24, 34)}px/1.6 {draft.font('sans')}}}h1{{color:{draft.colour()}}}",
        f"<h1>{draft.title(2, 5)}</h1><ul>{items}</ul>",
        1000,
        draft.one((562, 750)),
    )


def _contract(draft: Draft) -> Page:
    parts = "".join(f"<p><b>§ {n} {draft.title(1, 3)}</b><br>({n}) {draft.sentences(2, 6)}</p>" for n in range(1, 9))
    return _sheet(
        draft,
        f"<h1 style='text-align:center'>{draft.title(1, 3)}</h1><div style='font-size:12px;text-align:justify'>{parts}</div>",
    )


def _newspaper(draft: Draft) -> Page:
    stories = "".join(
        f"<div style='break-inside:avoid'><h2>{draft.title(3, 7)}</h2><p>{draft.sentences(4, 9)}</p></div>"
        for _ in range(8)
    )
    return _sheet(
        draft,
        f"<h1 style='font-size:54px;text-align:center;border-bottom:3px double'>{draft.title(1, 2)}</h1><div class=c>{stories}</div>",
        f".c{{columns:{draft.between(3, 4)};font-size:10px;text-align:justify}}h2{{font-size:17px}}",
    )


def _certificate(draft: Draft) -> Page:
    return _sheet(
        draft,
        f"<div style='border:{draft.between(3, 12)}px double {draft.colour()};height:100%;text-align:center;padding:80px 40px'>"
        f"<h1 style='font-size:46px'>{draft.title(1, 2)}</h1><p>{draft.words(4, 9)}</p><h2>{draft.person()}</h2>"
        f"<p>{draft.sentences(1, 2)}</p><br><p>{draft.city()}, {draft.date()}</p></div>",
        wide=draft.chance(0.5),
    )


def _list_of_contents(draft: Draft) -> Page:
    rows = "".join(
        f"<div style='display:flex'><span>{n // 3 + 1}.{n % 3} {draft.title(1, 5)}</span><span style='flex:1;border-bottom:"
        f"2px dotted #888;margin:4px'></span><span>{n * 3}</span></div>"
        for n in range(draft.between(10, 34))
    )
    return _sheet(draft, f"<h1>{draft.title(1, 1)}</h1>{rows}")


def _memo(draft: Draft) -> Page:
    head = "".join(f"<tr><td><b>{draft.title(1, 1)}:</b><td>{draft.person()}" for _ in range(4))
    return _sheet(
        draft,
        f"<h1>{draft.brand()}</h1><table>{head}</table><hr>"
        + "".join(f"<p>{draft.sentences(2, 6)}</p>" for _ in range(4)),
    )


def _formulas(draft: Draft) -> Page:
    """A page of a textbook, with formulas set apart."""
    parts = "".join(
        f"<p>{draft.sentences(1, 4)}</p><p style='text-align:center;font-style:italic'>{draft.one('fghuxyF')}({draft.one('xtn')}) = "
        f"{draft.one('∑∫∏√')}<sub>{draft.one('kni')}=0</sub><sup>∞</sup> {draft.one('abcαβ')}<sub>k</sub> {draft.one('+-·')} {draft.one('πλμ')}² "
        f"&nbsp; ({draft.between(1, 40)})</p>"
        for _ in range(draft.between(3, 8))
    )
    return _sheet(
        draft,
        f"<h2>{draft.between(1, 9)}.{draft.between(1, 9)} &nbsp; {draft.title(2, 4)}</h2>{parts}",
        "p{text-align:justify}",
    )


def _manual(draft: Draft) -> Page:
    """Text between listings of a program, in boxes or not."""
    parts = []
    for _ in range(draft.between(2, 5)):
        code = "\n".join("    " * draft.between(0, 2) + draft.words(1, 5).lower() for _ in range(draft.between(2, 8)))
        parts.append(f"<h3>{draft.title(1, 4)}</h3><p>{draft.sentences(1, 4)}</p><pre>{code}</pre>")
    box = draft.one(("", "background:#f2f2f2;padding:8px", "border:1px solid #999;padding:8px"))
    return _sheet(draft, "".join(parts), f"pre{{font-family:{draft.font('mono')};{box}}}")


def _excerpt(draft: Draft) -> Page:
    """Some lines of a page, near and large."""
    text = "".join(f"<p>{draft.sentences(2, 6)}</p>" for _ in range(4))
    return page(
        f"body{{background:{draft.paper()};color:{draft.ink()};padding:{draft.between(0, 30)}px;font:{draft.between(18, 34)}px/1.45 "
        f"{draft.font('serif', 'sans', 'mono')};text-align:{draft.one(('left', 'justify'))}}}",
        text,
        draft.between(500, 900),
        draft.between(300, 700),
    )


TEMPLATES: tuple[Template, ...] = (
    _letter, _report, _article, _table, _invoice, _nearly_empty, _title_page, _minutes, _typed, _handwritten, _slide,
    _formulas, _manual, _excerpt,
    _contract, _newspaper, _certificate, _list_of_contents, _memo,
)  # fmt: skip
