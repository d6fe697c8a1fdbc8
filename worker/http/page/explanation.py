"""The "Try an image" section: its form, and the outcome as a table from each label to the tag it became or not."""

from __future__ import annotations

import base64

from worker.http.page import charts, formatting
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.view import View
from worker.messages import DEFAULT_INSTANCE, ProviderReport
from worker.tagging.explain import Explanation
from worker.tagging.merge import Choice, Verdict

MAXIMUM_ROWS = 15
_MAXIMUM_CHOICES = 50

_VERDICT_LABELS = {
    Verdict.KEPT: "a tag",
    Verdict.NOT_IN_VOCABULARY: "none of the terms wanted",
    Verdict.BELOW_THRESHOLD: "below the threshold",
    Verdict.SUPPRESSED: "not for such a picture",
    Verdict.BESIDE_NARROWER: "a narrower kind is sure",
    Verdict.DROPPED: "dropped by a rule",
    Verdict.EMPTY: "nothing left of it",
    Verdict.ALREADY_ON_ASSET: "the asset has it",
    Verdict.DUPLICATE: "named already",
    Verdict.OVER_MAXIMUM_PARENTS: "over the most broader terms",
    Verdict.OVER_MAXIMUM: "over the most tags",
}


_KINDS = {"parent": "broader term", "object": "found in the picture", "image_kind": "kind of picture"}


def section(view: View) -> Html:
    """The section. It is not refreshed while the page is open, so that an outcome stays until the next one."""
    return h(
        "section",
        h("h2", "Try an image", id="try-title"),
        _form(view) if view.may_see_assets else h("p", view.why_no_assets, class_="quiet"),
        h("div", id="tried", tabindex=-1, aria_live="polite"),
        id="try",
        aria_labelledby="try-title",
    )


def _instance_field(view: View) -> Html:
    """A choice of the instances, or a field for the name of one of many: a thousand options would weigh 50 kB."""
    names = list(dict.fromkeys((DEFAULT_INSTANCE, *view.settings.instances)))
    if len(names) > _MAXIMUM_CHOICES:
        return h("input", type="text", id="instance", value=DEFAULT_INSTANCE, maxlength=200)
    return h("select", [h("option", name, value=name) for name in names], id="instance")


def _form(view: View) -> Html:
    """The form. Its field is disabled until the script listens: a file chosen earlier would be silently lost."""
    return h(
        "form",
        h(
            "label",
            h("input", type="file", id="file", accept="image/*", disabled=True),
            h("span", h("b", "Drop an image here"), h("span", "or choose a file")),
            class_="drop-zone",
        ),
        h(
            "p",
            h(
                "label",
                "As an event of ",
                _instance_field(view),
            ),
            h("span", "It goes through the same decoder and providers as an event. It is not kept.", class_="note"),
            class_="choices",
        ),
        h(
            "noscript",
            h(
                "p",
                "Trying an image needs scripts. On the machine, ",
                h("code", "autotag tag --explain FILE"),
                " does the same.",
            ),
        ),
        id="try-form",
        action="try",
        method="post",
    )


def article(explanation: Explanation, thumbnail: bytes | None, name: str) -> Html:
    """The outcome for one image: what it is, what the providers replied, and a row per label."""
    kept = len(explanation.result.tags)
    found = formatting.quantity(kept, "tag") if kept else "No tag"
    return h(
        "article",
        _picture(explanation, thumbnail, name),
        h(
            "div",
            h("h3", f"{found} in {formatting.duration(explanation.took_s)}"),
            h("p", [_provider(report) for report in explanation.result.providers], class_="providers"),
            h("p", f"Not asked, since nobody is signed in: {', '.join(explanation.not_asked)}.", class_="note")
            if explanation.not_asked
            else None,
            _label_table(explanation) if explanation.choices else None,
            class_="labels",
        ),
        class_="tried",
    )


def refusal(message: str) -> Html:
    """Why an image was not tagged."""
    return h("p", h("b", "Not tagged"), " ", message, class_="refused")


def _picture(explanation: Explanation, thumbnail: bytes | None, name: str) -> Html:
    image = explanation.result.image
    encoded = base64.b64encode(thumbnail).decode() if thumbnail else None
    return h(
        "figure",
        h("img", src=f"data:image/jpeg;base64,{encoded}", alt="") if encoded else None,
        h(
            "figcaption",
            h("b", name),
            h("span", f"{image.format}, {formatting.dimensions(image.width, image.height)}") if image else None,
            h("span", f"instance {explanation.instance}"),
        ),
    )


def _provider(report: ProviderReport) -> Html:
    reply = (
        formatting.duration(report.duration_s) if report.status == "ok" else f"{report.status}: {report.message or ''}"
    )
    model = f" ({report.model})" if report.model else ""
    return h("span", f"{report.name}{model} ", h("span", reply, class_=f"reply-{report.status}"))


def _label_table(explanation: Explanation) -> Html:
    shown = _selected(explanation.choices)
    rest = len(explanation.choices) - len(shown)
    headings = ("The provider says", "Rule", "Tag", "Confidence", "So it is")
    return join(
        h(
            "table",
            h("caption", "Each label's way to a tag, best first", class_="unseen"),
            h("thead", h("tr", [h("th", heading, scope="col") for heading in headings])),
            h("tbody", [_label_row(each, explanation) for each in shown]),
        ),
        h("p", f"and {formatting.quantity(rest, 'label')} less sure", class_="more") if rest else None,
    )


def _selected(choices: tuple[Choice, ...]) -> list[Choice]:
    """The labels to show: the best ones, and every one that became a tag."""
    return [each for number, each in enumerate(choices) if number < MAXIMUM_ROWS or each.verdict is Verdict.KEPT]


def _label_row(each: Choice, explanation: Explanation) -> Html:
    kept = each.verdict is Verdict.KEPT
    threshold = each.threshold
    whose = " by a rule" if each.threshold_of_rule else ""
    needed = h("small", f"threshold {formatting.percentage(threshold)}{whose}") if threshold is not None else None
    several = len(explanation.thresholds) > 1
    meant = each.meant
    return h(
        "tr",
        h(
            "th",
            each.label,
            h("small", _KINDS[each.kind]) if each.kind in _KINDS else None,
            h("small", f"means {meant}") if meant is not None else None,
            h("small", each.provider) if several else None,
            scope="row",
        ),
        h("td", h("span", _rule(each)), data_head="Rule"),
        h("td", h("span", each.name or formatting.UNKNOWN), data_head="Tag"),
        h(
            "td",
            h("span", formatting.percentage(each.confidence), charts.bar(each.confidence, threshold), needed),
            data_head="Confidence",
        ),
        h(
            "td",
            h("span", _VERDICT_LABELS[each.verdict], class_="state good" if kept else "state"),
            h("small", f"so says {', '.join(each.agreeing)}") if each.agreeing else None,
            h("small", f"by {' and '.join(each.models)}") if len(each.models) > 1 else None,
            data_head="So it is",
        ),
        class_="kept" if kept else None,
    )


def _rule(each: Choice) -> Child:
    if each.verdict is Verdict.DROPPED:
        return "dropped"
    if each.because_of is not None:
        return f"broader than {each.because_of}"
    if each.term is not None:
        return f"the term {each.term}"
    if each.renamed:
        return "renamed"
    return "cleaned" if each.label != each.name and each.language is None else h("span", "none", class_="faint")
