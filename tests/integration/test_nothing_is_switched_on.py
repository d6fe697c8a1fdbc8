"""A service without any provider that is switched on: events wait for one, however the settings come to be so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import google_table, key, picture
from tests.support.fake_google import FakeGoogle
from tests.support.polling import until
from tests.support.service import inline
from tests.support.tenants import Tenancy, tenancy

REASON = "nothing_switched_on"


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    with FakeGoogle(key("acme")) as service:
        yield service


def on(google: FakeGoogle) -> dict[str, Any]:
    return {"acme": {"google_cloud_vision": google_table(google.url, key("acme"))}}


def waits(it: Tenancy) -> bool:
    """Whether the service says that nothing is switched on, wherever it says why it takes no events."""
    status = it.service.status() or {}
    return status.get("reason") == REASON and [each["reason"] for each in status["broker"]["pauses"]] == [REASON]


def test_events_wait_until_a_provider_is_switched_on_and_again_when_the_last_is_off(
    broker: str, google: FakeGoogle, tmp_path: Path
) -> None:
    with tenancy(broker, f"test-nothing-on-{os.getpid()}", tmp_path, instances=on(google)) as it:
        (answered,) = it.one_result(it.dms.publish(inline(picture(1)), instance="acme"))
        assert answered["status"] == "tagged"
        # Given that the last provider was switched off
        it.reload(instances={"acme": {}})
        until(lambda: waits(it), "it says that nothing is switched on")
        # When events come
        events = [it.dms.publish(inline(picture(number)), instance=name) for number in (2, 3) for name in ("acme", "x")]
        # Then they stay in their queue, and the metric has the reason
        until(lambda: it.dms.depth("images.live") == len(events), "all events are in their queue")
        assert waits(it)
        assert it.dms.depth("results") == 0
        assert "none is switched on: events wait in their queue" in it.service.autotag("status").stdout
        assert "no events are taken" in it.service.logged()
        assert "while_nothing_is_switched_on" in it.service.logged()
        # Where they are to be skipped, they are
        it.reload(while_nothing_is_switched_on="skip")
        results = it.one_result(*events)
        assert {(each["status"], each["reason"]) for each in results} == {("skipped", "no_provider_enabled")}
        assert "none is switched on: every event is answered `skipped`" in it.service.autotag("status").stdout
        # And where they wait, the next provider that is switched on gets them
        it.reload(while_nothing_is_switched_on="wait")
        until(lambda: waits(it), "it waits again")
        event = it.dms.publish(inline(picture(4)), instance="acme")
        it.reload(instances=on(google))
        (answered,) = it.one_result(event)
        assert answered["status"] == "tagged"
        # While an instance that is switched off goes on being answered
        it.reload(instances={"acme": on(google)["acme"] | {"enabled": False}})
        (answered,) = it.one_result(it.dms.publish(inline(picture(5)), instance="acme"))
        assert (answered["status"], answered["reason"]) == ("skipped", "instance_disabled")
