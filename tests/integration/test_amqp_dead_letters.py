"""Dead letters are listed, shown, replayed and purged, on a real broker; those not selected stay as they were."""

from __future__ import annotations

import pytest

from tests.support.serving import Serving, open_operator, serving, settings_for
from worker.amqp.dead_letters import DeadLetters, Selection
from worker.amqp.delivery import Delivery
from worker.amqp.mark import MARK_HEADER
from worker.amqp.origin import ORIGIN_HEADER
from worker.amqp.topology import DELIVERY_LIMIT, Lane
from worker.errors import Misconfigured
from worker.settings import AmqpSettings


@pytest.fixture
def settings(broker: str) -> AmqpSettings:
    return settings_for(broker)


async def dead_letter(it: Serving, message_id: str, reason: str, *, asset: str, lane: Lane = Lane.LIVE) -> None:
    await it.publish_event(message_id, f"body of {message_id}".encode(), lane)
    delivery = await it.next()
    await it.broker.dead_letter(delivery, reason, f"{asset} could not be done", asset=asset, instance="acme")
    delivery.ack()


async def three_letters(it: Serving) -> DeadLetters:
    await dead_letter(it, "one", "image_truncated", asset="1")
    await dead_letter(it, "two", "image_truncated", asset="2", lane=Lane.BULK)
    await dead_letter(it, "three", "source_gone", asset="3")
    return DeadLetters(it.settings, it.topology)


async def test_letters_are_listed_oldest_first_and_stay(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        letters = await three_letters(it)
        seen: list[tuple[int, int]] = []
        for _ in range(2):
            listed = await letters.browse(Selection(), lambda done, total: seen.append((done, total)))
            assert [letter.key for letter in listed] == ["one", "two", "three"]
        assert seen == [(1, 3), (2, 3), (3, 3)] * 2
        first = listed[0]
        assert (first.reason, first.message) == ("image_truncated", "1 could not be done")
        assert (first.asset, first.instance, first.lane, first.attempt) == ("1", "acme", Lane.LIVE, 1)
        assert first.failed_at is not None
        assert (first.body, first.size_bytes) == (b"", len(b"body of one"))
        await it.depth_becomes(it.topology.dead_letters_queue, 3)


async def test_browsing_more_often_than_the_delivery_limit_loses_nothing(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        letters = await three_letters(it)
        for _ in range(DELIVERY_LIMIT + 5):
            assert len(await letters.browse(Selection(limit=2))) == 2
        assert len(await letters.browse(Selection())) == 3


async def test_one_letter_is_shown_whole(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        letters = await three_letters(it)
        letter = await letters.show("three")
        assert letter is not None
        assert letter.body == b"body of three"
        assert await letters.show("four") is None
        await it.depth_becomes(it.topology.dead_letters_queue, 3)


async def test_a_letter_is_found_by_its_key_or_by_an_unambiguous_beginning_of_it(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        for key in ("abcd-1", "abcd-12", "abce-3", "abcf-4", "abcf-4"):
            await dead_letter(it, key, "image_truncated", asset="1")
        letters = DeadLetters(it.settings, it.topology)

        async def meant(start: str) -> list[str]:
            return [letter.key for letter in await letters.meant_by(start)]

        assert await meant("abcd-1") == ["abcd-1"], "a whole key is no beginning of another"
        assert await meant("abcd") == ["abcd-1", "abcd-12"]
        assert await meant("abce") == ["abce-3"]
        assert await meant("abcf") == ["abcf-4"], "two letters of one event have one key"
        assert await meant("abcd-13") == await meant("xyz1") == []
        assert await meant("abc") == await meant("") == [], "too short"
        assert len(await letters.browse(Selection())) == 5


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        (Selection(reason="image_truncated"), ["one", "two"]),
        (Selection(reason="image_truncated", limit=1), ["one"]),
        (Selection(lane=Lane.BULK), ["two"]),
        (Selection(asset="3", instance="acme"), ["three"]),
        (Selection(asset="3", instance="other"), []),
        (Selection(key="two"), ["two"]),
        (Selection(limit=0), []),
    ],
)
async def test_only_selected_letters_are_listed(settings: AmqpSettings, selection: Selection, keys: list[str]) -> None:
    async with serving(settings) as it:
        letters = await three_letters(it)
        assert [letter.key for letter in await letters.browse(selection)] == keys


async def test_a_replayed_event_is_like_a_new_one_and_goes_to_its_own_lane(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        letters = await three_letters(it)
        assert (await letters.replay(Selection(reason="image_truncated"))).number == 2
        replayed: dict[str | None, Delivery] = {}
        for _ in range(2):
            delivery = await it.next()
            replayed[delivery.message_id] = delivery
            delivery.ack()
        assert replayed["one"].lane is Lane.LIVE
        assert replayed["two"].lane is Lane.BULK
        assert replayed["one"].body == b"body of one"
        assert set(replayed["one"].headers) == {"traceparent", ORIGIN_HEADER, MARK_HEADER}
        assert replayed["one"].attempt == 1
        assert it.deliveries.empty()
        assert [letter.key for letter in await letters.browse(Selection())] == ["three"]


async def test_purged_letters_are_gone_and_the_others_stay(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        letters = await three_letters(it)
        assert await letters.purge(Selection(key="two")) == 1
        assert [letter.key for letter in await letters.browse(Selection())] == ["one", "three"]
        assert await letters.purge(Selection()) == 2
        await it.depth_becomes(it.topology.dead_letters_queue, 0)


async def test_an_event_that_took_the_worker_down_too_often_is_dead_lettered_by_the_broker_and_can_be_replayed(
    settings: AmqpSettings,
) -> None:
    async with serving(settings) as it, open_operator(settings) as operator:
        await operator.publish(it.topology.images_exchange, Lane.BULK.value, b"poison", message_id=None)
        for _ in range(DELIVERY_LIMIT + 1):
            (await it.next()).requeue()
        await it.depth_becomes(it.topology.dead_letters_queue, 1)
        letters = DeadLetters(settings, it.topology)
        (letter,) = await letters.browse(Selection(lane=Lane.BULK, reason="delivery_limit"))
        assert letter.message == "set aside by RabbitMQ itself: delivery_limit"
        assert len(letter.key) == 16
        assert (await letters.replay(Selection(key=letter.key))).number == 1
        again = await it.next()
        assert (again.body, again.lane, again.delivery_count) == (b"poison", Lane.BULK, 0)
        again.ack()


async def test_without_the_queue_the_error_names_it(settings: AmqpSettings) -> None:
    async with serving(settings, start=False) as it:
        with pytest.raises(Misconfigured, match="dead-letters"):
            await DeadLetters(settings, it.topology).browse(Selection())
