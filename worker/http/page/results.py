"""The results tab: ended events kept on disk, searched by asset, instance, status and tag."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from worker.http.page import charts, formatting
from worker.http.page.markup import Child, Html, h
from worker.http.page.records import breakable
from worker.http.page.tables import address, choice_field, filters, paging, text_field
from worker.http.page.view import View
from worker.messages import DEFAULT_INSTANCE, ProviderReport, Tag
from worker.operations.clock import written
from worker.operations.history.kept import STATUSES, HistoryPage, KeptResult

PATH = "results"
PER_PAGE = 25

WORDS = {"tagged": "tagged", "no_tags": "no tags", "skipped": "skipped", "failed": "failed"}
"""Each status of a result, for people."""

_SHOWN_TAGS = 8


def section(view: View, wanted: Mapping[str, str], found: HistoryPage | None, problem: str | None) -> Html:
    """The search and what it has found. `wanted`: what was filled in; `problem`: why nothing could be looked for."""
    if not view.may_see_assets:
        body: Child = h("p", view.why_no_assets, class_="quiet")
    elif view.history.writer is None:
        body = h(
            "p",
            "No history is kept: ",
            h("code", "history.enabled"),
            " is false. The last results are on the overview.",
            class_="quiet",
        )
    else:
        body = [_state(view), _form(wanted), _found(view, wanted, found, problem)]
    return h("section", h("h1", "Results", id="title"), body, id="kept", class_="tab-page", aria_labelledby="title")


def _state(view: View) -> list[Child]:
    """What is wrong with the history, if anything is."""
    writer = view.history.writer
    if writer is None:
        return []
    state = writer.state
    notes: list[Child] = []
    if state.problem is not None:
        words = f"Ended events are not being kept: {state.problem}. Nothing else is affected."
        notes.append(h("p", words, role="alert", class_="notice bad"))
    if state.set_aside is not None:
        notes.append(h("p", state.set_aside, class_="notice warn"))
    if state.lost:
        words = f"{formatting.quantity(state.lost, 'ended event')} since the start could not be kept."
        notes.append(h("p", words, class_="notice warn"))
    return notes


def _form(wanted: Mapping[str, str]) -> Html:
    statuses = [("", "any"), *((each, WORDS[each]) for each in STATUSES)]
    return filters(
        PATH,
        text_field("asset", "Asset", wanted.get("asset"), "part of its id or file name"),
        text_field("instance", "Instance", wanted.get("instance")),
        choice_field("status", "Status", wanted.get("status"), statuses),
        text_field("tag", "Tag", wanted.get("tag")),
        is_filtered=bool(wanted),
    )


def _found(view: View, wanted: Mapping[str, str], found: HistoryPage | None, problem: str | None) -> list[Child]:
    if found is None:
        return [h("p", f"{_capital(problem or 'Nothing can be looked for')}.", class_="notice bad")]
    parts: list[Child] = []
    if not found.in_time:
        words = "The search was ended after three seconds: there may be more. Ask for an instance, status or tag too."
        parts.append(h("p", words, class_="notice warn"))
    if not found.results:
        nothing = "Nothing is kept that is like this." if wanted else "Nothing has been kept yet."
        return [*parts, h("p", nothing, class_="quiet")]
    parts.append(h("ol", [_result(view, each) for each in found.results], class_="kept"))
    older = ("Older", address(PATH, wanted, before=found.results[-1].number)) if found.more else None
    newest = ("Newest", address(PATH, wanted, before=None)) if wanted.get("before") else None
    parts.append(paging("Pages of results", before=newest, after=older, between=""))
    return parts


def _result(view: View, each: KeptResult) -> Html:
    at = written(datetime.fromtimestamp(each.at_s, UTC))
    facts: list[Child] = [h("span", WORDS.get(each.status, each.status), class_=f"state {_severity(each)}")]
    if each.instance != DEFAULT_INSTANCE:
        facts.append(h("a", each.instance, href=address(PATH, {"instance": each.instance})))
    if each.reason:
        facts.append(h("code", each.reason))
    facts.append(h("span", formatting.duration(each.took_s)))
    if each.format and each.width and each.height:
        facts.append(h("span", f"{each.format} {formatting.dimensions(each.width, each.height)}"))
    if not each.complete:
        facts.append(h("span", "more to come"))
    if each.dead_lettered:
        facts.append(h("a", "a dead letter", href=address("dead-letters", {"asset": each.asset_id}), class_="chip bad"))
    return h(
        "li",
        h(
            "p",
            h("b", breakable(each.file_name or each.asset_id)),
            h("time", at, datetime=at, title=f"{formatting.ago(max(0.0, view.clock_s - each.at_s))}"),
            class_="name",
        ),
        h("p", h("code", each.asset_id), class_="facts asset") if each.file_name else None,
        h("p", facts, [_chip(tag) for tag in each.tags[:_SHOWN_TAGS]], _hidden(each), class_="facts chips"),
        h("p", each.message, class_="message") if each.message else None,
        h(
            "details",
            h("summary", "What each provider said"),
            h("ul", [_provider(report, each.tags) for report in each.providers], class_="said"),
        )
        if each.providers
        else None,
        class_=f"is-{each.status}",
    )


def _severity(each: KeptResult) -> str:
    return {"tagged": "good", "failed": "bad"}.get(each.status, "quiet")


def _chip(tag: Tag) -> Html:
    return h(
        "a", tag.name, " ", h("small", formatting.percentage(tag.confidence)), href=address(PATH, {"tag": tag.name}),
        class_="chip",
    )  # fmt: skip


def _hidden(each: KeptResult) -> Html | None:
    hidden = each.number_of_tags - min(len(each.tags), _SHOWN_TAGS)
    return h("span", f"and {formatting.number(hidden)} more", class_="more") if hidden > 0 else None


def _provider(report: ProviderReport, tags: tuple[Tag, ...]) -> Html:
    own = [tag for tag in tags if tag.provider == report.name]
    facts = [report.status, formatting.duration(report.duration_s) if report.duration_s is not None else None]
    if report.near_duplicate_of is not None:
        facts.append(f"as of {report.near_duplicate_of}, which looks the same")
    return h(
        "li",
        h(
            "p",
            h("b", report.name),
            h("span", " · ".join(each for each in facts if each), class_=f"reply-{report.status}"),
            h("code", report.reason) if report.reason else None,
            h("span", report.model, class_="faint") if report.model else None,
            class_="head",
        ),
        h("p", report.message, class_="message") if report.message else None,
        h("ul", [_tag(tag) for tag in own], class_="tags") if own else None,
    )


def _tag(tag: Tag) -> Html:
    return h(
        "li",
        h("span", tag.name, class_="label"),
        charts.bar(tag.confidence),
        h("span", formatting.percentage(tag.confidence)),
    )


def _capital(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:]}"
