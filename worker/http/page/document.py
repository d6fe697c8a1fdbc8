"""The complete HTML documents: the status page, the sign-in page, and the frame that every tab is shown in."""

from __future__ import annotations

from worker import __version__
from worker.http.page import connections, day, explanation, headline, navigation, providers, records, shadow, timeline
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.view import View
from worker.http.sessions import CSRF_FIELD, SignedIn

_RENEWED_WITHOUT_SCRIPTS_S = 30
"""A browser without scripts loads the page again by itself, and shows its own error if the service has gone."""


def page(view: View) -> str:
    """The status page."""
    *above, below = _live_sections(view)
    return tab(
        headline.headline(view).title,
        navigation.OVERVIEW,
        *above,
        explanation.section(view),
        below,
        csrf_token=view.csrf_token,
        signed_in=view.signed_in,
        note="Renews itself every two seconds. Times are those of the machine it runs on.",
        script=True,
        renew=True,
    )


def _renewed_from(path: str) -> str:
    """Where the script finds the live sections: empty for the page's own address, with its query."""
    return "live" if path == navigation.OVERVIEW else ""


def tab(
    title: str,
    path: str,
    *sections: Child,
    csrf_token: str | None,
    signed_in: SignedIn | None,
    note: str = "Times are those of the machine it runs on.",
    script: bool = False,
    renew: bool = False,
) -> str:
    """A document with the header and the tabs above its sections; `path` is its address in `navigation.TABS`.

    With a script, an open page shows when the service has gone; with `renew`, its live sections are fetched again.
    """
    return _document(
        f"{title} · Autotag",
        h("a", "To the content", href="#main", class_="skip"),
        _top(csrf_token, signed_in),
        navigation.tabs(path),
        h("main", sections, id="main", tabindex=-1, data_renew=_renewed_from(path) if renew else None),
        h("p", role="status", id="notice", class_="toast") if script else None,
        h(
            "footer",
            h("p", note),
            h(
                "p",
                h("a", "metrics", href="metrics"),
                h("a", "readiness", href="readyz"),
                h("a", "as JSON", href="status.json"),
            ),
        ),
        script=script,
        renew=renew,
    )


def live(view: View) -> Html:
    """The sections that are refreshed while the page is open, each under its id."""
    return join(_live_sections(view))


def _live_sections(view: View) -> list[Html]:
    candidate = shadow.section(view)
    connected = connections.section(view)
    return [
        headline.section(view),
        timeline.section(view),
        day.section(view),
        records.failures(view),
        records.results(view),
        *([candidate] if candidate is not None else ()),
        *([connected] if connected is not None else ()),
        providers.section(view),
    ]


def sign_in(error: str = "") -> str:
    """The sign-in page, with the error of the last attempt if there was one."""
    return _document(
        "Sign in · Autotag",
        h(
            "main",
            h(
                "form",
                _logo(),
                h("h1", "Autotag"),
                h("p", error, role="alert", class_="error") if error else None,
                h("label", "Token", for_="token"),
                h(
                    "input",
                    type="password",
                    id="token",
                    name="token",
                    required=True,
                    autofocus=True,
                    autocomplete="current-password",
                    aria_describedby="hint",
                ),
                h("p", "The value of ", h("code", "http.token"), " in the settings.", id="hint", class_="note"),
                h("button", "Sign in", type="submit", class_="primary"),
                action="sign-in",
                method="post",
                class_="sign-in",
            ),
            id="main",
        ),
        script=False,
    )


def _top(csrf_token: str | None, signed_in: SignedIn | None) -> Html:
    return h(
        "header",
        h("p", _logo(), h("b", "Autotag"), class_="brand"),
        h("p", signed_in.person, class_="person") if signed_in is not None and signed_in.person else None,
        _sign_out(csrf_token, signed_in) if signed_in is not None else None,
        class_="top",
    )


def _sign_out(csrf_token: str | None, signed_in: SignedIn) -> Html | None:
    """A form that ends a session of ours; a link to where the proxy ends its own."""
    if signed_in.by_token:
        return h(
            "form",
            h("input", type="hidden", name=CSRF_FIELD, value=csrf_token or ""),
            h("button", "Sign out", type="submit", class_="plain"),
            action="sign-out",
            method="post",
        )
    return h("a", "Sign out", href=signed_in.sign_out_url) if signed_in.sign_out_url is not None else None


_TAG_OUTLINE = (
    "M3 4.5A1.5 1.5 0 0 1 4.5 3h7.2a3 3 0 0 1 2.1.9l6.9 6.9a2 2 0 0 1 0 2.8l-7 7a2 2 0 0 1-2.8 0"
    "L4 13.7A3 3 0 0 1 3 11.5z"
)


def _logo() -> Html:
    """The logo: a tag with its hole."""
    return h(
        "svg",
        h("path", d=_TAG_OUTLINE),
        h("circle", cx=8, cy=8, r=1.7, class_="hole"),
        class_="logo",
        viewbox="0 0 24 24",
        width=28,
        height=28,
        aria_hidden="true",
    )


def _document(title: str, *body: Child, script: bool, renew: bool = False) -> str:
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", title),
        h("link", rel="icon", href="page/mark.svg", type="image/svg+xml"),
        h("link", rel="stylesheet", href="page/autotag.css"),
        h("script", src="page/autotag.js", type="module") if script else None,
        h("noscript", h("meta", http_equiv="refresh", content=_RENEWED_WITHOUT_SCRIPTS_S)) if renew else None,
    )
    return f"<!doctype html>\n{h('html', head, h('body', *body), lang='en', data_version=__version__)}\n"
