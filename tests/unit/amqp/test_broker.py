"""What the broker asks of its outbox."""

from __future__ import annotations

import pytest

from worker.amqp.broker import Broker
from worker.amqp.outbox import Message, WayOut
from worker.amqp.topology import topology
from worker.messages import OutgoingMessage
from worker.settings import AmqpSettings


@pytest.mark.parametrize(("status", "late"), [("tagged", True), ("no_tags", True), ("failed", False)])
async def test_a_failed_result_is_not_published_after_its_event_was_given_up_since_that_may_be_tagged_yet(
    monkeypatch: pytest.MonkeyPatch, status: str, late: bool
) -> None:
    broker = Broker(AmqpSettings(), topology("test", (1,)), lambda _: None)
    published: list[tuple[WayOut, Message]] = []

    async def publish(way: WayOut, message: Message) -> None:
        published.append((way, message))

    monkeypatch.setattr(broker._outbox, "publish", publish)
    await broker.publish_result(OutgoingMessage(b"{}", "application/json", {}, "id", f"acme.{status}"))
    assert [(way, message.publishable_late) for way, message in published] == [(WayOut.RESULTS, late)]
