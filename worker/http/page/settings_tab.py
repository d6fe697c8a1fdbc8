"""The Settings tab: what is in force, from where and since when; what a reload would change; what was changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from worker.http.page import document, formatting
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.settings_view import MAXIMUM_INSTANCES, MAXIMUM_ROWS, SettingsOutcome, SettingsView
from worker.http.sessions import CSRF_FIELD, SignedIn
from worker.operations.clock import written
from worker.settings.in_force import SettingInForce
from worker.settings.load import BY_DEFAULT
from worker.settings.schema import SettingKey, dotted, find_field

PATH = "settings"
EDITOR_PATH = "settings-edit"
_MAXIMUM_VALUE = 300


def page(view: SettingsView) -> str:
    """The whole tab."""
    return document.tab(
        "Settings",
        PATH,
        message(view.message),
        _summary(view),
        _found(view),
        _history(view),
        csrf_token=view.csrf_token,
        signed_in=view.signed_in,
        note="Drawn when it was loaded. Times are those of the machine it runs on.",
    )


def hidden(why: str, *, signed_in: SignedIn | None, csrf_token: str | None) -> str:
    """The tab for a client that may not see settings."""
    return document.tab(
        "Settings",
        PATH,
        h("section", h("h1", "Settings", class_="title"), h("p", why, class_="quiet")),
        csrf_token=csrf_token,
        signed_in=signed_in,
    )


def message(found: SettingsOutcome | None) -> Html | None:
    """What became of something that was asked for."""
    if found is None:
        return None
    return h(
        "section",
        h("h2", found.title),
        h("ul", [h("li", line) for line in found.lines]) if found.lines else None,
        role="status" if found.done else "alert",
        class_=f"outcome {'good' if found.done else 'bad'}",
    )


def prose(text: str) -> Html:
    """A description, with what is between back ticks as code."""
    parts = text.split("`")
    return join([h("code", part) if number % 2 else part for number, part in enumerate(parts)])


def address(path: str, **query: str | None) -> str:
    """A relative address with a query."""
    found = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{found}" if found else path


# ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────────


def _summary(view: SettingsView) -> Html:
    is_set = sum(each.origin != BY_DEFAULT for each in view.rows)
    where = ", for it alone or in the defaults" if view.instance in view.instances else ""
    return h(
        "section",
        h("h1", f"Settings of {view.instance}" if view.instance in view.instances else "Settings", class_="title"),
        h(
            "p",
            f"{formatting.number(is_set)} of {formatting.quantity(len(view.rows), 'setting')} are set{where}. ",
            _what_a_reload_would_change(view),
            class_="why",
        ),
        _left_out(view),
        _instances(view),
        _editor_links(view),
        class_="settings-summary",
    )


def _what_a_reload_would_change(view: SettingsView) -> Child:
    if view.preview.refused is not None:
        return None
    if not view.changes:
        return "A reload would change nothing."
    at_reload = sum(each.changes == "reload" for each in view.changes)
    at_restart = len(view.changes) - at_reload
    parts = [f"a reload would change {formatting.quantity(at_reload, 'setting')}"] if at_reload else []
    parts += [f"a restart would change {formatting.quantity(at_restart, 'setting')}"] if at_restart else []
    text = " and ".join(parts)
    return h("a", f"{text[0].upper()}{text[1:]}.", href=address(PATH, show="changes", instance=view.instance))


def _left_out(view: SettingsView) -> list[Html]:
    """What is wrong with the sources as they are now."""
    found = []
    if view.preview.refused is not None:
        first, *lines = view.preview.refused.splitlines()
        found.append(("A reload would be refused", lines or [first]))
    overlay = view.preview.loaded.overlay if view.preview.loaded is not None else None
    if overlay is not None and overlay.refused:
        found.append(("Left out of the overlay", [str(each) for each in overlay.refused]))
    return [
        h("div", h("b", title), h("ul", [h("li", prose(line.strip())) for line in lines]), class_="alert", role="alert")
        for title, lines in found
    ]


def _instances(view: SettingsView) -> Html:
    """A field to choose an instance by, and names that match what is in it: never all of a thousand."""
    found = view.instances_found()
    chosen = view.instance in view.instances
    links: list[Child] = [
        h(
            "a",
            name,
            href=address(PATH, instance=name),
            class_="chip link",
            aria_current="true" if name == view.instance else None,
        )
        for name in ([] if chosen else found[:MAXIMUM_INSTANCES])
    ]
    rest = len(found) - MAXIMUM_INSTANCES
    return h(
        "div",
        h(
            "form",
            h("label", "Instance", for_="instance"),
            h(
                "input",
                id="instance",
                name="instance",
                value=view.instance or "",
                autocomplete="off",
                spellcheck="false",
            ),
            h("button", "Show", type="submit"),
            h("a", "The service and the defaults", href=PATH) if view.instance else None,
            action=PATH,
            method="get",
            class_="finder",
        ),
        h("p", links, class_="chips") if links else None,
        h("p", f"and {formatting.number(rest)} more: write a part of the name", class_="note")
        if rest > 0 and not chosen
        else None,
        h("p", f"No instance is named {view.instance}; the defaults are shown.", class_="note")
        if view.instance and not found
        else None,
    )


def _editor_links(view: SettingsView) -> Html:
    if view.why_no_editor is not None:
        return h("p", prose(view.why_no_editor), class_="note")
    if view.instance is not None:
        links = [("Edit this instance", address(EDITOR_PATH, instance=view.instance))]
    else:
        links = [("Edit the service", EDITOR_PATH), ("Edit the defaults", address(EDITOR_PATH, of="defaults"))]
    changes = any(each.changes == "reload" for each in view.changes)
    return h(
        "div",
        [h("a", text, href=where, class_="button") for text, where in links],
        button(view.csrf_token, "settings-reload", "Reload now") if changes else None,
        class_="actions",
    )


def button(csrf_token: str | None, action: str, text: str, **fields: str) -> Html:
    """A form that is one button."""
    return h(
        "form",
        h("input", type="hidden", name=CSRF_FIELD, value=csrf_token or ""),
        [h("input", type="hidden", name=name, value=value) for name, value in fields.items()],
        h("button", text, type="submit"),
        action=action,
        method="post",
    )


# ── the settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _found(view: SettingsView) -> Html:
    rows = view.found()
    return h(
        "section",
        _search(view),
        _table(rows) if rows else None,
        h("p", "Nothing was found. ", h("a", "Show all", href=address(PATH, show="all", instance=view.instance)))
        if not rows
        else None,
        h("p", f"The first {MAXIMUM_ROWS}; search for the others.", class_="more")
        if len(rows) == MAXIMUM_ROWS
        else None,
        id="settings",
        aria_label="Settings",
    )


def _search(view: SettingsView) -> Html:
    kinds = (("set", "What is set"), ("all", "All"), ("changes", "What would change"))
    return h(
        "form",
        h("label", "Search", for_="q", class_="unseen"),
        h(
            "input",
            type="search",
            id="q",
            name="q",
            value=view.query,
            placeholder="Search names, texts, values, sources",
        ),
        h("label", "Show", for_="show", class_="unseen"),
        h(
            "select",
            [h("option", text, value=kind, selected=kind == view.shown) for kind, text in kinds],
            id="show",
            name="show",
        ),
        h("input", type="hidden", name="instance", value=view.instance) if view.instance else None,
        h("button", "Search", type="submit"),
        action=PATH,
        method="get",
        role="search",
        class_="finder wide",
    )


def _table(rows: Sequence[SettingInForce]) -> Html:
    """One table, with a body for each table of the settings file."""
    headings = ("Setting", "Value", "From", "Since")
    return h(
        "table",
        h("thead", h("tr", [h("th", heading, scope="col") for heading in headings])),
        [
            h(
                "tbody",
                h("tr", h("th", _heading(above), colspan=len(headings), scope="rowgroup"), class_="group"),
                [_row(each) for each in inside],
            )
            for above, inside in groupby(rows, key=lambda each: each.key[:-1])
        ],
        class_="settings",
        aria_label="Settings",
    )


def _heading(above: SettingKey) -> Child:
    return h("code", f"[{dotted(above)}]") if above else "The service"


def _row(each: SettingInForce) -> Html:
    found = find_field(each.key)
    description = (found.description or "") if found is not None else ""
    waiting = None
    if each.changes is not None:
        waiting = h(
            "p",
            f"At the next {each.changes}: ",
            h("b", _value(each.next_value, each.secret)),
            h("small", each.next_origin),
            class_="waiting",
        )
    return h(
        "tr",
        h("th", h("code", each.key[-1]), h("small", prose(description)), scope="row"),
        h("td", h("span", _value(each.value, each.secret), waiting), data_head="Value"),
        h("td", h("span", each.origin), data_head="From"),
        h("td", h("time", written(each.since)), data_head="Since"),
        class_="is-default" if each.origin == BY_DEFAULT else None,
    )


def _value(value: Any, secret: bool) -> Child:
    if value is None or value in ({}, []):
        return h("span", "unset" if value is None else "none", class_="faint")
    if secret:
        if isinstance(value, str):
            return join("set ", h("small", f"fingerprint {value}", class_="inline"))
        return join("set ", h("small", json.dumps(value, ensure_ascii=False), class_="inline"))
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else _json(value)
    return h("code", text if len(text) <= _MAXIMUM_VALUE else f"{text[:_MAXIMUM_VALUE]}…")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ── what was changed ─────────────────────────────────────────────────────────────────────────────────────────────────


def _history(view: SettingsView) -> Html | None:
    """The versions of the overlay; a client that may not change them sees them too."""
    if not view.versions:
        return None
    undo = None
    if view.why_no_editor is None and view.undo_to is not None:
        undo = button(view.csrf_token, "settings-undo", "Undo the last change", seen=view.fingerprint)
    return h(
        "section",
        h("h2", "Changes", id="changes-title"),
        h("ol", [_version(view, each) for each in reversed(view.versions)], class_="changes"),
        h("div", undo, class_="actions") if undo else None,
        id="changes",
        aria_labelledby="changes-title",
    )


def _version(view: SettingsView, each: Any) -> Html:
    now = each == view.in_use
    again = None
    if not now and view.why_no_editor is None:
        again = button(view.csrf_token, "settings-undo", "Go back to it", seen=view.fingerprint, to=str(each.number))
    return h(
        "li",
        h("span", f"{each.number}", class_="number"),
        h(
            "div",
            h("p", [h("span", line) for line in each.what], class_="what"),
            h("p", h("time", each.at), " · ", each.by, class_="note"),
        ),
        h("span", "in use", class_="chip") if now else again,
        class_="is-now" if now else None,
    )
