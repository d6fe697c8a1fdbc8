"""The section about a candidate model: what would change, and images whose tags would, with thumbnails."""

from __future__ import annotations

from worker.http.page import formatting
from worker.http.page.markup import Child, Html, h
from worker.http.page.view import View
from worker.operations.health.shadow_report import ChangedTag, ShadowReport
from worker.operations.history.comparisons import Comparison

_MOST_TAGS = 6


def section(view: View) -> Html | None:
    """Nothing where there is no candidate."""
    shadow = view.engine.shadow if view.engine is not None else None
    if shadow is None:
        return None
    report = shadow.report()
    body: list[Child] = [h("p", _summary(report), class_="quiet")]
    if not view.may_see_assets:
        body.append(h("p", view.why_no_assets, class_="quiet"))
    else:
        changes = [("would be added", report.added), ("would be removed", report.removed)]
        body += [h("p", f"{_listed(tags)} {what}.") for what, tags in changes if tags]
        shown = list(shadow.comparisons.shown())
        body.append(h("ul", [_image(each) for each in shown], class_="results") if shown else None)
    return h(
        "section",
        h("h2", "A candidate model", id="shadow-title"),
        *body,
        id="shadow",
        aria_labelledby="shadow-title",
        data_live=True,
    )


def _summary(report: ShadowReport) -> str:
    parts = [f"{report.model}: {report.state}", f"{formatting.quantity(report.compared, 'image')} compared"]
    if report.compared:
        parts.append(f"{formatting.percentage(report.alike / report.compared)} with the same tags")
    if skipped := sum(report.skipped.values()):
        parts.append(f"{formatting.number(skipped)} skipped")
    if report.candidate_cpu_ms is not None and report.real_cpu_ms is not None:
        parts.append(f"{report.candidate_cpu_ms:.1f} ms of processor time an image, now {report.real_cpu_ms:.1f} ms")
    return ", ".join(parts) + ". Nothing of it is published."


def _listed(tags: list[ChangedTag]) -> str:
    return ", ".join(f"{each.name} ({formatting.times(each.times)})" for each in tags[:_MOST_TAGS])


def _image(each: Comparison) -> Html:
    tags = [("added", *tag) for tag in each.added] + [("removed", *tag) for tag in each.removed]
    return h(
        "li",
        _thumbnail(each),
        h(
            "div",
            h("p", h("b", each.asset_id), class_="name"),
            h(
                "ul",
                [
                    h("li", h("span", f"{what}: {name}", class_="label"), " ", formatting.percentage(value))
                    for what, name, value in tags[:_MOST_TAGS]
                ],
                class_="tags",
            ),
            class_="body",
        ),
        class_="result",
    )


def _thumbnail(each: Comparison) -> Html:
    if each.thumbnail is not None and each.thumbnail.jpeg is not None:
        return h("img", src=f"thumbnail?n={each.thumbnail.number}", alt="", class_="thumb", width=80, height=80)
    return h("div", formatting.UNKNOWN, class_="thumb none", aria_hidden="true")
