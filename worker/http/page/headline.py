"""The top of the page: is it well, and if not, why and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from worker.http.page import words
from worker.http.page.markup import Html, h
from worker.http.page.view import View
from worker.operations.health.status import Pause
from worker.operations.history.throughput import percentile_s


@dataclass(frozen=True, slots=True)
class Headline:
    """`mood` is good, warn or bad; `title` two or three words; `why` a sentence; `todo` what follows from it."""

    mood: str
    title: str
    why: str
    todo: str = ""


_NO_FAULT: dict[str, str] = {Pause.BY_OPERATOR: "Paused", Pause.STARTING: "Starting"}

_TODO = {
    "by_operator": "To go on, {resume}.",
    "nobody_can_tag": "Events wait in their queue; none is lost. Mend the cause, then {reset}.",
    "broker_blocked": "Free memory or disk on the RabbitMQ machine.",
}

_BY_BUTTON = {"resume": "press Resume", "reset": "press Reset"}
_BY_COMMAND = {"resume": "run `autotag resume`", "reset": "run `autotag reset`"}


def headline(view: View) -> Headline:
    """How it stands, in words."""
    health = view.health
    if not health.ready:
        title = _NO_FAULT.get(health.reason or "")
        todo = _TODO.get(health.reason or "", "").format_map(_BY_COMMAND if view.proof is None else _BY_BUTTON)
        return Headline("warn" if title else "bad", title or "Not ready", _sentence(health.why_not or ""), todo)
    unusable = list(_unusable(view))
    if unusable:
        return Headline(
            "warn",
            "Ready, but not whole",
            _sentence("; ".join(f"{name} cannot answer: {why}" for name, why in unusable)),
            "Images are tagged by the other providers.",
        )
    names = [provider.name for provider in view.engine.providers] if view.engine else []
    if not names:
        return Headline("warn", "Ready, but idle", "No provider is switched on: every event is answered skipped.")
    return Headline("good", "Ready", f"Events are taken and answered by {_listed(names)}.")


def section(view: View) -> Html:
    """The section."""
    said = headline(view)
    return h(
        "section",
        h(
            "div",
            h("h1", h("span", class_="dot", aria_hidden="true"), said.title, id="title"),
            h("p", said.why, class_="why"),
            h("p", said.todo, class_="todo") if said.todo else None,
            role="status",
            class_="saying",
        ),
        _buttons(view),
        _figures(view),
        id="headline",
        class_=f"headline {said.mood}",
        aria_labelledby="title",
        data_live=True,
    )


def _buttons(view: View) -> Html:
    paused = view.health.reason == Pause.BY_OPERATOR
    going = "resume" if paused else "pause"
    model = view.engine.model if view.engine else None
    broken = model is not None and model.disabled_reason is not None
    if view.proof is None:
        return h("p", view.why_no_actions, class_="actions note")
    return h(
        "div",
        _button(going, going.capitalize(), view.proof, primary=paused),
        _button("reset", "Reset", view.proof, primary=broken),
        class_="actions",
    )


def _button(action: str, label: str, proof: str, *, primary: bool) -> Html:
    return h(
        "form",
        h("input", type="hidden", name="proof", value=proof),
        h("button", label, type="submit", class_="primary" if primary else None, title=_MEANS[action]),
        action=f"/{action}",
        method="post",
        class_="action",
        data_action=action,
    )


_MEANS = {
    "pause": "Take no more events; what is in hand is finished",
    "resume": "Take events again",
    "reset": "Forget the model's crashes and launch it again if it is disabled",
}


def _figures(view: View) -> Html:
    window = view.history.throughput.window(view.now_s)
    answered = sum(bucket.answered for bucket in window)
    failed = sum(bucket.failed for bucket in window)
    dead = view.queues.get("dead-letters")
    pairs = (
        ("Answered", words.count(answered), "in 15 minutes"),
        ("Failed", words.count(failed), "in 15 minutes"),
        ("Usual time", words.took(percentile_s(window, 0.5)), "half are faster"),
        ("Dead letters", words.UNKNOWN if dead is None else words.count(dead), "kept for people"),
        ("Up for", words.lasted(view.now_s - view.history.began_s), f"version {view.version}"),
    )
    return h(
        "dl",
        [h("div", h("dt", name), h("dd", h("b", value), " ", h("small", more))) for name, value, more in pairs],
        class_="figures",
    )


def _unusable(view: View) -> Iterable[tuple[str, str]]:
    """Providers that no instance which has them switched on could use."""
    if view.active is None:
        return
    for provider in view.active.engine.providers:
        why = view.active.why_unusable(provider)
        if why is not None:
            yield provider.name, why


def _sentence(words_: str) -> str:
    return f"{words_[:1].upper()}{words_[1:]}{'' if words_.endswith('.') else '.'}" if words_ else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
