"""The editor's form: fields of the service, the defaults or one instance, each with where its value is from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from worker.http.page import document
from worker.http.page.markup import Html, h
from worker.http.page.settings_tab import EDITOR_PATH, PATH, address, message, prose
from worker.http.page.settings_view import EditorView
from worker.http.sessions import CSRF_FIELD
from worker.http.settings_names import INHERIT
from worker.settings.load import BY_DEFAULT
from worker.settings.overlay.form import FormField
from worker.settings.schema import allowed, is_map, unit

_SHORTEST_AREA, _LONGEST_AREA = 2, 12


def page(view: EditorView) -> str:
    """The whole page; without its form for a client that may not change settings."""
    return document.tab(
        view.title,
        PATH,
        message(view.message),
        h(
            "section",
            h("p", h("a", "Settings", href=_back(view)), class_="crumb"),
            h("h1", view.title, class_="title"),
            h("p", prose(view.why_no_editor), class_="quiet") if view.why_no_editor else _introduction(view),
        ),
        _form(view) if view.why_no_editor is None else None,
        csrf_token=view.csrf_token,
        signed_in=view.signed_in,
        note="What is saved is checked first, and put in force at once.",
    )


def _introduction(view: EditorView) -> Html:
    new = "No table is named so yet: the first value that is saved makes one. " if view.is_new else ""
    return h(
        "p",
        new,
        "What is set by the environment or a secret of the deployment takes precedence, and is changed there.",
        class_="why",
    )


def _back(view: EditorView) -> str:
    return address(PATH, instance=view.scope[1] if len(view.scope) > 1 else None)


def _form(view: EditorView) -> Html:
    return h(
        "form",
        h("input", type="hidden", name=CSRF_FIELD, value=view.csrf_token or ""),
        h("input", type="hidden", name="seen", value=view.seen),
        [
            h("fieldset", h("legend", heading), [_row(view, each) for each in fields])
            for heading, fields in view.groups.items()
        ],
        h(
            "div",
            h("button", "Save", type="submit", class_="primary"),
            h("a", "Cancel", href=_back(view)),
            class_="actions",
        ),
        action=scope_address(view.scope),
        method="post",
        class_="editor",
        autocomplete="off",
    )


def scope_address(scope: Sequence[str]) -> str:
    """Where the form of a scope is."""
    if len(scope) > 1:
        return address(EDITOR_PATH, instance=scope[1])
    return address(EDITOR_PATH, of=scope[0] if scope else None)


def _row(view: EditorView, each: FormField) -> Html:
    name = each.name
    why_not = each.pinned and f"Set by {each.pinned}, which takes precedence: change it there."
    if each.kind == "secret" and why_not is None:
        why_not = view.why_no_secrets
    hint = f"{name}-hint"
    wrong = _what_is_wrong(view, each)
    own = ".".join(each.key[len(view.scope) :])
    return h(
        "div",
        h("label", h("b", _spoken(own)), h("code", own), for_=name),
        h(
            "div",
            _input(view, each, disabled=why_not is not None, hint=hint),
            h(
                "p",
                prose(each.field.description or ""),
                f" {_how_to_write(each)}" if why_not is None else None,
                class_="note",
                id=hint,
            ),
            h("p", wrong, class_="error") if wrong else None,
            h("p", why_not, class_="note pinned") if why_not else _provenance(view, each),
        ),
        class_="field is-wrong" if wrong else "field",
    )


def _what_is_wrong(view: EditorView, each: FormField) -> str | None:
    """Of what was sent and refused, the line about this field."""
    for line in view.message.lines if view.message is not None else ():
        if line.startswith((f"{each.name} ", f"{each.name}:")):
            text = line.partition(": ")[2]
            return f"{text[:1].upper()}{text[1:]}."
    return None


def _spoken(name: str) -> str:
    """The key as words: `maximum_number_of_tags_per_asset` reads `Maximum number of tags per asset`."""
    words = name.rpartition(".")[2].replace("_", " ").replace("api ", "API ")
    return words[0].upper() + words[1:]


def _how_to_write(each: FormField) -> str:
    if each.kind == "lines":
        return "A line for each, name = value." if is_map(each.field) else "A line for each."
    if each.kind in ("number", "text"):
        of = unit(each.key[-1], each.field)
        text = allowed(each.field)
        return f"{text[0].upper()}{text[1:]}{f', in {of}' if of else ''}."
    return ""


def _provenance(view: EditorView, each: FormField) -> Html:
    if each.kind == "secret":
        state = f"Set, from {each.origin}." if each.is_set else "Not set."
    else:
        state = "The default." if each.origin == BY_DEFAULT else f"From {each.origin}."
    box = None
    if each.in_overlay:
        name = INHERIT + each.name
        text = "Remove it" if each.kind == "secret" else "Remove what is set here, so that what lies below holds"
        box = h(
            "label",
            h("input", type="checkbox", name=name, value="on", checked=name in view.values),
            text,
            class_="inherit",
        )
    return h("div", h("p", state, class_="note"), box, class_="provenance")


def _input(view: EditorView, each: FormField, *, disabled: bool, hint: str) -> Html:
    name = each.name
    text = view.values.get(name, each.text)
    if each.kind in ("switch", "choice"):
        words = {"true": "on", "false": "off"} if each.kind == "switch" else {}
        options = [
            h("option", words.get(choice, choice), value=choice, selected=choice == text) for choice in each.choices
        ]
        return h("select", options, id=name, name=name, disabled=disabled, aria_describedby=hint)
    if each.kind == "lines":
        rows = min(_LONGEST_AREA, max(_SHORTEST_AREA, text.count("\n") + 2))
        # As it is, for it will be sent back. A browser leaves out a line break behind the opening tag: this one.
        content = Html(f"\n{escape(text)}")
        return h(
            "textarea",
            content,
            id=name,
            name=name,
            rows=rows,
            disabled=disabled,
            spellcheck="false",
            aria_describedby=hint,
        )
    if each.kind == "secret":
        return h(
            "input",
            type="password",
            id=name,
            name=name,
            disabled=disabled,
            autocomplete="new-password",
            placeholder="unchanged" if each.is_set else "",
            aria_describedby=hint,
        )
    return h(
        "input",
        id=name,
        name=name,
        value=text,
        disabled=disabled,
        inputmode="decimal" if each.kind == "number" else None,
        spellcheck="false",
        aria_describedby=hint,
    )
