"""The tenants tab: a row for each instance, filtered, sorted and paged by links and a form alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from worker.http.page import formatting
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.tables import address, choice_field, filters, paging, text_field
from worker.http.page.view import View
from worker.operations.history.tenants import OTHER, TenantCounts
from worker.operations.metrics.cloud import AccountView
from worker.providers.checks import CircuitState, Metered, Severity

PATH = "tenants"
PER_PAGE = 18
"""So that a page is below 2,000 pixels high, also on a phone, where a row takes up to four lines."""

_NAMES = {"tensorflow": "local model", "google_cloud_vision": "Google", "microsoft_vision": "Microsoft"}
"""Short names of the providers that come with Autotag."""


@dataclass(frozen=True, slots=True)
class Use:
    """One provider that an instance has switched on. `unusable`: why it cannot answer; `used`, `limit`: calls."""

    provider: str
    unusable: str | None
    circuit: CircuitState
    used: int | None = None
    limit: int | None = None

    @property
    def budget(self) -> float:
        """The used share of the calls of this month; 0 without a limit."""
        return (self.used or 0) / self.limit if self.limit else 0.0


@dataclass(frozen=True, slots=True)
class TenantRow:
    """An instance with what it does now. `enabled` is False where it is switched off."""

    name: str
    enabled: bool
    uses: tuple[Use, ...]
    counts: TenantCounts

    @property
    def budget(self) -> float:
        """The largest used share among its providers."""
        return max((use.budget for use in self.uses), default=0.0)

    @property
    def severity(self) -> int:
        """2: a provider cannot answer; 1: a circuit is not closed, or a budget nearly used up; 0: all is well."""
        if not self.enabled:
            return 0
        if any(use.unusable for use in self.uses):
            return 2
        return int(any(use.circuit != CircuitState.CLOSED or use.budget >= 0.9 for use in self.uses))

    @property
    def ended(self) -> int:
        """Deliveries in the last 15 minutes."""
        return self.counts.answered + self.counts.failed + self.counts.put_off


def tenants(view: View, accounts: Iterable[AccountView] = ()) -> list[TenantRow]:
    """Every configured instance, and the others together if they have had events, in the order of the settings."""
    counts = view.history.tenants.counts(view.now_s)
    calls = {(each.provider, each.instance): each for each in accounts}
    providers = view.engine.providers if view.engine is not None else ()
    faults = {
        (each.provider, each.instance): each.reason.replace("_", " ")
        for each in (view.active.review_providers() if view.active is not None else ())
        if each.severity is Severity.ERROR
    }
    circuits = {each.name: each.circuits() for each in providers if isinstance(each, Metered)}
    found = []
    for name, instance in view.settings.by_event_name().items():
        uses = []
        for provider in providers:
            if provider.enabled(instance):
                account = calls.get((provider.name, name))
                uses.append(
                    Use(
                        provider.name,
                        faults.get((provider.name, name)) or provider.unusable(instance),
                        circuits.get(provider.name, {}).get(name, CircuitState.CLOSED),
                        account.calls_used if account is not None else None,
                        account.calls_limit if account is not None else None,
                    )
                )
        enabled = view.settings.enabled and instance.enabled
        found.append(TenantRow(name, enabled, tuple(uses), counts.get(name, TenantCounts())))
    if OTHER in counts and OTHER not in view.settings.instances:
        found.append(TenantRow(OTHER, enabled=True, uses=(), counts=counts[OTHER]))
    return found


_ORDERS: dict[str, Callable[[TenantRow], tuple[object, ...]]] = {
    "name": lambda each: (each.name.casefold(),),
    "state": lambda each: (-each.severity, each.enabled, each.name.casefold()),
    "rate": lambda each: (-each.counts.answered_last_minute, -each.counts.answered, each.name.casefold()),
    "failures": lambda each: (-each.counts.failed, -each.ended, each.name.casefold()),
    "budget": lambda each: (-each.budget, each.name.casefold()),
}

_CHOICES: dict[str, tuple[str, Callable[[TenantRow], bool]]] = {
    "": ("all", lambda _: True),
    "problems": ("with problems", lambda each: each.severity > 0 or each.counts.failed > 0),
    "active": ("with events in 15 minutes", lambda each: each.ended > 0),
    "off": ("switched off", lambda each: not each.enabled or not each.uses),
}


def chosen(all_of_them: Sequence[TenantRow], wanted: Mapping[str, str]) -> list[TenantRow]:
    """Those that are asked for, in the order that is asked for."""
    part = wanted.get("name", "").casefold()
    _, fits = _CHOICES.get(wanted.get("show", ""), _CHOICES[""])
    order = _ORDERS.get(wanted.get("sort", ""), _ORDERS["name"])
    return sorted((each for each in all_of_them if part in each.name.casefold() and fits(each)), key=order)


def section(view: View, all_of_them: Sequence[TenantRow], wanted: Mapping[str, str]) -> Html:
    """The filter, one page of rows, and links to the others."""
    found = chosen(all_of_them, wanted)
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(pages, int(wanted.get("page", "1")) or 1)
    first = (page - 1) * PER_PAGE
    rows = found[first : first + PER_PAGE]
    between = (
        f"{formatting.number(first + 1)} to {formatting.number(first + len(rows))} of {formatting.number(len(found))}"
    )
    return h(
        "section",
        h("h1", "Tenants", id="title"),
        h("p", _summary(all_of_them), class_="quiet"),
        filters(
            PATH,
            text_field("name", "Instance", wanted.get("name"), "part of its name"),
            choice_field("show", "Show", wanted.get("show"), [(key, words) for key, (words, _) in _CHOICES.items()]),
            is_filtered=bool(wanted.get("name") or wanted.get("show")),
            hidden={"sort": wanted.get("sort", "")},
        ),
        _table(rows, wanted) if rows else h("p", "No instance is like this.", class_="quiet"),
        paging(
            "Pages of tenants",
            before=("Before", address(PATH, wanted, page=page - 1)) if page > 1 else None,
            after=("Next", address(PATH, wanted, page=page + 1)) if page < pages else None,
            between=between,
        ),
        id="tenants",
        class_="tab-page",
        aria_labelledby="title",
        data_live=True,
    )


def _summary(all_of_them: Sequence[TenantRow]) -> str:
    faults = sum(each.severity == 2 for each in all_of_them)
    active = sum(each.ended > 0 for each in all_of_them)
    number = sum(each.name != OTHER or bool(each.uses) for each in all_of_them)
    words = f"{formatting.quantity(number, 'instance')}, {formatting.number(active)} with events in 15 minutes"
    return f"{words}; {formatting.number(faults)} with a provider that cannot answer" if faults else words


_HEADINGS = (
    ("name", "Instance"),
    ("state", "Providers"),
    ("rate", "Answered a minute"),
    ("failures", "Failed in 15 min"),
    ("budget", "Calls this month"),
)


def _table(rows: Sequence[TenantRow], wanted: Mapping[str, str]) -> Html:
    sort = wanted.get("sort") or "name"

    def heading(key: str, words: str) -> Html:
        direction = "ascending" if key in ("name", "state") else "descending"
        link = h("a", words, href=address(PATH, wanted, sort=key, page=None))
        return h("th", link, scope="col", aria_sort=direction if key == sort else None)

    return h(
        "table",
        h("thead", h("tr", [heading(key, words) for key, words in _HEADINGS])),
        h("tbody", [_row(each) for each in rows]),
        class_="tenants",
        aria_labelledby="title",
    )


def _row(each: TenantRow) -> Html:
    counts = each.counts
    failed = h("span", formatting.number(counts.failed), class_="state bad" if counts.failed else "faint")
    share = f"{formatting.percentage(counts.failed / max(1, each.ended))} of {formatting.number(each.ended)}"
    return h(
        "tr",
        h("th", _name(each), scope="row"),
        h("td", _providers(each), class_="uses"),
        h(
            "td",
            h("span", formatting.number(counts.answered_last_minute), class_=None if counts.answered else "faint"),
            h("small", f"{formatting.number(counts.answered)} in 15 min") if counts.answered else None,
            data_head="a minute",
        ),
        h("td", failed, h("small", share) if counts.failed else None, data_head="failed"),
        h("td", _budgets(each), class_="budget", data_head="calls") if any(use.limit for use in each.uses) else h("td"),
    )


def _name(each: TenantRow) -> Child:
    if each.name == OTHER and not each.uses:
        return h("span", "all others, without settings of their own", class_="faint")
    return join(each.name, h("span", "off", class_="chip bad") if not each.enabled else None)


def _providers(each: TenantRow) -> Child:
    if not each.uses:
        return h("span", "none switched on", class_="faint") if each.name != OTHER else None
    return [_use(use) for use in each.uses]


def _use(use: Use) -> Html:
    name = _short_name(use)
    if use.unusable is not None:
        return h("span", name, h("small", use.unusable), class_="state bad")
    if use.circuit != CircuitState.CLOSED:
        return h("span", name, h("small", f"circuit {use.circuit.replace('_', ' ')}"), class_="state warn")
    return h("span", name, class_="state good")


def _short_name(use: Use) -> str:
    return _NAMES.get(use.provider, use.provider)


def _budgets(each: TenantRow) -> list[Html]:
    limited = [use for use in each.uses if use.limit]
    found = []
    for use in limited:
        used = formatting.UNKNOWN if use.used is None else formatting.number(use.used)
        severity = "bad" if use.budget >= 1 else "warn" if use.budget >= 0.9 else "good"
        of = h(
            "small",
            f"of {formatting.number(use.limit or 0)}{f' {_short_name(use)}' if len(limited) > 1 else ''}",
        )
        found.append(h("span", used, of, class_=f"state {severity}"))
    return found
