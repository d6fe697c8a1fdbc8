"""Who may tag for whom: providers by instance with their state, and the child processes. Never a secret."""

from __future__ import annotations

from worker.http.page import words
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.view import View
from worker.messages import DEFAULT_INSTANCE
from worker.providers.base import Provider
from worker.providers.checks import Metered
from worker.settings import DEFAULTS, InstanceSettings, tag_limit
from worker.supervision.pool import ChildState
from worker.tagging.tagger import threshold


def section(view: View) -> Html:
    """The section."""
    return h(
        "section",
        h("h2", "Providers and instances", id="providers-title"),
        _instances(view),
        h("h3", "Child processes", id="children-title"),
        _children(view),
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
    return _table(
        ("Instance", *(provider.name for provider in providers), "Most tags"),
        [
            (
                join(name, h("span", "off", class_="chip bad") if not instance.enabled else None),
                *(_state(provider, name, instance) for provider in providers),
                _most_tags(view, instance),
            )
            for name, instance in view.settings.by_instance().items()
        ],
        "providers-title",
    )


def _state(provider: Provider, name: str, instance: InstanceSettings) -> Child:
    if not provider.enabled(instance):
        return h("span", "off", class_="faint")
    why_not = provider.unusable(instance)
    account = DEFAULT_INSTANCE if name == DEFAULTS else name  # accounts are kept by the names that events give
    circuit = provider.circuits().get(account, "closed") if isinstance(provider, Metered) else "closed"
    least = threshold(instance, provider.name)
    from_ = h("small", f"from {words.share(least)}") if least is not None else None
    if why_not is not None:
        return join(h("span", "cannot answer", class_="state bad"), h("small", why_not))
    if circuit != "closed":
        return join(h("span", f"circuit {circuit.replace('_', ' ')}", class_="state warn"), from_)
    return join(h("span", "on", class_="state good"), from_)


def _most_tags(view: View, instance: InstanceSettings) -> str:
    most = tag_limit(view.settings, instance)
    return words.count(most) if most else "any"


def _children(view: View) -> Html:
    if view.engine is None:
        return h("p", "None yet.", class_="quiet")
    model = view.engine.model.states() if view.engine.model else []
    return _table(
        ("Child", "State", "Images", "Memory", "What it is"),
        [
            (
                child.name,
                h("span", child.phase.replace("_", "-"), class_=f"state {_mood(child)}"),
                words.count(child.images_done),
                words.size(child.resident_bytes) if child.resident_bytes else words.UNKNOWN,
                _described(child),
            )
            for child in (*model, *view.engine.decoders.states())
        ],
        "children-title",
    )


def _described(child: ChildState) -> str:
    sandbox = f"sandbox: {child.hello['sandbox']}" if child.hello.get("sandbox") else None
    return ", ".join(str(each) for each in (child.hello.get("identity"), child.hello.get("runtime"), sandbox) if each)


def _mood(child: ChildState) -> str:
    if child.phase in ("ready", "busy", "checking"):
        return "good"
    return "bad" if child.phase in ("disabled", "dying") else "warn"


def _table(heads: tuple[str, ...], rows: list[tuple[Child, ...]], labelled_by: str) -> Html:
    """A table that a narrow screen shows as one block a row; each cell then says what it is."""
    return h(
        "table",
        h("thead", h("tr", [h("th", head, scope="col") for head in heads])),
        h(
            "tbody",
            [
                h(
                    "tr",
                    h("th", row[0], scope="row"),
                    [h("td", h("span", cell), data_head=head) for head, cell in zip(heads[1:], row[1:], strict=True)],
                )
                for row in rows
            ],
        ),
        aria_labelledby=labelled_by,
    )
