"""The headline section: the service's state, the reason if it is not ready, the actions, and key figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from worker.diagnostics.advice import readiness_advice
from worker.http.page import connections, formatting
from worker.http.page.markup import Html, h
from worker.http.page.view import View
from worker.http.sessions import CSRF_FIELD
from worker.operations.health.status import Pause
from worker.operations.history.throughput import percentile_s


@dataclass(frozen=True, slots=True)
class Headline:
    """The state in words: `title` of two or three, the reason as a sentence, and what to do about it, if anything."""

    severity: Literal["good", "warn", "bad"]
    title: str
    why: str
    advice: str = ""


_INTENDED: dict[str, str] = {Pause.BY_OPERATOR: "Paused", Pause.STARTING: "Starting"}
"""Titles for the reasons not to be ready that are no fault."""


def headline(view: View) -> Headline:
    """The service's state, for people."""
    health = view.health
    if not health.ready:
        reason = health.reason or ""
        title = _INTENDED.get(reason)
        advice = readiness_advice(reason, view.actions)
        return Headline("warn" if title else "bad", title or "Not ready", _sentence(health.why_not or ""), advice)
    unusable = list(_unusable(view))
    if unusable:
        return Headline(
            "warn",
            "Ready, but not whole",
            _sentence("; ".join(f"{name} cannot answer: {why}" for name, why in unusable)),
            "Images are tagged by the other providers.",
        )
    if view.canary is not None and view.canary.fault is not None:
        return Headline(
            "warn",
            "Ready, but doubtful",
            _sentence(f"A known picture was not tagged as expected: {view.canary.message}"),
            "Tags may be wrong: see AutotagCanaryWrong in docs/runbook.md.",
        )
    connection_fault = connections.fault(view)
    if connection_fault is not None:
        return Headline(
            "warn",
            "Ready, but not connected",
            _sentence(connection_fault),
            "Images are tagged; results wait until their connection takes them.",
        )
    names = [provider.name for provider in view.engine.providers] if view.engine else []
    if not names:
        return Headline("warn", "Ready, but idle", "No provider is switched on: every event is answered skipped.")
    return Headline("good", "Ready", f"Events are taken and answered by {_enumeration(names)}.")


def section(view: View) -> Html:
    """The section at the top: the headline, the buttons or why there are none, and the figures."""
    current = headline(view)
    return h(
        "section",
        h(
            "div",
            h("h1", h("span", class_="dot", aria_hidden="true"), current.title, id="title"),
            h("p", current.why, class_="why"),
            h("p", current.advice, class_="advice") if current.advice else None,
            role="status",
            class_="summary",
        ),
        _buttons(view),
        _figures(view),
        id="headline",
        class_=f"headline {current.severity}",
        aria_labelledby="title",
        data_live=True,
        data_version=view.version,
    )


def _buttons(view: View) -> Html:
    paused = view.health.reason == Pause.BY_OPERATOR
    toggle = "resume" if paused else "pause"
    model = view.engine.model if view.engine else None
    disabled = model is not None and model.disabled_reason is not None
    if view.csrf_token is None:
        return h("p", view.why_no_actions, class_="actions note")
    return h(
        "div",
        _button(toggle, toggle.capitalize(), view.csrf_token, primary=paused),
        _button("reset", "Reset", view.csrf_token, primary=disabled),
        class_="actions",
    )


def _button(action: str, label: str, csrf_token: str, *, primary: bool) -> Html:
    return h(
        "form",
        h("input", type="hidden", name=CSRF_FIELD, value=csrf_token),
        h("button", label, type="submit", class_="primary" if primary else None, title=_TOOLTIPS[action]),
        action=action,
        method="post",
        class_="action",
        data_action=action,
    )


_TOOLTIPS = {
    "pause": "Take no more events; what is in hand is finished",
    "resume": "Take events again",
    "reset": "Forget the model's crashes and launch it again if it is disabled",
}


def _figures(view: View) -> Html:
    window = view.history.throughput.window(view.now_s)
    answered = sum(bucket.answered for bucket in window)
    failed = sum(bucket.failed for bucket in window)
    dead_letters = view.queues.get("dead-letters")
    figures = (
        ("Answered", formatting.number(answered), "in 15 minutes"),
        ("Failed", formatting.number(failed), "in 15 minutes"),
        ("Usual time", formatting.duration(percentile_s(window, 0.5)), "half are faster"),
        (
            "Dead letters",
            formatting.UNKNOWN if dead_letters is None else formatting.number(dead_letters),
            "kept for people",
        ),
        ("Up for", formatting.period(view.now_s - view.history.began_s), f"version {view.version}"),
    )
    return h(
        "dl",
        [h("div", h("dt", name), h("dd", h("b", value), " ", h("small", note))) for name, value, note in figures],
        class_="figures",
    )


def _unusable(view: View) -> Iterable[tuple[str, str]]:
    """Name and reason of each provider that cannot answer for any instance that has switched it on."""
    if view.active is None:
        return
    for provider in view.active.engine.providers:
        why = view.active.why_unusable(provider)
        if why is not None:
            yield provider.name, why


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}{'' if clause.endswith('.') else '.'}" if clause else ""


def _enumeration(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
