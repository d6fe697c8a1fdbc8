"""The properties that a delivery's replacement keeps, adds and drops."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from worker.amqp.delivery import ATTEMPT_HEADER, Delivery
from worker.amqp.mark import MARK_HEADER, HeaderMark
from worker.amqp.republish import dead_letter_properties, replay_properties, retry_properties, without_image
from worker.amqp.topology import Lane

NOW = datetime(2026, 5, 17, 12, 30, 15, 999, tzinfo=UTC)
MARK = HeaderMark(b"a key")


class RecordingSettler:
    """Records how deliveries are settled."""

    is_open = True

    def __init__(self) -> None:
        self.verbs: list[tuple[str, int]] = []

    def ack(self, tag: int) -> None:
        self.verbs.append(("ack", tag))

    def requeue(self, tag: int) -> None:
        self.verbs.append(("requeue", tag))

    def reject(self, tag: int) -> None:
        self.verbs.append(("reject", tag))


def delivery(settler: RecordingSettler | None = None, **properties: Any) -> Delivery:
    made = pika.BasicProperties(**properties)
    return Delivery(b"body", made, Lane.BULK, 7, False, 0.0, settler or RecordingSettler())


def dead_letter(of: Delivery, message: str = "why") -> pika.BasicProperties:
    return dead_letter_properties(of, "reason", message, asset="42", instance=None, headers={}, now=NOW, mark=MARK)


def retry(of: Delivery, headers: dict[str, object] | None = None, *, attempt: int = 1) -> pika.BasicProperties:
    return retry_properties(of, headers or {}, attempt=attempt, mark=MARK)


def without_mark(made: pika.BasicProperties) -> dict[str, object]:
    """The headers of a message of ours, once its mark was found to be right."""
    assert MARK.is_on(made, b"body")
    return {name: value for name, value in made.headers.items() if name != MARK_HEADER}


def test_what_the_publisher_set_is_kept() -> None:
    properties: dict[str, Any] = {
        "content_type": "image/jpeg",
        "content_encoding": "identity",
        "message_id": "m",
        "correlation_id": "c",
        "reply_to": "r",
        "type": "t",
        "app_id": "a",
        "timestamp": 1,
        "priority": 3,
    }
    headers = {"cloudEvents:id": "1", "traceparent": "00-1-2-01", "nested": {"list": [1, None, True]}}
    made = retry(delivery(headers=headers, **properties), attempt=2)
    assert {name: getattr(made, name) for name in properties} == properties
    assert without_mark(made) == headers | {"x-autotag-attempt": 2}
    assert made.delivery_mode == 2


def test_what_concerned_only_the_delivery_is_dropped() -> None:
    headers = {
        "x-death": [{"count": 1}],
        "x-first-death-queue": "q",
        "x-last-death-reason": "expired",
        "x-delivery-count": 3,
        "CC": ["other"],
        b"\xff": "no text",
    }
    made = retry(delivery(headers=headers, user_id="dms", expiration="1000"), attempt=1)
    assert without_mark(made) == {"x-autotag-attempt": 1}
    assert made.user_id is None
    assert made.expiration is None


def test_a_dead_letter_holds_reason_time_and_asset() -> None:
    made = dead_letter(delivery(headers={"x-autotag-attempt": 4, "traceparent": "t"}))
    assert without_mark(made) == {
        "traceparent": "t",
        "x-autotag-reason": "reason",
        "x-autotag-message": "why",
        "x-autotag-failed-at": "2026-05-17T12:30:15+00:00",
        "x-autotag-attempt": 4,
        "x-autotag-lane": "bulk",
        "x-autotag-asset": "42",
    }


def test_a_replayed_event_keeps_no_header_of_its_past_but_where_it_came_from() -> None:
    past = dead_letter(delivery(headers={"traceparent": "t", "x-autotag-answers": "[]"}, message_id="m"))
    past.headers["x-death"] = []
    made = replay_properties(past, b"body", origin="{}", mark=MARK)
    assert without_mark(made) == {"traceparent": "t", "x-autotag-origin": "{}"}
    assert made.message_id == "m"


def test_answers_are_kept_by_a_second_retry_and_marked_again() -> None:
    first = retry(delivery(message_id="m"), {"x-autotag-answers": "[]"}, attempt=2)
    second = retry(delivery(headers=first.headers, message_id="m"), attempt=3)
    assert without_mark(second) == {"x-autotag-attempt": 3, "x-autotag-answers": "[]"}


def test_what_describes_an_earlier_dead_letter_is_not_taken_over() -> None:
    earlier = dead_letter(delivery(headers={"x-autotag-instance": "acme"}))
    earlier.headers |= {"x-autotag-instance": "acme", "x-autotag-asset": "7"}
    assert without_mark(retry(delivery(headers=earlier.headers))) == {"x-autotag-attempt": 1}
    assert "x-autotag-instance" not in without_mark(dead_letter(delivery(headers=earlier.headers)))


def test_headers_too_large_for_a_frame_give_way_to_ours() -> None:
    made = dead_letter(delivery(headers={"huge": "x" * 130_000}, message_id="m"))
    assert "huge" not in without_mark(made)
    assert made.headers["x-autotag-reason"] == "reason"
    assert made.message_id == "m"


@pytest.mark.parametrize(
    ("header", "attempt"),
    [
        (None, 1),
        (1, 1),
        (3, 3),
        (0, 1),
        (-5, 1),
        (1000, 1000),
        (1001, 1),
        (2**62, 1),
        ("4", 1),
        (True, 1),
        (b"2", 1),
        ([2], 1),
    ],
)
def test_an_attempt_that_is_no_number_is_the_first(header: object, attempt: int) -> None:
    assert delivery(headers={} if header is None else {"x-autotag-attempt": header}).attempt == attempt


def test_properties_that_are_not_utf8_are_read_as_far_as_they_can_be() -> None:
    it = delivery(content_type=b"text/\xff", message_id=b"\xffm", headers={b"\xff": 1, "fine": 2})
    assert it.content_type == "text/\N{REPLACEMENT CHARACTER}"
    assert it.message_id == "\N{REPLACEMENT CHARACTER}m"
    assert it.headers == {"fine": 2}


def test_a_delivery_is_settled_exactly_once() -> None:
    settler = RecordingSettler()
    it = delivery(settler)
    assert not it.settled
    it.requeue()
    assert it.settled
    with pytest.raises(RuntimeError):
        it.ack()
    assert settler.verbs == [("requeue", 7)]


def test_what_cannot_be_written_again_costs_the_publishers_properties_and_not_the_message() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    of = delivery(message_id="m", content_type="text/plain", app_id="dms", headers={"deep": deep, "kept": "no"})
    made = retry_properties(of, {}, attempt=2, mark=MARK)
    assert (made.message_id, made.content_type, made.app_id) == ("m", "text/plain", None)
    assert set(made.headers) == {ATTEMPT_HEADER, MARK_HEADER}
    assert MARK.is_on(made, of.body)
    made.encode()


@pytest.mark.parametrize(
    ("body", "maximum_bytes", "expected"),
    [
        (
            b'{"data": {"content": {"base64": "AAAA"}, "asset_id": "a"}}',
            100,
            b'{"data": {"content": {}, "asset_id": "a"}}',
        ),
        (b'{"content": {"base64": "AAAA"}}', None, b'{"content": {}}'),
        (b'{"data": {"content": {"base64": "AAAA"}, "asset_id": "a"}}', 10, b""),
        (b"\xff\xd8\xff an image", 100, b""),
        (b"[" * 100_000, 100, b""),
        (b'{"data": 1}', 100, b'{"data": 1}'),
    ],
)
def test_an_event_without_its_image(body: bytes, maximum_bytes: int | None, expected: bytes) -> None:
    assert without_image(body, maximum_bytes=maximum_bytes) == expected
