"""Screenshots: windows of programs, websites, telephones, terminals and editors, light and dark."""

from __future__ import annotations

from dataclasses import dataclass

from kind_head.draft import Draft, Page, Template, page

_WIDE = ((1280, 800), (1280, 720), (1100, 800), (960, 720))


@dataclass(frozen=True, slots=True)
class _Theme:
    ground: str
    panel: str
    text: str
    line: str
    accent: str


def _theme(draft: Draft) -> _Theme:
    accent = draft.colour((50, 95), (35, 60))
    if draft.chance(0.4):
        hue, dark = draft.between(190, 280), draft.between(7, 18)
        return _Theme(f"hsl({hue},15%,{dark}%)", f"hsl({hue},14%,{dark + 6}%)", "#d8d8dc", "#ffffff22", accent)
    return _Theme(
        draft.one(("#fff", "#fafafa", "#f3f4f6")),
        draft.one(("#f0f0f0", "#fff", "#e9edf2", draft.colour((10, 40), (88, 96)))),
        "#222",
        "#0002",
        accent,
    )


def _screen(draft: Draft, theme: _Theme, body: str, style: str = "", size: tuple[int, int] | None = None) -> Page:
    width, height = size or draft.one(_WIDE)
    return page(
        f"body{{background:{theme.ground};color:{theme.text};font:{draft.between(12, 16)}px/1.5 {draft.font('sans')};display:flex;"
        f"flex-direction:column}}.p{{background:{theme.panel};border:1px solid {theme.line}}}.a{{background:{theme.accent};color:#fff;"
        f"padding:5px 14px;border-radius:{draft.between(0, 14)}px;display:inline-block}}.f{{display:flex;flex:1;min-height:0}}"
        f".r{{display:flex;gap:12px;align-items:center;padding:8px 12px;border-bottom:1px solid {theme.line}}}.s{{opacity:.6;font-size:85%}}"
        f".g{{display:grid;gap:14px;padding:14px}}{style}",
        body,
        width,
        height,
    )


def _icon(draft: Draft, size: int) -> str:
    return (
        f"<span style='width:{size}px;height:{size}px;flex:none;border-radius:{draft.one((3, 6, 50))}%;background:{draft.colour()};"
        f"display:inline-block;color:#fff;text-align:center'>{draft.one('●■▲✚☰⚙✉★⌂☎✎♫')}</span>"
    )


def _picture(draft: Draft, height: int) -> str:
    return (
        f"<div style='height:{height}px;background:linear-gradient({draft.between(0, 360)}deg,{draft.colour()},{draft.colour()},"
        f"{draft.colour((10, 60), (60, 90))})'></div>"
    )


def _bar(draft: Draft, theme: _Theme) -> str:
    """The title bar of a window, or the address bar of a browser."""
    if draft.chance(0.5):
        return (
            f"<div class='p r'>● ● ●<span style='flex:1;border:1px solid {theme.line};border-radius:16px;padding:2px 14px'>"
            f"https://www.{draft.brand().lower()}.example/{draft.words(1, 1)}</span>☰</div>"
        )
    return f"<div class='p r' style='justify-content:space-between'><b>{draft.title(1, 3)}</b><span>— ☐ ✕</span></div>"


def _mail(draft: Draft) -> Page:
    theme = _theme(draft)
    folders = "".join(
        f"<div style='padding:6px 14px'>{_icon(draft, 16)} {draft.title(1, 2)}</div>"
        for _ in range(draft.between(5, 14))
    )
    rows = "".join(
        f"<div class=r>{_icon(draft, 30)}<div style='flex:1'><b>{draft.person()}</b><br>{draft.title(2, 7)} <span class=s>{draft.words(3, 8)}</span>"
        f"</div><span class=s>{draft.between(1, 12)}:{draft.between(10, 59)}</span></div>"
        for _ in range(18)
    )
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class=f><div class=p style='width:{draft.between(150, 260)}px'>{folders}</div><div style='flex:1'>{rows}</div></div>",
    )


