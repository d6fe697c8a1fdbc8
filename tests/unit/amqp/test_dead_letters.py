"""What a dead letter's headers say is shown only if they carry our mark, and only if it is what we write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import BasicProperties

from worker.amqp.dead_letters import UNMARKED, DeadLetter, _read
from worker.amqp.mark import HeaderMark
from worker.amqp.origin import ORIGIN_HEADER, Origin
from worker.amqp.topology import Lane

MARK = HeaderMark(b"a key")
ARRIVED_FROM = Origin("dms", "autotag.dead", "/")
HEADERS: dict[str, object] = {
    "x-autotag-reason": "image_truncated",
    "x-autotag-message": "why",
    "x-autotag-asset": "42",
    "x-autotag-instance": "acme",
    "x-autotag-failed-at": "2026-05-17T12:30:15+00:00",
    "x-autotag-attempt": 4,
    "x-autotag-lane": "bulk",
}


def read(headers: dict[str, object], *, marked: bool = True) -> DeadLetter:
    properties = BasicProperties(headers=headers, message_id="m")
    if marked:
        MARK.put_on(properties, b"body")
    return _read("live", properties, b"body", MARK, ARRIVED_FROM)


def about(letter: DeadLetter) -> tuple[Any, ...]:
    return letter.reason, letter.asset, letter.instance, letter.failed_at, letter.attempt, letter.lane


def test_a_marked_letter_is_believed() -> None:
    letter = read(HEADERS)
    assert about(letter) == ("image_truncated", "42", "acme", "2026-05-17T12:30:15+00:00", 4, Lane.BULK)
    assert (letter.message, letter.unmarked) == ("why", False)


def test_an_unmarked_letter_is_reported_as_unmarked() -> None:
    letter = read(HEADERS, marked=False)
    assert about(letter) == (UNMARKED, None, None, None, 1, Lane.LIVE)
    assert letter.unmarked
    assert "do not carry this installation's mark" in letter.message


def test_an_unmarked_letter_that_rabbitmq_set_aside_has_the_reason_of_rabbitmq() -> None:
    letter = read(HEADERS | {"x-death": [{"reason": "delivery_limit"}]}, marked=False)
    assert (letter.reason, letter.message) == ("delivery_limit", "set aside by RabbitMQ itself: delivery_limit")
    assert (letter.asset, letter.unmarked) == (None, True)


@pytest.mark.parametrize("deaths", [None, "nonsense", [], [7], [{}], [{"reason": "\x1b[2J"}], [{"reason": "x" * 101}]])
def test_without_any_header_of_ours_or_a_readable_reason_the_reason_is_unknown(deaths: object) -> None:
    letter = read({"x-death": deaths}, marked=False)
    assert about(letter) == ("unknown", None, None, None, 1, Lane.LIVE)
    assert not letter.unmarked


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("reason", "\x1b[2J"),
        ("reason", "x" * 101),
        ("asset", "x" * 1025),
        ("asset", "a\nb"),
        ("instance", "../acme"),
        ("failed-at", "yesterday"),
        ("attempt", 10**12),
        ("attempt", -1),
        ("lane", "express"),
    ],
)
def test_a_marked_value_that_we_would_not_write_is_left_out(header: str, value: object) -> None:
    assert value not in about(read(HEADERS | {f"x-autotag-{header}": value}))


def test_the_message_is_cut() -> None:
    assert len(read(HEADERS | {"x-autotag-message": "m" * 5000}).message) == 1000


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*HEADERS, "x-autotag-mark", "x-death"]), VALUE))
def test_no_header_of_another_program_stops_the_list(headers: dict[str, object]) -> None:
    letter = read(headers, marked=False)
    assert (letter.asset, letter.instance, letter.attempt) == (None, None, 1)


def test_where_an_event_came_from_is_believed_with_the_mark_alone() -> None:
    first = Origin("acme-dms", "acme.images", "/", "acme")
    headers = HEADERS | {ORIGIN_HEADER: first.as_header(None)}
    assert read(headers).origin == first
    assert read(headers, marked=False).origin == ARRIVED_FROM
    assert read({}, marked=False).origin == ARRIVED_FROM
