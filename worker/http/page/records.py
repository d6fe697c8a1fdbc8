"""The sections of recent failures and recent results."""

from __future__ import annotations

from worker.amqp.delivery import Ending
from worker.diagnostics.advice import advice
from worker.http.page import charts, formatting
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.view import View
from worker.messages import DEFAULT_INSTANCE, ProviderReport, Tag
from worker.operations.history import PROVIDER_FAILED, Failure, RecentResult

_KINDS: dict[str, str] = {
    Ending.DEAD_LETTERED: "dead letter",
    Ending.RETRIED: "tried again later",
    Ending.REQUEUED: "back in its queue",
    PROVIDER_FAILED: "one provider",
}
"""Labels for the kinds of failure."""

_STATUSES = {"tagged": "tagged", "no_tags": "no tags", "skipped": "skipped", "failed": "failed"}


def failures(view: View) -> Html:
    """What went wrong recently, with advice."""
    recent = list(view.history.failures)
    return _section(
        "failures",
        "What went wrong",
        h("ul", [_failure(view, each) for each in recent], class_="failures")
        if recent
        else h("p", "Nothing since the start.", class_="quiet"),
    )


def results(view: View) -> Html:
    """The last results with their tags; hidden from clients that may not see assets."""
    recent = list(view.history.results)
    body: Child
    if not view.may_see_assets:
        body = h("p", view.why_no_assets, class_="quiet")
    elif not recent:
        body = h("p", "No result yet. Send an event, or try an image below.", class_="quiet")
    else:
        body = h("ul", [_result(view, each) for each in recent], class_="results")
    return _section("results", "Last results", body)


def _section(name: str, title: str, body: Child) -> Html:
    return h(
        "section",
        h("h2", title, id=f"{name}-title"),
        body,
        id=name,
        aria_labelledby=f"{name}-title",
        data_live=True,
    )


def _failure(view: View, each: Failure) -> Html:
    message = each.message or each.reason
    return h(
        "li",
        h(
            "p",
            h("code", each.reason),
            h("span", each.provider, class_="provider") if each.provider else None,
            h("span", _KINDS.get(each.kind, each.kind), class_="chip"),
            h("span", formatting.times(each.times), class_="times"),
            _time(view, each.last_s),
            class_="head",
        ),
        h(
            "p",
            message if view.may_see_assets else "The message names an asset; it is not shown here.",
            class_="message",
        ),
        h("p", h("b", "What to do"), " ", advice(each.reason, each.kind, view.actions), class_="advice"),
    )


def _result(view: View, each: RecentResult) -> Html:
    facts = [_STATUSES.get(each.status, each.status), formatting.duration(each.took_s)]
    if each.image is not None:
        facts.append(f"{each.image.format} {formatting.dimensions(each.image.width, each.image.height)}")
    if each.instance != DEFAULT_INSTANCE:
        facts.append(each.instance)
    if not each.complete:
        facts.append("more to come")
    hidden = each.number_of_tags - len(each.tags)
    return h(
        "li",
        _thumbnail(each),
        h(
            "div",
            h("p", h("b", breakable(each.file_name or each.asset_id)), _time(view, each.at_s), class_="name"),
            h("p", " · ".join(facts), class_="facts"),
            h("ul", [_tag(tag) for tag in each.tags], class_="tags") if each.tags else None,
            h("p", f"and {formatting.quantity(hidden, 'more tag')}", class_="more") if hidden > 0 else None,
            h("p", each.message, class_="message") if each.message else None,
            h("p", [_provider(report) for report in each.providers], class_="providers") if each.providers else None,
            class_="body",
        ),
        class_=f"result is-{each.status}",
    )


def breakable(name: str) -> Html:
    """A name that may be a path: a narrow screen breaks it after a slash rather than inside a word."""
    first, *others = name.split("/")
    return join(first, [join("/", h("wbr"), other) for other in others])


def _thumbnail(each: RecentResult) -> Html:
    if each.thumbnail is not None and each.thumbnail.jpeg is not None:
        return h("img", src=f"thumbnail?n={each.thumbnail.number}", alt="", class_="thumb", width=80, height=80)
    return h("div", each.image.format if each.image else formatting.UNKNOWN, class_="thumb none", aria_hidden="true")


def _tag(tag: Tag) -> Html:
    return h(
        "li",
        h("span", tag.name, class_="label"),
        charts.bar(tag.confidence),
        h("span", formatting.percentage(tag.confidence)),
    )


def _provider(report: ProviderReport) -> Html:
    reply = (
        formatting.duration(report.duration_s) if report.status == "ok" else f"{report.status}: {report.reason or ''}"
    )
    if report.near_duplicate_of is not None:
        reply = f"as of {report.near_duplicate_of}, which looks the same"
    return h("span", f"{report.name} ", h("span", reply, class_=f"reply-{report.status}"))


def _time(view: View, at_s: float) -> Html:
    at = view.timestamp(at_s)
    return h("time", formatting.ago(view.now_s - at_s), datetime=at, title=at)