def _dashboard(draft: Draft) -> Page:
    theme = _theme(draft)
    cards = "".join(
        f"<div class=p style='padding:14px'><span class=s>{draft.title(1, 2)}</span><h2 style='margin:4px 0'>{draft.between(1, 9999)}</h2>"
        f"<div style='display:flex;align-items:end;gap:3px;height:50px'>"
        + "".join(
            f"<i style='flex:1;height:{draft.between(5, 100)}%;background:{theme.accent}'></i>"
            for _ in range(draft.between(6, 16))
        )
        + "</div></div>"
        for _ in range(draft.between(3, 9))
    )
    rows = "".join(
        f"<div class=r><span style='flex:1'>{draft.title(1, 4)}</span><span>{draft.money()}</span><span class=a>{draft.title(1, 1)}</span></div>"
        for _ in range(9)
    )
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class=g style='grid-template-columns:repeat({draft.between(2, 4)},1fr)'>{cards}</div><div class=p>{rows}</div>",
    )


def _website(draft: Draft) -> Page:
    theme = _theme(draft)
    columns = draft.between(2, 4)
    cards = "".join(
        f"<div class=p>{_picture(draft, draft.between(70, 160))}<div style='padding:10px'><b>{draft.title(2, 5)}</b><br><span class=s>"
        f"{draft.words(4, 12)}</span><br><span class=a>{draft.title(1, 2)}</span></div></div>"
        for _ in range(columns * 2)
    )
    links = " &nbsp; ".join(draft.title(1, 1) for _ in range(draft.between(3, 7)))
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class=r><b style='font-size:24px;color:{theme.accent}'>{draft.brand()}</b><span style='flex:1;text-align:right'>"
        f"{links}</span></div><div style='padding:{draft.between(16, 60)}px;background:{theme.accent};color:#fff'><h1>{draft.title(2, 6)}</h1>"
        f"{draft.words(5, 12)}</div><div class=g style='grid-template-columns:repeat({columns},1fr)'>{cards}</div>",
    )


def _dialog(draft: Draft) -> Page:
    theme = _theme(draft)
    rows = "".join(
        f"<div style='margin:10px 0'>{draft.title(1, 3)}<br><span style='display:block;border:1px solid {theme.line};padding:5px;background:{theme.ground}'>"
        f"{draft.words(1, 3)}</span></div>"
        for _ in range(draft.between(2, 6))
    )
    ground = draft.one(
        (theme.ground, draft.colour((20, 60), (20, 70)), f"linear-gradient({draft.colour()},{draft.colour()})")
    )
    return _screen(
        draft,
        theme,
        f"<div class=f style='background:{ground};align-items:center;justify-content:center'><div class=p style='width:{draft.between(400, 700)}px;"
        f"box-shadow:0 8px 40px #0008'>{_bar(draft, theme)}<div style='padding:20px'><h3>{draft.title(2, 6)}</h3>{rows}<div style='text-align:right'>"
        f"{draft.title(1, 1)} &nbsp; <span class=a>{draft.title(1, 1)}</span></div></div></div></div>",
    )


def _terminal(draft: Draft) -> Page:
    ground, text = draft.one(
        (
            ("#000", "#ccc"),
            ("#1e1e2e", "#cdd6f4"),
            ("#300a24", "#eee"),
            ("#002b36", "#93a1a1"),
            ("#000", "#3f3"),
            ("#fff", "#222"),
        )
    )
    theme = _Theme(ground, "#333", text, "#555", "#4ae")
    lines = "".join(
        f"<div><span style='color:{draft.colour((60, 90), (50, 65))}'>{draft.one(('$', 'user@host:~$', '', '', '[INFO]', '-rw-r--r--'))}</span> "
        f"{draft.words(1, 9).lower()}{draft.one(('', '.txt', '/', ' --help'))} {draft.one(('', str(draft.between(1, 99999))))}</div>"
        for _ in range(60)
    )
    bar = (
        "<div style='background:#444;color:#ddd;padding:5px 12px;text-align:center'>~</div>"
        if draft.chance(0.6)
        else ""
    )
    return _screen(
        draft, theme, f"{bar}<div style='padding:8px;white-space:pre;font-family:{draft.font('mono')}'>{lines}</div>"
    )


def _editor(draft: Draft) -> Page:
    theme = _theme(draft)
    colours = [draft.colour((50, 90), (45, 65)) for _ in range(5)]
    lines = "".join(
        f"<div><span class=s>{n:>4} </span>{'    ' * draft.between(0, 3)}"
        + " ".join(
            f"<span style='color:{draft.one(colours)}'>{draft.one(('def', 'return', 'if', 'x =', 'self.', '()', '{', 'for', draft.words(1, 1).lower(), 'import', '&quot;' + draft.words(1, 1) + '&quot;'))}</span>"
            for _ in range(draft.between(0, 8))
        )
        + "</div>"
        for n in range(1, 50)
    )
    files = "".join(f"<div style='padding:2px 12px'>▸ {draft.words(1, 1).lower()}.py</div>" for _ in range(20))
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class=f><div class=p style='width:200px'>{files}</div><div style='white-space:pre;font-family:{draft.font('mono')}'>{lines}</div></div>",
    )


