"""For which instances an event may speak: by what RabbitMQ vouches for at its first delivery, and by nothing else."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pika.spec import BasicProperties

from worker.amqp.origin import UNKNOWN, Origin, carried_origin, origin_on_arrival
from worker.amqp.pika_fixes import UnreadableProperties
from worker.settings import PublishersSettings

BOUND = PublishersSettings(users=("acme-dms", "acme-scan"), exchanges=("acme.images",), virtual_hosts=("/",))
ACME = Origin("acme-dms", "acme.images", "/")


def test_an_event_that_meets_every_list_may_speak() -> None:
    assert ACME.why_not_for("acme", BOUND) is None
    assert UNKNOWN.why_not_for("acme", PublishersSettings()) is None


@pytest.mark.parametrize(
    ("origin", "setting"),
    [
        (Origin("mallory", "acme.images", "/"), "users"),
        (Origin(None, "acme.images", "/"), "users"),
        (Origin("", "acme.images", "/"), "users"),
        (Origin("ACME-DMS", "acme.images", "/"), "users"),
        (Origin("acme-dms", "", "/"), "exchanges"),
        (Origin("acme-dms", "autotag.images", "/"), "exchanges"),
        (Origin("acme-dms", "acme.images", "other"), "virtual_hosts"),
        (UNKNOWN, "users"),
        (Origin("acme-dms", "acme.images", "/", "other"), "users"),
    ],
)
def test_an_event_that_misses_one_list_may_not(origin: Origin, setting: str) -> None:
    why = origin.why_not_for("acme", BOUND)
    assert why is not None
    assert f"`publishers.{setting}`" in why


def test_an_empty_list_lets_nobody_speak() -> None:
    assert ACME.why_not_for("acme", PublishersSettings(users=())) is not None


def test_an_origin_is_bound_to_the_instance_that_it_spoke_for_first() -> None:
    carried = carried_origin(ACME.as_header("acme"))
    assert carried == Origin("acme-dms", "acme.images", "/", "acme")
    assert carried.why_not_for("acme", BOUND) is None
    # A message's own headers may be changed by those who can read it: the name is another one then.
    assert carried.why_not_for("other", BOUND) is not None
    assert carried_origin(carried.as_header("other")) == carried


@pytest.mark.parametrize("header", [None, 7, "", "{", "[]", '{"user": 7}', "null", '{"user": {"a": "b"}}'])
def test_what_is_no_origin_vouches_for_nothing(header: object) -> None:
    assert carried_origin(header) == UNKNOWN


def test_a_user_that_is_no_text_or_that_pika_read_otherwise_than_rabbitmq_is_none() -> None:
    def user_of(properties: Any) -> str | None:
        return origin_on_arrival(properties, "images", "/").user

    assert user_of(BasicProperties(user_id="dms")) == "dms"
    assert user_of(BasicProperties()) is None
    assert user_of(BasicProperties(user_id=b"\xff")) is None
    assert origin_on_arrival(BasicProperties(), b"\xff", "/") == Origin(None, None, "/")
    with_user = struct.pack(">H", 1 << 4) + b"\x03dms"
    assert UnreadableProperties(ValueError(), with_user).user_id == "dms"
    assert user_of(UnreadableProperties(ValueError(), with_user)) is None
