"""The section of the last 15 minutes: the model children's timelines and, on the same axis, the work done."""

from __future__ import annotations

from collections.abc import Sequence

from worker.http.page import charts, formatting
from worker.http.page.markup import Child, Html, h
from worker.http.page.view import View
from worker.operations.history import BUCKET_S, BUCKETS, Interval, State
from worker.operations.history.throughput import percentile_s

SPAN_S = BUCKET_S * BUCKETS
_STEPS_PER_MINUTE = round(60 / BUCKET_S)


def section(view: View) -> Html:
    """The last quarter of an hour: states, work and waiting on one axis, and what happened as a list."""
    return h(
        "section",
        h("h2", "The last 15 minutes", id="timeline-title"),
        h(
            "div",
            [_child(view, name) for name in view.history.children],
            _consuming(view),
            _work(view),
            _axis(),
            class_="rows",
        ),
        _occurrences(view),
        id="timeline",
        aria_labelledby="timeline-title",
        data_live=True,
    )


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _child(view: View, name: str) -> Html:
    timeline = view.history.children[name]
    from_s = view.now_s - SPAN_S
    intervals = timeline.intervals(from_s, view.now_s)
    crashes = [each.at_s for each in view.history.occurrences if each.source == name and each.kind == "crash"]
    crashes = [at_s for at_s in crashes if at_s > from_s]
    label = f"{name}: {_in_words(intervals)}; {formatting.quantity(len(crashes), 'crash', 'crashes')}"
    return row(
        "Model child" if len(view.history.children) == 1 else f"Model child {name.rpartition('-')[2]}",
        "its life, and crashes",
        charts.timeline(intervals, crashes, from_s, view.now_s, label),
        (_current_state(timeline.state(view.now_s)), _budget(view)),
    )


def _consuming(view: View) -> Html:
    from_s = view.now_s - SPAN_S
    intervals = view.history.consuming.intervals(from_s, view.now_s)
    state = view.history.consuming.state(view.now_s)
    return row(
        "Events taken",
        "from RabbitMQ",
        charts.timeline(intervals, (), from_s, view.now_s, f"Events: {_in_words(intervals)}"),
        (_current_state(state, _CONSUMING_LABELS.get(state)), f"{formatting.number(view.in_hand)} in hand"),
    )


_CONSUMING_LABELS = {State.RUNNING: "taken", State.DISABLED: "nobody to tag", State.DISCONNECTED: "no broker"}


def _current_state(state: State, label: str | None = None) -> Html:
    return h("b", h("i", class_=f"swatch {charts.class_of(state)}", aria_hidden="true"), label or state.value)


def _budget(view: View) -> Child:
    """A dot for each relaunch of the crash budget, filled for those that are left."""
    model = view.engine.model if view.engine else None
    if model is None or model.relaunches_left is None:
        return None
    budget = view.settings.tensorflow.maximum_number_of_relaunches
    left = 0 if model.disabled_reason is not None else model.relaunches_left
    used = h("i", "●" * (budget - left))
    dots = h("span", "●" * left, used, class_="dots", aria_hidden="true") if budget <= 10 else None
    within = formatting.period(view.settings.tensorflow.maximum_number_of_relaunches_time_interval)
    return h(
        "span",
        dots,
        f"{formatting.quantity(left, 'relaunch', 'relaunches')} left",
        title=f"Of {budget}; a crash is forgotten after {within}, if an image has been answered since",
    )


def _in_words(intervals: Sequence[Interval]) -> str:
    return ", ".join(f"{each.state.value} {formatting.period(each.to_s - each.from_s)}" for each in intervals[-12:])


# ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _work(view: View) -> list[Html]:
    window = view.history.throughput.window(view.now_s)
    last_minute = window[
        -_STEPS_PER_MINUTE - 1 : -1
    ]  # without the current step: it is incomplete and would lower the rate
    answered = [bucket.answered for bucket in window]
    failed = [bucket.failed for bucket in window]
    put_off = [bucket.put_off for bucket in window]
    median = [bucket.percentile_s(0.5) for bucket in window]
    p95 = [bucket.percentile_s(0.95) for bucket in window]
    waiting = [None if bucket.waiting is None else float(bucket.waiting) for bucket in window]
    rate = sum(bucket.answered for bucket in last_minute)
    latest = next((each for each in reversed(waiting) if each is not None), None)
    peak = max((each for each in waiting if each is not None), default=0)
    return [
        row(
            "Events ended",
            h("span", key("answered"), " ", key("failed"), " ", key("retried", "put off"), class_="keys"),
            charts.bars(
                (answered, failed, put_off),
                ("answered", "failed", "retried"),
                f"Events ended in steps of 10 seconds: {sum(answered)} answered, {sum(failed)} failed, "
                f"{sum(put_off)} put off; at most {max(answered)} answered in a step",
            ),
            (h("b", formatting.number(rate)), "answered a minute"),
        ),
        row(
            "Time for an event",
            h("span", key("usual", "half within"), " ", key("slow", "95 % within"), class_="keys"),
            charts.lines(
                ((p95, "slow", True), (median, "usual", False)),
                f"Time for an event: half within {formatting.duration(percentile_s(window, 0.5))}, 95 percent within "
                f"{formatting.duration(percentile_s(window, 0.95))}",
            ),
            (
                h("b", formatting.duration(percentile_s(last_minute, 0.5))),
                f"95 % within {formatting.duration(percentile_s(last_minute, 0.95))}"
                if rate
                else "none in the last minute",
            ),
        ),
        row(
            "Waiting",
            "in RabbitMQ",
            charts.area(
                waiting,
                "waiting",
                f"Events waiting in the queues: at most {formatting.number(peak)}",
                highest=max(peak, 5),
            ),
            (
                h("b", formatting.UNKNOWN if latest is None else formatting.number(latest)),
                f"at most {formatting.number(peak)}",
            ),
        ),
    ]


def key(name: str, label: str | None = None) -> Html:
    """A colour of a chart with what it stands for."""
    return h("span", h("i", class_=f"swatch key-{name}", aria_hidden="true"), label or name, class_="key")


def row(name: str, note: Child, chart: Html, now: tuple[Child, Child]) -> Html:
    """A chart between its name and its latest value, each with a note below."""
    return h(
        "div",
        h("p", h("b", name), h("small", note), class_="what"),
        h("div", chart, class_="plot"),
        h("p", now[0], h("small", now[1]), class_="now"),
        class_="row",
    )


def _axis() -> Html:
    return h(
        "div",
        h("span", "15 min ago"),
        h("span", "10"),
        h("span", "5"),
        h("span", "now"),
        class_="axis",
        aria_hidden="true",
    )


def _occurrences(view: View) -> Html:
    """The same as a list, newest first, with exact times and reasons."""
    occurrences = list(reversed(view.history.occurrences))
    if not occurrences:
        return h("p", "Nothing has happened yet.", class_="quiet")
    return h(
        "details",
        h("summary", f"What happened ({len(occurrences)})"),
        h(
            "ol",
            [
                h(
                    "li",
                    h("time", view.timestamp(each.at_s), datetime=view.timestamp(each.at_s)),
                    h("span", each.source, class_="source"),
                    h("span", each.description, class_=f"kind-{each.kind}"),
                )
                for each in occurrences
            ],
            tabindex=0,
            aria_label="What happened, newest first",
        ),
        class_="occurrences",
        id="occurrences",
    )