def _telephone(draft: Draft) -> Page:
    theme = _theme(draft)
    if draft.chance(0.5):
        body = "".join(
            f"<div style='margin:8px 12px;padding:9px 14px;border-radius:16px;max-width:75%;{draft.one((f'background:{theme.panel}', f'margin-left:25%;background:{theme.accent};color:#fff'))}'>"
            f"{draft.words(1, 14)}</div>"
            for _ in range(draft.between(4, 14))
        )
    else:
        body = "".join(
            f"<div class=r>{_icon(draft, 36)}<div style='flex:1'><b>{draft.title(1, 3)}</b><br><span class=s>{draft.words(2, 5)}</span></div>›</div>"
            for _ in range(14)
        )
    return _screen(
        draft,
        theme,
        f"<div class=r style='justify-content:space-between;border:0'><b>{draft.between(1, 23)}:{draft.between(10, 59)}</b><span>▮▮▯ ◔</span></div>"
        f"<div class='p r'><b style='font-size:20px'>{draft.title(1, 2)}</b></div><div style='flex:1;overflow:hidden'>{body}</div><div class='p r' "
        f"style='justify-content:space-around'>{''.join(_icon(draft, 26) for _ in range(4))}</div>",
        size=draft.one(((390, 844), (412, 732), (360, 740))),
    )


def _spreadsheet(draft: Draft) -> Page:
    theme = _theme(draft)
    columns = draft.between(6, 12)
    rows = "".join(
        f"<tr><td class=p>{n}"
        + "".join(f"<td>{draft.one((draft.words(1, 1), draft.money(), draft.money(), ''))}" for _ in range(columns))
        for n in range(1, 32)
    )
    tools = "".join(f"{_icon(draft, 20)} " for _ in range(draft.between(8, 20)))
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class='p r'>{tools}</div><table style='border-collapse:collapse;width:100%'>{rows}</table>",
        f"td{{border:1px solid {theme.line};padding:1px 6px}}",
    )


def _settings(draft: Draft) -> Page:
    theme = _theme(draft)
    groups = "".join(
        f"<h3 style='margin:14px 0 4px'>{draft.title(1, 2)}</h3><div class=p style='border-radius:10px'>"
        + "".join(
            f"<div class=r><span style='flex:1'>{draft.title(1, 5)}<br><span class=s>{draft.words(3, 7)}</span></span><span class=a style='border-radius:20px'>{draft.one(('&nbsp;&nbsp;●', '●&nbsp;&nbsp;'))}</span></div>"
            for _ in range(draft.between(2, 4))
        )
        + "</div>"
        for _ in range(4)
    )
    side = "".join(f"<div class=r style='border:0'>{_icon(draft, 22)}{draft.title(1, 2)}</div>" for _ in range(12))
    return _screen(
        draft,
        theme,
        f"<div class=f><div class=p style='width:260px;padding-top:30px'>{side}</div><div style='flex:1;padding:10px 60px'>{groups}</div></div>",
    )


def _files(draft: Draft) -> Page:
    theme = _theme(draft)
    tiles = "".join(
        f"<div style='text-align:center'>{_icon(draft, 64)}<br>{draft.words(1, 2)}</div>" for _ in range(40)
    )
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class='p r'>‹ › ⌂ {draft.words(1, 1)} / {draft.words(1, 1)}</div><div class=g style='grid-template-columns:repeat({draft.between(5, 8)},1fr)'>{tiles}</div><div class='p r'>{draft.words(2, 4)}</div>",
    )


def _wiki(draft: Draft) -> Page:
    theme = _theme(draft)
    text = "".join(
        f"<h2 style='border-bottom:1px solid {theme.line}'>{draft.title(1, 3)}</h2><p>{draft.sentences(3, 6)}</p>"
        for _ in range(4)
    )
    box = f"<div class=p style='float:right;width:240px;margin:12px;padding:8px'>{_picture(draft, 150)}{draft.words(4, 10)}</div>"
    links = "".join(f"<div style='color:{theme.accent};padding:3px'>{draft.title(1, 2)}</div>" for _ in range(22))
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class=f><div style='width:170px;padding:20px'>{links}</div><div style='flex:1;padding:10px 30px'><h1>{draft.title(1, 3)}</h1>{box}{text}</div></div>",
    )


