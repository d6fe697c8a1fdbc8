"""The providers section: each instance's providers with their state, and the child processes. It shows no secret."""

from __future__ import annotations

from worker.http.page import formatting, tenants
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.tables import table
from worker.http.page.view import View
from worker.providers.base import Provider
from worker.providers.checks import CircuitState, Metered
from worker.settings import InstanceSettings, tag_limit
from worker.supervision.lifecycle import WORKING_PHASE_NAMES
from worker.supervision.pool import ChildState
from worker.tagging.tagger import thresholds

_MAXIMUM_LISTED = 8
"""Instances; where there are more, some are shown here and all on the tenants tab."""
_SHOWN_OF_MANY = 4


def section(view: View) -> Html:
    """Who may tag for whom: a row for each instance, a column for each provider; and the child processes."""
    return h(
        "section",
        h("h2", "Providers and instances", id="providers-title"),
        _instances(view),
        _all_instances(view),
        h("h3", "Child processes", id="children-title"),
        _children(view),
        *_canary(view),
        id="providers",
        aria_labelledby="providers-title",
        data_live=True,
    )


def _instances(view: View) -> Html:
    if view.engine is None:
        return h("p", "The providers are being made ready.", class_="quiet")
    providers = view.engine.providers
    if not providers:
        return h("p", "No provider is switched on. For instance set `defaults.tensorflow.enabled`.", class_="quiet")
    return table(
        ("Instance", *(provider.name for provider in providers), "Most tags"),
        [
            (
                join(name, h("span", "off", class_="chip bad") if not instance.enabled else None),
                *(_state(provider, name, instance) for provider in providers),
                _tag_limit(view, instance),
            )
            for name, instance in _shown(view)
        ],
        "providers-title",
    )


def _shown(view: View) -> list[tuple[str, InstanceSettings]]:
    """All instances; of many, those with a problem and those with the most events."""
    instances = view.settings.by_event_name()
    if len(instances) <= _MAXIMUM_LISTED:
        return list(instances.items())
    ranked = sorted(tenants.tenants(view), key=lambda each: (-each.severity, -each.ended))
    return [(each.name, instances[each.name]) for each in ranked if each.name in instances][:_SHOWN_OF_MANY]


def _all_instances(view: View) -> Html | None:
    number = len(view.settings.by_event_name())
    if number <= _MAXIMUM_LISTED:
        return None
    link = h("a", f"All {formatting.number(number)} instances", href=tenants.PATH)
    return h("p", "Those with a problem, and those with the most events. ", link, class_="more")


def _state(provider: Provider, name: str, instance: InstanceSettings) -> Child:
    if not provider.enabled(instance):
        return h("span", "off", class_="faint")
    unusable = provider.unusable(instance)
    circuit = (
        provider.circuits().get(name, CircuitState.CLOSED) if isinstance(provider, Metered) else CircuitState.CLOSED
    )
    minimum = thresholds(instance, provider.name).least
    from_ = h("small", f"from {formatting.percentage(minimum)}") if minimum is not None else None
    if unusable is not None:
        return join(h("span", "cannot answer", class_="state bad"), h("small", unusable))
    if circuit != CircuitState.CLOSED:
        return join(h("span", f"circuit {circuit.replace('_', ' ')}", class_="state warn"), from_)
    return join(h("span", "on", class_="state good"), from_)


def _tag_limit(view: View, instance: InstanceSettings) -> str:
    limit = tag_limit(view.settings, instance)
    return formatting.number(limit) if limit else "any"


def _children(view: View) -> Html:
    if view.engine is None:
        return h("p", "None yet.", class_="quiet")
    model = view.engine.model.states() if view.engine.model else []
    shadow = view.engine.shadow.pool if view.engine.shadow else None
    return table(
        ("Child", "State", "Images", "Memory", "What it is"),
        [
            (
                child.name,
                h("span", child.phase.replace("_", "-"), class_=f"state {_severity(child)}"),
                formatting.number(child.images_done),
                formatting.size(child.resident_bytes) if child.resident_bytes else formatting.UNKNOWN,
                _description(child),
            )
            for child in (*model, *(shadow.states() if shadow else ()), *view.engine.decoders.states())
        ],
        "children-title",
    )


def _canary(view: View) -> list[Html]:
    """What each model last said of a known picture."""
    last = view.canary
    if last is None:
        return []
    heading = h("h3", "A known picture", id="canary-title")
    when = h("p", f"Tagged {formatting.ago(last.ago_s)}, in {formatting.duration(last.took_s)}.", class_="quiet")
    if not last.models:
        return [heading, when, h("p", last.message)]
    rows: list[tuple[Child, ...]] = [
        (
            each.name,
            h("span", each.fault.replace("_", " "), class_="state bad")
            if each.fault is not None
            else h("span", "as expected", class_="state good"),
            f"{each.expected} from {each.low:.3f} to {each.high:.3f}",
            f"{each.confidence:.3f}",
            each.best,
        )
        for each in last.models
    ]
    return [heading, when, table(("Model", "State", "Expected", "Found", "Surest of"), rows, "canary-title")]


def _description(child: ChildState) -> str:
    sandbox = f"sandbox: {child.hello['sandbox']}" if child.hello.get("sandbox") else None
    return ", ".join(str(each) for each in (child.hello.get("identity"), child.hello.get("runtime"), sandbox) if each)


def _severity(child: ChildState) -> str:
    if child.phase in WORKING_PHASE_NAMES:
        return "good"
    return "bad" if child.phase in ("disabled", "dying") else "warn"
