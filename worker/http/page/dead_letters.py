"""The dead letters tab: the list with its filter, one letter whole, and the question before many are changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from worker.amqp.dead_letters import DeadLetter, Looked
from worker.amqp.delivery import Ending
from worker.amqp.topology import Lane
from worker.diagnostics.advice import advice
from worker.http.dead_letter_image import has_image
from worker.http.page import formatting
from worker.http.page.markup import Child, Html, h, join
from worker.http.page.records import breakable
from worker.http.page.tables import address, choice_field, filters, paging, text_field
from worker.http.page.view import View
from worker.http.sessions import CSRF_FIELD

PATH = "dead-letters"
ONE = "dead-letter"
IMAGE = "dead-letter-image"
REPLAY = "replay-dead-letters"
PURGE = "purge-dead-letters"
PER_PAGE = 20

OUTCOMES = ("replayed", "purged", "without_image")
"""Counts that the address of the list may have, after a button was pressed."""

_MAXIMUM_CHOICES = 50
_MAXIMUM_EVENT_BYTES = 256 << 10
_MAXIMUM_EVENT_CHARACTERS = 8000
_MAXIMUM_VALUE_CHARACTERS = 300
_MAXIMUM_HEADERS = 60


# ── the list ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def listing(
    view: View,
    wanted: Mapping[str, str],
    found: Sequence[DeadLetter],
    looked: Looked,
    page: int,
    done: Mapping[str, str],
) -> Html:
    """The letters that match, a page of them, with what can be done to all."""
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(max(1, page), pages)
    shown = found[(page - 1) * PER_PAGE : page * PER_PAGE]
    first = (page - 1) * PER_PAGE + 1
    body: list[Child] = [_done(done), _reach(view, looked), _filter(wanted, looked)]
    if found:
        body += [
            _all_that_match(view, wanted, len(found)),
            h("ol", [_item(view, each) for each in shown], class_="failures letters"),
            paging(
                "Pages of dead letters",
                before=("Before", address(PATH, wanted, page=page - 1)) if page > 1 else None,
                after=("Next", address(PATH, wanted, page=page + 1)) if page < pages else None,
                between=f"{first} to {first + len(shown) - 1} of {formatting.number(len(found))}",
            ),
        ]
    else:
        nothing = "No dead letter is like this." if wanted else "There are no dead letters: every event could be done."
        body.append(h("p", nothing, class_="quiet"))
    return _section(body)


def _done(done: Mapping[str, str]) -> list[Html]:
    counts = {
        name: int(value) for name, value in done.items() if value.isascii() and value.isdigit() and len(value) < 9
    }
    notes = []
    if "replayed" in counts:
        words = f"{formatting.quantity(counts['replayed'], 'dead letter')} sent to the lanes again."
        notes.append(h("p", words, role="status", class_="notice good"))
    if "purged" in counts:
        words = f"{formatting.quantity(counts['purged'], 'dead letter')} purged."
        notes.append(h("p", words, role="status", class_="notice good"))
    if counts.get("without_image"):
        words = (
            f"{formatting.quantity(counts['without_image'], 'dead letter')} cannot be replayed: kept without image, "
            "too large for RabbitMQ. Have the DMS publish these events again, with the image by path or url."
        )
        notes.append(h("p", words, role="status", class_="notice warn"))
    return notes


def _reach(view: View, looked: Looked) -> list[Html]:
    """How much of the queue was looked at, where that is not all."""
    notes = []
    if looked.scanned < looked.total:
        words = (
            f"The oldest {formatting.number(looked.scanned)} of {formatting.number(looked.total)} are looked at here; "
            "the others follow as these go. `autotag dead-letters list` looks at all."
        )
        notes.append(h("p", words, class_="notice warn"))
    elif looked.total < view.queues.get("dead-letters", 0):
        words = "Somebody else is looking through the queue: load the page again in a moment."
        notes.append(h("p", words, class_="notice warn"))
    unmarked = sum(letter.unmarked for letter in looked.letters)
    if unmarked:
        words = (
            f"{formatting.quantity(unmarked, 'letter')} with headers that lack this installation's mark, which are "
            "ignored: another program wrote them, or a worker with another amqp.header_key or password."
        )
        notes.append(h("p", words, class_="notice warn"))
    return notes


def _filter(wanted: Mapping[str, str], looked: Looked) -> Html | None:
    if not looked.letters and not wanted:
        return None
    reasons = Counter(letter.reason for letter in looked.letters)
    instances = Counter(letter.instance for letter in looked.letters if letter.instance)
    return filters(
        PATH,
        _choice("reason", "Reason", wanted, reasons),
        _choice("instance", "Instance", wanted, instances),
        choice_field("lane", "Lane", wanted.get("lane"), [("", "any"), *((lane.value, lane.value) for lane in Lane)]),
        text_field("asset", "Asset", wanted.get("asset"), "its whole id"),
        is_filtered=bool(wanted),
        hidden={"id": wanted.get("id", "")},
    )


def _choice(name: str, label: str, wanted: Mapping[str, str], counts: Counter[str]) -> Html:
    """A choice of what there is, with its numbers; a field for text where that is too much."""
    value = wanted.get(name, "")
    if len(counts) > _MAXIMUM_CHOICES:
        return text_field(name, label, value)
    choices = [(each, f"{_short(each)} ({formatting.number(number)})") for each, number in counts.most_common()]
    if value and value not in counts:
        choices.append((value, f"{_short(value)} (0)"))
    return choice_field(name, label, value, [("", "any"), *choices])


def _all_that_match(view: View, wanted: Mapping[str, str], number: int) -> Html:
    count = formatting.quantity(number, "dead letter") + (" like this" if wanted else "")
    if view.csrf_token is None:
        return h("p", h("b", count), h("span", view.why_no_actions, class_="note"), class_="bulk")
    return h(
        "p",
        h("b", count),
        h("a", "Replay all…", href=address(PATH, wanted, confirm="replay"), class_="button"),
        h("a", "Purge all…", href=address(PATH, wanted, confirm="purge"), class_="button danger"),
        class_="bulk",
    )


def _item(view: View, letter: DeadLetter) -> Html:
    return h(
        "li",
        h(
            "p",
            h("code", letter.reason),
            h("b", breakable(letter.asset)) if letter.asset else h("span", "asset unknown", class_="faint"),
            h("span", letter.instance, class_="provider") if letter.instance else None,
            h("span", letter.lane.value, class_="chip") if letter.lane is not Lane.LIVE else None,
            h("time", letter.failed_at, datetime=letter.failed_at) if letter.failed_at else None,
            class_="head",
        ),
        h("p", letter.message, class_="message"),
        h(
            "div",
            h("a", "Show", href=address(ONE, {"id": letter.key}), aria_label=f"Show {letter.asset or letter.key}"),
            _replay(view, letter, "plain") if letter.left_out is None else None,
            h("code", letter.key, class_="faint"),
            class_="acts",
        ),
    )


def _replay(view: View, letter: DeadLetter, class_: str) -> Html | None:
    """The button that replays one letter."""
    if view.csrf_token is None:
        return None
    return h(
        "form",
        h("input", type="hidden", name=CSRF_FIELD, value=view.csrf_token),
        h("input", type="hidden", name="id", value=letter.key),
        h("button", "Replay", type="submit", class_=class_, aria_label=f"Replay {letter.asset or letter.key}"),
        action=REPLAY,
        method="post",
    )


# ── the question ─────────────────────────────────────────────────────────────────────────────────────────────────────


def question(
    view: View, operation: str, wanted: Mapping[str, str], found: Sequence[DeadLetter], looked: Looked
) -> Html:
    """Whether those that match are to be replayed or purged. What comes in meanwhile is not meant: it is the newest."""
    number = len(found)
    what = f"{'the' if number == 1 else 'these'} {formatting.quantity(number, 'dead letter')}"
    is_purge = operation == "purge"
    matching = ", ".join(f"{name} {value}" for name, value in wanted.items()) or "All that have been looked at"
    reasons = Counter(letter.reason for letter in found).most_common(8)
    return _section(
        [
            h("h2", f"Purge {what} for good?" if is_purge else f"Replay {what}?"),
            h("p", f"{matching}.", class_="quiet"),
            h(
                "ul",
                [h("li", h("code", reason), f" {formatting.times(count)}") for reason, count in reasons],
                class_="sum",
            ),
            h(
                "p",
                "Their events will be gone: no asset of theirs is tagged unless the DMS publishes them again."
                if is_purge
                else "They go to their lanes as if for the first time. Remove the cause first, or they come back.",
            ),
            _reach(view, looked),
            h(
                "form",
                h("input", type="hidden", name=CSRF_FIELD, value=view.csrf_token),
                [h("input", type="hidden", name=name, value=value) for name, value in wanted.items()],
                h("input", type="hidden", name="limit", value=number),
                h("input", type="hidden", name="confirmed", value="yes"),
                h(
                    "button",
                    f"{'Purge' if is_purge else 'Replay'} {formatting.number(number)}",
                    type="submit",
                    class_="danger" if is_purge else "primary",
                ),
                h("a", "Cancel", href=address(PATH, wanted), class_="button"),
                action=PURGE if is_purge else REPLAY,
                method="post",
                class_="confirm",
            ),
        ]
    )


# ── one letter ───────────────────────────────────────────────────────────────────────────────────────────────────────


def whole(view: View, letter: DeadLetter, *, has_thumbnail: bool) -> Html:
    """Everything about one letter: why, what to do, its image, its event and its headers."""
    image = None
    if has_thumbnail and has_image(letter):
        image = h("img", src=address(IMAGE, {"id": letter.key}), alt="", class_="thumb large", width=128, height=128)
    facts: list[tuple[str, Child]] = [
        ("Asset", letter.asset or formatting.UNKNOWN),
        ("Instance", letter.instance or formatting.UNKNOWN),
        ("Failed", letter.failed_at or formatting.UNKNOWN),
        ("Attempt", letter.attempt),
        ("Lane", letter.lane.value),
        ("Size", formatting.size(letter.size_bytes)),
        ("Id", h("code", letter.key)),
    ]
    if letter.left_out is not None:
        facts.append(("Left out", letter.left_out))
    return _section(
        [
            h("p", h("a", "All dead letters", href=PATH), class_="back"),
            h(
                "div",
                image,
                h(
                    "div",
                    h("h2", breakable(letter.asset) if letter.asset else "Asset unknown"),
                    h("p", h("code", letter.reason), class_="reason"),
                    h("p", letter.message, class_="message"),
                    h("p", h("b", "What to do"), " ", _advice(view, letter), class_="advice"),
                    _actions(view, letter),
                ),
                class_="letter",
            ),
            h("dl", [h("div", h("dt", name), h("dd", value)) for name, value in facts], class_="facts-of-letter"),
            h("h3", "The event"),
            h("pre", h("code", _lines(_event(letter))), tabindex=0),
            h("details", h("summary", "Headers"), h("pre", h("code", _lines(_headers(letter))), tabindex=0)),
        ]
    )


def _advice(view: View, letter: DeadLetter) -> str:
    if letter.left_out is not None:
        return "It was kept without its image. Have the DMS publish the event again, with the image by path or url."
    return advice(letter.reason, Ending.DEAD_LETTERED, view.actions)


def _actions(view: View, letter: DeadLetter) -> Html:
    if view.csrf_token is None:
        return h("p", view.why_no_actions, class_="note")
    purge = address(PATH, {"id": letter.key, "confirm": "purge"})
    return h(
        "div",
        _replay(view, letter, "primary") if letter.left_out is None else None,
        h("a", "Purge…", href=purge, class_="button danger"),
        class_="actions",
    )


def _lines(text: str) -> Html:
    """Several lines as they are: as one text, all but the first would be indented."""
    return join([line, Html("\n")] for line in text.split("\n"))


def _event(letter: DeadLetter) -> str:
    """The event as it can be read: JSON in lines, without the bytes of an image in it."""
    if len(letter.body) > _MAXIMUM_EVENT_BYTES:
        beginning = letter.body[:2000].decode(errors="replace")
        return f"{beginning}\n… {formatting.size(letter.size_bytes)} in all"
    try:
        event = _shortened(json.loads(letter.body))
        text = json.dumps(event, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = letter.body.decode(errors="replace")
    return text if len(text) <= _MAXIMUM_EVENT_CHARACTERS else f"{text[:_MAXIMUM_EVENT_CHARACTERS]}\n…"


def _shortened(value: object) -> object:
    match value:
        case str():
            return _short(value, _MAXIMUM_VALUE_CHARACTERS)
        case dict():
            return {name: _shortened(each) for name, each in value.items()}
        case list():
            return [_shortened(each) for each in value]
    return value


def _headers(letter: DeadLetter) -> str:
    headers = list((letter.properties.headers or {}).items())
    shown = [f"{name}: {_short(str(value), _MAXIMUM_VALUE_CHARACTERS)}" for name, value in headers[:_MAXIMUM_HEADERS]]
    about = [f"content type: {letter.properties.content_type or formatting.UNKNOWN}"]
    return "\n".join([*about, *shown])


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({formatting.number(len(text))} characters)"


# ── what is shown instead ────────────────────────────────────────────────────────────────────────────────────────────


def hidden(view: View) -> Html:
    """For a client that may not see assets."""
    return _section([h("p", view.why_no_assets, class_="quiet")])


def unreadable(view: View, why: str) -> Html:
    """Where the queue cannot be read, or not all could be done."""
    return _section([h("p", f"{why[:1].upper()}{why[1:]}.", role="alert", class_="notice bad")])


def missing(key: str) -> Html:
    """Where there is no such letter."""
    words = f"There is no dead letter {_short(key)} among the oldest: it has been replayed or purged, or is further on."
    return _section([h("p", words, class_="notice warn"), h("p", h("a", "All dead letters", href=PATH))])


def _section(body: Child) -> Html:
    return h(
        "section", h("h1", "Dead letters", id="title"), body, id="letters", class_="tab-page", aria_labelledby="title"
    )