def _home_screen(draft: Draft) -> Page:
    theme = _theme(draft)
    tiles = "".join(
        f"<div style='text-align:center;color:#fff;font-size:11px'>{_icon(draft, 58)}<br>{draft.title(1, 1)}</div>"
        for _ in range(24)
    )
    return _screen(
        draft,
        theme,
        f"<div class=f style='background:linear-gradient({draft.colour()},{draft.colour()})'><div class=g style='grid-template-columns:repeat(4,1fr);width:100%;padding-top:60px'>{tiles}</div></div>",
        size=(390, 800),
    )


def _player(draft: Draft) -> Page:
    theme = _theme(draft)
    side = "".join(
        f"<div class=r style='border:0'><div style='width:120px'>{_picture(draft, 66)}</div><div>{draft.title(2, 5)}<br><span class=s>{draft.brand()}</span></div></div>"
        for _ in range(8)
    )
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class=f><div style='flex:1;padding:16px'>{_picture(draft, 360)}<div style='height:4px;background:{theme.accent};width:60%'></div>▶ ❚❚ ♫<h2>{draft.title(3, 7)}</h2>{draft.sentences(2, 3)}</div><div style='width:320px'>{side}</div></div>",
    )


def _widget(draft: Draft, theme: _Theme) -> str:
    """A row of a program's window: a field, a slider, a list, a box to tick, a group of them."""
    box = f"border:1px solid {theme.line};background:{theme.ground};padding:3px 8px"
    name = draft.title(1, 3)
    kind = draft.between(0, 6)
    if kind == 0:
        return f"<div style='display:flex;gap:8px'><span style='flex:1'>{name}:</span><span style='{box};width:40%'>{draft.one((draft.money(), draft.words(1, 2)))} ▾</span></div>"
    if kind == 1:
        return f"<div style='{box};display:flex'><span style='position:relative;flex:1'>{name}</span><b>{draft.money(100)}</b></div><div style='height:5px;width:{draft.between(5, 95)}%;background:{theme.accent}'></div>"
    if kind == 2:
        return f"<div>{draft.one(('☑', '☐', '◉', '○'))} {name}</div>"
    if kind == 3:
        rows = "".join(
            f"<div style='padding:2px 6px;{f'background:{theme.accent};color:#fff' if draft.chance(0.15) else ''}'>{draft.title(1, 3)}</div>"
            for _ in range(draft.between(3, 8))
        )
        return f"<div style='{box};padding:0'>{rows}</div>"
    if kind == 4:
        return f"<fieldset style='border:1px solid {theme.line}'><legend>{name}</legend>{draft.one(('☑', '☐'))} {draft.title(1, 3)}<br>{draft.one(('☑', '☐'))} {draft.title(1, 3)}</fieldset>"
    if kind == 5:
        return f"<div style='display:flex;gap:4px'>{''.join(_icon(draft, draft.one((18, 24, 32))) for _ in range(draft.between(3, 9)))}</div>"
    return f"<div><b>{name}</b></div><div class=s>{draft.words(3, 9)}</div>"


def _grey(draft: Draft) -> _Theme:
    """The look of desktop programs: greys, light or dark."""
    if draft.chance(0.35):
        grey = draft.between(15, 30)
        return _Theme(f"hsl(0,0%,{grey - 6}%)", f"hsl(0,0%,{grey}%)", "#ddd", "#666", draft.colour((30, 80), (35, 55)))
    grey = draft.between(78, 96)
    return _Theme(
        "#fff",
        f"hsl({draft.between(20, 60)},{draft.between(0, 12)}%,{grey}%)",
        "#111",
        "#999",
        draft.colour((30, 80), (35, 60)),
    )


