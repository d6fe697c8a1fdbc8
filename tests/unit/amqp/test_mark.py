"""Our own headers are believed only with their mark, which fits one body, one message id and these headers alone."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import BasicProperties
from pydantic import ValidationError
from structlog.testing import capture_logs

from worker.amqp.mark import MARK_HEADER, OWN_PREFIX, HeaderCheck, HeaderMark, is_guessable
from worker.amqp.pika_fixes import UNREADABLE_HEADER, UnreadableProperties
from worker.settings import AmqpSettings

MARK = HeaderMark(b"a key")
BODY = b'{"asset_id": "42"}'
OURS: dict[str, object] = {"x-autotag-attempt": 2, "x-autotag-answers": "[]"}
KEY = "k" * 32

VALUES = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.binary(), st.none())
HEADERS = st.dictionaries(st.text(max_size=20).map(lambda rest: OWN_PREFIX + rest), VALUES, min_size=1, max_size=4)


def marked(headers: dict[str, object] | None = None, body: bytes = BODY, message_id: str | None = "m") -> Any:
    properties = BasicProperties(headers={"traceparent": "t"} | (OURS if headers is None else headers))
    properties.message_id = message_id
    MARK.put_on(properties, body)
    return properties


def with_headers(properties: Any, **changes: object) -> Any:
    """The same properties with headers set; None removes one."""
    headers = properties.headers | {name.replace("_", "-"): value for name, value in changes.items()}
    kept = {name: value for name, value in headers.items() if value is not None}
    return BasicProperties(headers=kept, message_id=properties.message_id)


def over_the_wire(properties: Any) -> Any:
    return BasicProperties().decode(b"".join(properties.encode()))


def settings(url: str = "amqp://autotag:secret@host/", **more: object) -> AmqpSettings:
    return AmqpSettings.model_validate({"url": url, **more})


# ── the mark ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_marked_is_recognised_after_its_way_through_the_broker() -> None:
    arrived = over_the_wire(marked())
    arrived.headers |= {"x-death": [{"count": 1}], "x-delivery-count": 3}  # RabbitMQ adds headers of its own
    assert MARK.is_on(arrived, BODY)


def test_headers_of_the_publisher_may_change() -> None:
    assert MARK.is_on(with_headers(marked(), traceparent="other", ce_id="7"), BODY)


def test_without_a_mark_or_with_any_other_value_in_its_place_nothing_is_believed() -> None:
    properties = marked()
    upper = properties.headers[MARK_HEADER].upper()
    others: list[object] = [None, "", "0" * 64, upper, b"x", 7, True, [], {}, "\ud800", "é" * 64]
    for value in others:
        assert not MARK.is_on(with_headers(properties, x_autotag_mark=value), BODY), value


def test_every_bit_of_mark_body_and_id_counts() -> None:
    properties = marked()
    mark = properties.headers[MARK_HEADER].encode()
    for bit in range(len(mark) * 8):
        flipped = bytearray(mark)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not MARK.is_on(with_headers(properties, x_autotag_mark=flipped.decode("latin-1")), BODY)
    for bit in range(len(BODY) * 8):
        body = bytearray(BODY)
        body[bit // 8] ^= 1 << bit % 8
        assert not MARK.is_on(properties, bytes(body))
    for message_id in ("n", "M", "", "m ", None):
        properties.message_id = message_id
        assert not MARK.is_on(properties, BODY)


@pytest.mark.parametrize(
    "changes",
    [
        {"x_autotag_asset": "42"},
        {"x_autotag_answers": None},
        {"x_autotag_attempt": 3},
        {"x_autotag_attempt": "2"},
        {"x_autotag_attempt": True},
        {"x_autotag_answers": b"[]"},
        {"x_autotag_answers": None, "x_autotag_answerz": "[]"},
        {"x_autotag_answers": 2, "x_autotag_attempt": "[]"},
        {"x_autotag_answers": {"nested": ["[]"]}},
        {"x_autotag_more": [1]},
        {"x_autotag_more": Decimal(1)},
        {"x_autotag_more": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)},
    ],
    ids=str,
)
def test_no_header_of_ours_can_be_changed_added_removed_or_renamed(changes: dict[str, object]) -> None:
    assert not MARK.is_on(with_headers(marked(), **changes), BODY)


def test_values_cannot_be_moved_from_one_header_into_the_next() -> None:
    one = marked({"x-autotag-a": "1x-autotag-b", "x-autotag-c": "2"})
    two = marked({"x-autotag-a": "1", "x-autotag-b": "x-autotag-c2"})
    assert one.headers[MARK_HEADER] != two.headers[MARK_HEADER]


def test_a_mark_of_another_key_is_none() -> None:
    assert not HeaderMark(b"another key").is_on(marked(), BODY)


def test_a_message_that_is_marked_again_is_marked_as_it_is_now() -> None:
    properties = marked()
    properties.headers["x-autotag-attempt"] = 3
    MARK.put_on(properties, BODY)
    assert MARK.is_on(properties, BODY)


def test_we_never_mark_what_we_could_not_recognise_again() -> None:
    with pytest.raises(TypeError, match="text or a whole number, not dict"):
        marked({"x-autotag-answers": {"a": 1}})


@given(headers=HEADERS, body=st.binary(), message_id=st.none() | st.text(max_size=50))
def test_whatever_was_marked_is_recognised(headers: dict[str, object], body: bytes, message_id: str | None) -> None:
    assert MARK.is_on(over_the_wire(marked(headers, body, message_id)), body)


@given(before=HEADERS, after=HEADERS, body=st.binary(max_size=20), other=st.binary(max_size=20))
def test_any_change_is_noticed(before: dict[str, object], after: dict[str, object], body: bytes, other: bytes) -> None:
    before.pop(MARK_HEADER, None)
    after.pop(MARK_HEADER, None)
    changed = BasicProperties(headers=after | {MARK_HEADER: marked(before, body).headers[MARK_HEADER]}, message_id="m")
    same = body == other and {k: (type(v), v) for k, v in before.items()} == {k: (type(v), v) for k, v in after.items()}
    assert MARK.is_on(changed, other) == same


# ── the key ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_workers_with_the_same_password_or_key_recognise_each_other() -> None:
    def accepts(one: AmqpSettings, other: AmqpSettings) -> bool:
        properties = BasicProperties(headers=dict(OURS))
        HeaderMark.of(one).put_on(properties, BODY)
        return HeaderMark.of(other).is_on(properties, BODY)

    in_url = settings()
    assert accepts(in_url, settings("amqps://autotag@other-host:5671/vh", password="secret", prefetch=3))
    assert not accepts(in_url, settings(password="changed"))
    assert not accepts(in_url, settings(queue_prefix="other"))
    assert accepts(settings(header_key=KEY), settings(header_key=KEY, password="changed"))
    assert not accepts(settings(header_key=KEY), settings(header_key=KEY.upper()))
    assert not accepts(in_url, settings(header_key=KEY))


def test_a_key_made_of_a_password_that_everybody_knows_is_guessable() -> None:
    assert is_guessable(AmqpSettings())
    assert is_guessable(settings("amqp://host/"))
    assert is_guessable(settings(password=""))
    assert not is_guessable(settings())
    assert not is_guessable(AmqpSettings.model_validate({"header_key": KEY}))


def test_a_short_key_is_refused_and_no_key_is_shown() -> None:
    with pytest.raises(ValidationError):
        settings(header_key="short")
    assert KEY not in repr(settings(header_key=KEY))


# ── on arrival ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_headers_of_ours_without_the_mark_are_dropped_and_all_others_stay() -> None:
    check = HeaderCheck(MARK)
    headers = {"traceparent": "t", "x-death": [], b"x-autotag-\xff": 1, "x-autotag-attempt": 99, "x-autotag-": {}}
    forged = pika.BasicProperties(headers=headers)
    check.on_arrival(forged, BODY)
    assert forged.headers == {"traceparent": "t", "x-death": [], b"x-autotag-\xff": 1}
    assert check.unmarked == 1


def test_marked_headers_and_messages_without_any_of_ours_are_left_as_they_are() -> None:
    check = HeaderCheck(MARK)
    for properties in (marked(), BasicProperties(), BasicProperties(headers={"traceparent": "t"})):
        before = properties.headers
        check.on_arrival(properties, BODY)
        assert properties.headers is before
    assert check.unmarked == 0


def test_the_note_about_unreadable_properties_is_kept_only_where_it_was_made_here() -> None:
    check = HeaderCheck(MARK)
    made_here = UnreadableProperties(ValueError("year 55840 is out of range" + "!" * 1000))
    check.on_arrival(made_here, BODY)
    assert made_here.headers[UNREADABLE_HEADER].startswith("ValueError: year 55840 is out of range")
    assert len(made_here.headers[UNREADABLE_HEADER]) == 300
    forged = BasicProperties(headers={UNREADABLE_HEADER: "ValueError: none of it"})
    check.on_arrival(forged, BODY)
    assert forged.headers == {}


def test_dropped_headers_are_logged_at_most_once_a_minute() -> None:
    clock = Clock()
    check = HeaderCheck(MARK, clock)
    with capture_logs() as logged:
        for seconds in (0, 1, 58, 1, 1):
            clock.now_s += seconds
            check.on_arrival(BasicProperties(headers={OWN_PREFIX + "x" * 500: 1}), BODY)
    assert [line["messages"] for line in logged] == [1, 3]
    assert len(logged[0]["headers"][0]) == 100
    assert check.unmarked == 5
