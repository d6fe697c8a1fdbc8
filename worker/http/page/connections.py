"""The section of connections: how uploads come in from other systems and tags go back, as `autotag connect` says."""

from __future__ import annotations

from collections.abc import Iterator

from worker.http.page import formatting
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.tables import table
from worker.http.page.view import View
from worker.operations.health.connector_report import ConnectionReport, ConnectorReport, Trouble

_RESULTS = (
    ("written", "written"),
    ("unchanged", "as they were"),
    ("gone", "of assets that are gone"),
    ("dead_letter", "set aside"),
)
"""What became of results, and how the page calls it."""


def section(view: View) -> Html | None:
    """Nothing where no connection is switched on."""
    names = view.settings.connections
    if not names:
        return None
    report = view.connector
    body: list[Child] = [h("p", fault, class_="quiet") for fault in _faults(report, view.clock_s)]
    if report is not None and not report.stopped:
        rows = [_row(view, name, report.connections.get(name), report) for name in names]
        headings = ("Name", "Uploads", "Tags", "Results waiting", "Results since its start", "Last write")
        body.append(table(headings, rows, "connections-title"))
        body += [_advice(name, trouble, view) for name, trouble in troubles(report) if name in names]
    return h(
        "section",
        h("h2", "Connections", id="connections-title"),
        *body,
        id="connections",
        aria_labelledby="connections-title",
        data_live=True,
    )


def fault(view: View) -> str | None:
    """What is wrong with connections, as a clause without names of assets; None if nothing is, or there is none."""
    if not view.settings.connections:
        return None
    found = next(_faults(view.connector, view.clock_s), None)
    if found is not None or view.connector is None:
        return found
    waiting = [f"{name} ({trouble.reason})" for name, trouble in troubles(view.connector)]
    return f"a connection waits: {', '.join(waiting)}" if waiting else None


def troubles(report: ConnectorReport) -> Iterator[tuple[str, Trouble]]:
    """Each connection's reasons not to get on."""
    for name, each in report.connections.items():
        if each.poll is not None and each.poll.trouble is not None:
            yield name, each.poll.trouble
        if each.target is not None and each.target.pause is not None:
            yield name, each.target.pause


def _faults(report: ConnectorReport | None, clock_s: float) -> Iterator[str]:
    if report is None:
        yield "`autotag connect` has not been heard of: nothing comes in by connections, and no tags are written"
    elif report.stopped:
        yield f"`autotag connect` was stopped {_ago(report.at_s, clock_s)}; results wait in their queues"
    elif report.is_late(clock_s):
        yield f"`autotag connect` was last heard of {_ago(report.at_s, clock_s)}; what is shown is of then"
    elif report.why_not is not None and not any(troubles(report)):
        yield f"`autotag connect` is not ready: {report.why_not}"


def _row(view: View, name: str, each: ConnectionReport | None, report: ConnectorReport) -> list[Child]:
    if each is None:
        return [name, *[_quiet("not in its settings")] * 2, *[formatting.UNKNOWN] * 3]
    target = each.target
    return [
        name,
        _uploads(view, each),
        _state(target.pause, target.broker_fault, view) if target is not None else _quiet("none"),
        formatting.number(report.waiting[name]) if name in report.waiting else formatting.UNKNOWN,
        _totals(target.totals) if target is not None else formatting.UNKNOWN,
        _ago(target.last_write_s, view.clock_s) if target is not None and target.last_write_s else formatting.UNKNOWN,
    ]


def _uploads(view: View, each: ConnectionReport) -> Child:
    parts: list[Child] = ["are posted"] if each.inlet else []
    if each.poll is not None:
        when = each.poll.last_complete_s
        parts.append(f"listed {_ago(when, view.clock_s)}" if when else "are listed")
        if each.poll.trouble is not None:
            parts.append(_chip(each.poll.trouble, view))
    return join(*(part for each_part in parts for part in (each_part, " "))) if parts else _quiet("none")


def _state(pause: Trouble | None, broker_fault: str | None, view: View) -> Child:
    if pause is not None:
        return _chip(pause, view)
    return h("span", broker_fault, class_="chip bad") if broker_fault is not None else "are written"


def _totals(totals: dict[str, int]) -> Child:
    parts = [f"{formatting.number(totals[name])} {called}" for name, called in _RESULTS if totals.get(name)]
    if removed := totals.get("removed_by_people"):
        parts.append(f"{formatting.quantity(removed, 'tag')} removed by people")
    return ", ".join(parts) or _quiet("none")


def _chip(trouble: Trouble, view: View) -> Html:
    return h("span", f"{trouble.reason}, since {_ago(trouble.since_s, view.clock_s)}", class_="chip bad")


def _advice(name: str, trouble: Trouble, view: View) -> Html:
    """What a trouble is in words, for those who may see names of assets, and who says more."""
    end = "" if trouble.message.endswith((".", "?")) else "."
    said = f"{trouble.message}{end} " if view.may_see_assets else ""
    return h("p", h("b", name), f": {said}", h("code", f"autotag connect check {name}"), " says more.", class_="advice")


def _quiet(text: str) -> Html:
    return h("span", text, class_="faint")


def _ago(at_s: float, clock_s: float) -> str:
    """Clocks of two machines may differ: nothing is in the future."""
    return formatting.ago(max(0.0, clock_s - at_s))