def _window(draft: Draft) -> Page:
    """A picture of nothing but one small window, as manuals have them."""
    theme = _grey(draft)
    tabs = "".join(
        f"<span style='border:1px solid {theme.line};border-bottom:0;padding:3px 10px'>{draft.title(1, 1)}</span>"
        for _ in range(draft.between(0, 4))
    )
    rows = "".join(f"<div style='margin:7px 0'>{_widget(draft, theme)}</div>" for _ in range(draft.between(3, 14)))
    buttons = "".join(
        f"<span style='border:1px solid {theme.line};padding:4px 14px;margin-left:8px'>{draft.title(1, 1)}</span>"
        for _ in range(draft.between(1, 4))
    )
    columns = draft.one((1, 1, 1, 2))
    title = (
        f"<div style='padding:6px;text-align:center;border-bottom:1px solid {theme.line}'>✕ &nbsp; <b>{draft.title(1, 3)}</b></div>"
        if draft.chance(0.8)
        else ""
    )
    return _screen(
        draft,
        theme,
        f"<div style='background:{theme.panel};height:100%'>{title}<div style='padding:10px 14px'>{tabs}<div style='columns:{columns}'>{rows}</div><div style='text-align:right'>{buttons}</div></div></div>",
        size=(draft.between(260, 640), draft.between(220, 600)),
    )


def _menu(draft: Draft) -> Page:
    theme = _grey(draft)
    chosen = draft.between(0, 12)
    rows = "".join(
        f"<div style='display:flex;padding:4px 12px;{f'background:{theme.accent};color:#fff' if n == chosen else ''}'><span style='flex:1'>"
        f"{draft.one(('', '☑ ', '◉ '))}{draft.title(1, 4)}{draft.one(('', '…'))}</span><span>{draft.one(('', '▸', 'Ctrl+' + draft.one('ABCSXZ')))}</span></div>"
        + ("<hr style='margin:2px'>" if draft.chance(0.2) else "")
        for n in range(draft.between(5, 18))
    )
    return _screen(
        draft,
        theme,
        f"<div style='background:{theme.panel};height:100%;padding:4px'>{rows}</div>",
        size=(draft.between(220, 420), draft.between(200, 560)),
    )


def _workbench(draft: Draft) -> Page:
    """A program for pictures or plans: tools at the left, panels at the right, a canvas in the middle."""
    theme = _grey(draft)
    tools = "".join(_icon(draft, 26) + (" " if n % 2 else "<br>") for n in range(24))
    panels = "".join(f"<div style='margin:6px'>{_widget(draft, theme)}</div>" for _ in range(16))
    canvas = _picture(draft, 420) if draft.chance(0.5) else "<div style='background:#fff;height:420px'></div>"
    menus = " &nbsp; ".join(draft.title(1, 1) for _ in range(draft.between(5, 10)))
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class=p>{menus}</div><div class=f><div class=p style='width:70px'>{tools}</div><div style='flex:1;padding:40px;background:#777'>{canvas}</div><div class=p style='width:{draft.between(200, 320)}px'>{panels}</div></div>",
    )


def _reader(draft: Draft) -> Page:
    """Text in a browser, with what browsers and websites put around it."""
    theme = _theme(draft)
    width = draft.between(480, 760)
    text = "".join(f"<p>{draft.sentences(2, 5)}</p>" for _ in range(6))
    links = " ".join(
        f"<span style='color:{theme.accent};text-decoration:underline'>{draft.words(1, 2)}</span>"
        for _ in range(draft.between(3, 8))
    )
    return _screen(
        draft,
        theme,
        f"{_bar(draft, theme)}<div class='p r'><b>{draft.brand()}</b> {links} <span class=a>{draft.title(1, 1)}</span></div><div style='width:{width}px;margin:20px auto;font-size:{draft.between(14, 19)}px'><h1>{draft.title(3, 7)}</h1><span class=s>{draft.person()} · {draft.date()}</span>{_picture(draft, draft.between(0, 200))}{text}</div>",
    )


def _login(draft: Draft) -> Page:
    theme = _theme(draft)
    fields = "".join(
        f"<div style='border:1px solid {theme.line};padding:10px;margin:10px 0;border-radius:6px' class=s>{draft.title(1, 2)}</div>"
        for _ in range(draft.between(2, 4))
    )
    return _screen(
        draft,
        theme,
        f"<div style='margin:auto;width:340px;text-align:center'>{_icon(draft, 60)}<h2>{draft.title(1, 3)}</h2>{fields}<div class=a style='display:block'>{draft.title(1, 2)}</div><p class=s>{draft.words(3, 6)}?</p></div>",
    )


TEMPLATES: tuple[Template, ...] = (
    _mail,
    _dashboard,
    _website,
    _dialog,
    _terminal,
    _editor,
    _telephone,
    _spreadsheet,
    _home_screen,
    _window,
    _window,
    _menu,
    _workbench,
    _reader,
    _login,
    _settings,
    _files,
    _wiki,
    _player,
)
