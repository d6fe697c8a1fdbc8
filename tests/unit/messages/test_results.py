"""Results: one id per outcome, equal bytes for equal outcomes, and readable by the official package."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import amqp
from hypothesis import given
from hypothesis import strategies as st

from worker.messages import (
    Event,
    ImageFacts,
    ProviderReport,
    Tag,
    UnreadableEvent,
    comparable,
    read_result,
    result_data,
    write_result,
)
from worker.messages.examples import EVENT, FAILED, SKIPPED, TAGGED
from worker.messages.fields import is_instance_name
from worker.messages.results import NAMESPACE

UPLOAD = Event.model_validate_json(json.dumps(EVENT))
LATER = datetime(2031, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("instance", "key"),
    [("acme", "acme.tagged"), ("acme.tagged", "acme:tagged.tagged"), ("a..b.", "a::b:.tagged")],
)
def test_an_instance_is_one_word_of_the_routing_key_and_speaks_as_no_other(instance: str, key: str) -> None:
    result = replace(TAGGED, instance=instance)

    message = write_result(result, event=UPLOAD, settings_digest="s", source="autotag", time=LATER)

    assert message.routing_key == key


def test_the_longest_name_of_an_instance_fits_into_a_routing_key() -> None:
    longest = "a" + "." * 99

    result = replace(TAGGED, instance=longest)
    message = write_result(result, event=UPLOAD, settings_digest="s", source="autotag", time=LATER)

    assert is_instance_name(longest)
    assert not is_instance_name(longest + ".")
    assert len(message.routing_key.encode()) <= 255


def test_a_result_is_published_as_a_structured_cloudevent_under_its_instance_and_status() -> None:
    message = write_result(TAGGED, event=UPLOAD, settings_digest="s", source="autotag/eu", time=LATER)
    envelope = json.loads(message.body)

    assert (message.routing_key, message.content_type) == ("acme.tagged", "application/cloudevents+json")
    assert envelope["id"] == message.message_id
    assert (envelope["type"], envelope["source"]) == ("dms.image.tagged.v1", "autotag/eu")
    assert (envelope["subject"], envelope["time"]) == ("34817", "2031-02-03T00:00:00.000Z")
    assert envelope["traceparent"] == message.headers["traceparent"] == UPLOAD.traceparent
    assert envelope["data"] == result_data(TAGGED)


def test_the_official_package_reads_what_is_published() -> None:
    message = write_result(TAGGED, event=UPLOAD, settings_digest="s")

    event = amqp.from_amqp_event(
        amqp.AMQPMessage({"content-type": message.content_type}, dict(message.headers), message.body)
    )

    assert (event.get_id(), event.get_type(), event.get_subject()) == (
        message.message_id,
        "dms.image.tagged.v1",
        "34817",
    )
    assert event.get_data() == result_data(TAGGED)


def test_a_result_reads_back_as_it_was_written() -> None:
    for result in (TAGGED, SKIPPED, FAILED):
        assert read_result(write_result(result, event=UPLOAD, settings_digest="s").body) == result


def test_what_is_not_a_result_is_refused() -> None:
    with pytest.raises(ValueError, match="type"):
        read_result(json.dumps(EVENT).encode())


def test_tags_are_best_first_and_ties_by_name_with_four_decimals() -> None:
    tags = (Tag("b", 0.12344, "p"), Tag("Best", 0.9, "p"), Tag("A", 0.12341, "p"), Tag("a", 0.12342, "p"))

    found = result_data(replace(TAGGED, tags=tags))["tags"]

    assert [(tag["name"], tag["confidence"]) for tag in found] == [
        ("Best", 0.9),
        ("A", 0.1234),
        ("a", 0.1234),
        ("b", 0.1234),
    ]


def test_only_measured_values_differ_between_two_results_of_one_event() -> None:
    # Given the same outcome, produced a second time at another time and speed
    slower = replace(TAGGED, providers=(replace(TAGGED.providers[0], duration_s=9.9),))
    first = write_result(TAGGED, event=UPLOAD, settings_digest="s")
    second = write_result(slower, event=UPLOAD, settings_digest="s", time=LATER)
    # Then it has the same id, and the same bytes except for the times
    assert first.message_id == second.message_id
    assert first.body != second.body
    assert comparable(first.body) == comparable(second.body)
    assert comparable(first.body) != comparable(write_result(SKIPPED, event=UPLOAD, settings_digest="s").body)


@pytest.mark.parametrize(
    "change",
    [
        {"asset_id": "2"},
        {"instance": "other"},
        {"event_id": "e2"},
        {"status": "no_tags"},
        {"reason": "x"},
        {"complete": False},
        {"image": ImageFacts("PNG", 451, 300, "0" * 64)},
        {"image": None},
        {"providers": (ProviderReport("tensorflow", "ok", model="another"),)},
        {"providers": (ProviderReport("tensorflow", "unavailable", model="efficientnet-lite2"),)},
        {"providers": (ProviderReport("tensorflow", "ok", "noted", model="efficientnet-lite2"),)},
        {"providers": (ProviderReport("tensorflow", "ok", message="noted", model="efficientnet-lite2"),)},
        {"providers": ()},
        {"message": "another sentence"},
        {"tags": (Tag("cat", 0.5, "google_cloud_vision"),)},
    ],
)
def test_the_id_changes_with_every_byte_that_is_not_measured(change: dict[str, Any]) -> None:
    before = write_result(TAGGED, event=UPLOAD, settings_digest="s")
    after = write_result(replace(TAGGED, **change), event=UPLOAD, settings_digest="s")

    assert comparable(after.body) != comparable(before.body)
    assert after.message_id != before.message_id


def test_values_that_are_published_alike_have_one_id() -> None:
    """Confidences that differ past the last decimal, and tags in another order, are the same bytes."""
    tags = (Tag("a", 0.50001, "p"), Tag("b", 0.7, "p"))
    alike = (Tag("b", 0.70004, "p"), Tag("a", 0.5, "p"))
    first, second = (
        write_result(replace(TAGGED, tags=each), event=UPLOAD, settings_digest="s", time=LATER)
        for each in (tags, alike)
    )
    assert (first.message_id, first.body) == (second.message_id, second.body)


def test_the_id_changes_with_the_settings_and_the_publisher() -> None:
    ids = {
        write_result(TAGGED, event=event, settings_digest=digest).message_id
        for event in (UPLOAD, UPLOAD.model_copy(update={"source": "/other"}), None)
        for digest in ("s", "t")
    }

    assert len(ids) == 6


def test_the_id_is_pinned_since_every_version_must_derive_the_same() -> None:
    assert uuid.uuid5(uuid.NAMESPACE_URL, "urn:autotag:results") == NAMESPACE
    assert write_result(TAGGED, event=UPLOAD, settings_digest="s").message_id == "0c8f77a4-9098-5347-b63b-7fd02b7c4485"


def test_an_event_that_could_not_be_read_still_gets_a_result() -> None:
    error = UnreadableEvent("no content", reason="event_invalid", asset_id="42")

    message = write_result(error.result(), event=None, settings_digest="s")

    assert message.routing_key == "default.failed"
    assert message.headers == {}
    assert json.loads(message.body)["data"]["event_id"] is None


def test_a_file_name_that_is_not_utf_8_does_not_break_the_result() -> None:
    message = write_result(replace(FAILED, message="the file b\udcffd.jpg"), event=UPLOAD, settings_digest="s")

    assert read_result(message.body).message == "the file b?d.jpg"


@given(st.lists(st.tuples(st.text(max_size=5), st.floats(0, 1)), max_size=20))
def test_the_order_of_tags_does_not_depend_on_the_order_of_the_input(pairs: list[tuple[str, float]]) -> None:
    tags = tuple(Tag(name, confidence, "p") for name, confidence in pairs)

    assert result_data(replace(TAGGED, tags=tags)) == result_data(replace(TAGGED, tags=tags[::-1]))
