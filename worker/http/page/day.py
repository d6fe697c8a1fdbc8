"""The section of the last 24 hours: events ended, in steps of ten minutes."""

from __future__ import annotations

from worker.http.page import charts, formatting
from worker.http.page.markup import Child, Html, h
from worker.http.page.timeline import key, row
from worker.http.page.view import View
from worker.operations.history.day import STEP_S, STEPS

_SPAN_S = STEP_S * STEPS


def section(view: View) -> Html:
    """A chart of what became of the events of a day, with its sums."""
    window = view.history.day.window(view.clock_s)
    answered = [step.answered for step in window]
    failed = [step.failed for step in window]
    put_off = [step.put_off for step in window]
    most = max(answered)
    label = (
        f"Events ended in steps of ten minutes over 24 hours: {sum(answered)} answered, {sum(failed)} failed, "
        f"{sum(put_off)} put off; at most {most} answered in a step"
    )
    return h(
        "section",
        h("h2", "The last 24 hours", id="day-title"),
        h(
            "div",
            row(
                "Events ended",
                h("span", key("answered"), " ", key("failed"), " ", key("retried", "put off"), class_="keys"),
                charts.bars((answered, failed, put_off), ("answered", "failed", "retried"), label),
                (h("b", formatting.number(sum(answered))), _failed(sum(failed), most)),
            ),
            _axis(),
            class_="rows day",
        ),
        _since(view),
        id="day",
        aria_labelledby="day-title",
        data_live=True,
    )


def _failed(failed: int, most: int) -> str:
    if failed:
        return f"{formatting.number(failed)} failed"
    return f"at most {formatting.number(most * 60 / STEP_S)} a minute" if most else "answered"


def _axis() -> Html:
    times = ("24 h ago", "18", "12", "6", "now")
    return h("div", [h("span", each) for each in times], class_="axis", aria_hidden="true")


def _since(view: View) -> Child:
    """What is not in the chart, where something is not."""
    if view.history.writer is not None or view.now_s - view.history.began_s >= _SPAN_S:
        return None
    return h(
        "p",
        f"Since the start, {formatting.ago(view.now_s - view.history.began_s)}: what was before is kept only where ",
        h("code", "history.enabled"),
        " is true.",
        class_="more",
    )
