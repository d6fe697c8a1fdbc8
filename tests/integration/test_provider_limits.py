"""Limits of cloud calls over real HTTP: fair to all instances, known beforehand, and each image is paid for once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import MARKER_KEY, google, image_of, microsoft, picture, small_jpeg, started
from tests.support.fake_google import FakeGoogle, unavailable
from tests.support.fake_google import too_many as google_too_many
from tests.support.fake_microsoft import OUT_OF_QUOTA, FakeMicrosoft, nested, too_many
from tests.support.fake_service import FakeService, Fault
from tests.support.polling import eventually
from worker.errors import AutotagError, TryLater, Unavailable
from worker.images.content import Content
from worker.images.requests import JpegLimits
from worker.providers.base import Answer, Image
from worker.providers.cloud.cache import AnswerCache
from worker.providers.google_cloud_vision import GoogleCloudVision
from worker.providers.microsoft_vision import MicrosoftVision
from worker.settings import InstanceSettings

SIDE = (64, 64)


@pytest.fixture
def service() -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(MARKER_KEY) as fake:
        yield fake


@pytest.fixture
def google_service() -> Iterator[FakeGoogle]:
    with FakeGoogle(MARKER_KEY) as fake:
        yield fake


async def error_of(provider: MicrosoftVision | GoogleCloudVision, image: Image, instance: InstanceSettings) -> Any:
    with pytest.raises(AutotagError) as caught:
        await provider.tag(image, instance)
    return caught.value


async def tag_many(provider: MicrosoftVision, instance: InstanceSettings, name: str, seeds: range) -> float:
    """Tag many images of one instance at once; returns how long that took."""
    began_s = time.monotonic()
    await asyncio.gather(*(provider.tag(image_of(picture(seed), instance=name), instance) for seed in seeds))
    return time.monotonic() - began_s


class TestHungInstances:
    @pytest.mark.parametrize("hung", [8, 19, 60])
    async def test_another_gets_through_within_three_times_its_usual_time(self, hung: int, tmp_path: Path) -> None:
        with FakeMicrosoft(MARKER_KEY) as dead, FakeMicrosoft(MARKER_KEY) as well:
            dead.always, well.always = Fault(delay_s=60), Fault(delay_s=0.6)  # so that the machine's own part is small
            works = microsoft(well.url, timeout_s=20, maximum_number_of_attempts=1, calls_per_month=100)
            hangs = microsoft(dead.url, timeout_s=100, retry_total_s=100, maximum_number_of_attempts=1)
            async with started(MicrosoftVision, tmp_path) as provider:
                usual_s = await tag_many(provider, works, "well", range(8))
                # Given many instances whose endpoint does not answer, each with more images than it may send at once
                waiting = [
                    asyncio.create_task(provider.tag(image_of(picture(seed), instance=f"hung {name}"), hangs))
                    for name in range(hung)
                    for seed in range(8)
                ]
                await eventually(lambda: len(dead.calls) >= hung, "all of them hang", within_s=60)
                # When another sends as many as before, which are other images
                took_s = await tag_many(provider, works, "well", range(100, 108))
                assert took_s <= 3 * usual_s
                assert provider.circuits()["well"] == "closed"
                assert await provider.calls_used("well") == 16
                await lose(*waiting)

    async def test_a_call_that_found_no_place_is_neither_booked_nor_a_failure_nor_an_attempt(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        service.always = Fault(delay_s=60)
        instance = microsoft(service.url, timeout_s=5, maximum_number_of_attempts=1, calls_per_month=100)
        async with started(MicrosoftVision, tmp_path, turn_maximum_wait_s=0.4) as provider:
            first = asyncio.create_task(provider.tag(image_of(picture(1)), instance))
            await eventually(lambda: len(service.calls) == 1, "the first hangs")
            late = await asyncio.gather(
                *(error_of(provider, image_of(picture(seed)), instance) for seed in range(2, 12))
            )
            assert {(error.reason, error.counted) for error in late} == {("calls_at_once", False)}
            assert provider.circuits() == {"acme": "closed"}
            assert await provider.calls_used("acme") == 1
            assert len(service.calls) == 1
            first.cancel()


async def calls_reach(service: FakeService, calls: int) -> None:
    """Wait until so many calls have been made."""
    await eventually(lambda: len(service.calls) >= calls, f"{calls} calls are made")


async def lose(*tasks: asyncio.Task[Answer]) -> None:
    """The deliveries for which these images are tagged are lost."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestEachImageIsPaidForOnce:
    async def test_ten_lost_connections_with_sixteen_in_hand_cost_sixteen_calls(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        service.always = Fault(delay_s=0.5)
        instance = microsoft(service.url, calls_per_month=1000)
        async with started(MicrosoftVision, tmp_path, maximum_calls_at_once=16) as provider:
            await provider.tag(image_of(picture(1000)), instance)  # it is known to answer
            before = len(service.calls)
            for lost in range(10):
                tasks = [asyncio.create_task(provider.tag(image_of(picture(seed)), instance)) for seed in range(16)]
                await calls_reach(service, before + 1 + min(lost, 8))
                await lose(*tasks)
            answers = await asyncio.gather(*(provider.tag(image_of(picture(seed)), instance) for seed in range(16)))
            assert all(answer.suggestions for answer in answers)
            assert len(service.calls) - before == 16
            assert await provider.calls_used("acme") == 17

    async def test_batches_too_are_paid_for_once(self, google_service: FakeGoogle, tmp_path: Path) -> None:
        google_service.always = Fault(delay_s=0.3)
        instance = google(google_service.url, calls_per_month=1000)
        async with started(GoogleCloudVision, tmp_path) as provider:
            for _lost in range(10):
                tasks = [asyncio.create_task(provider.tag(image_of(picture(seed)), instance)) for seed in range(16)]
                await calls_reach(google_service, 1)
                await lose(*tasks)
            await asyncio.gather(*(provider.tag(image_of(picture(seed)), instance) for seed in range(16)))
            assert sum(google_service.batch_sizes) == 16
            assert await provider.calls_used("acme") == 16

    async def test_an_image_is_read_by_the_call_even_after_its_delivery_is_gone(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        data = picture(7)
        image = image_of(data)
        service.always = Fault(delay_s=0.2)
        async with started(MicrosoftVision, tmp_path) as provider:
            task = asyncio.create_task(provider.tag(image, microsoft(service.url)))
            await eventually(lambda: len(service.calls) == 1, "the call is in flight")
            await lose(task)
            image.content.close()
            # A redelivery with a content of its own joins it
            with Content.from_bytes(data, "again") as again:
                answer = await provider.tag(image_of(again.read()), microsoft(service.url))
        assert answer.suggestions
        assert [call.body for call in service.calls] == [data]

    async def test_nothing_is_sent_and_nothing_booked_for_those_who_have_gone(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        answer = threading.Event()
        service.always = Fault(released=answer)
        instance = microsoft(service.url, calls_per_month=100)
        async with started(MicrosoftVision, tmp_path) as provider:
            first = asyncio.create_task(provider.tag(image_of(picture(1)), instance))
            others = [asyncio.create_task(provider.tag(image_of(picture(seed)), instance)) for seed in range(2, 10)]
            await eventually(lambda: len(service.calls) == 1, "the first is in flight, the others wait")
            await lose(*others)
            answer.set()
            assert (await first).suggestions
            assert len(service.calls) == 1
            assert await provider.calls_used("acme") == 1

    async def test_an_answer_that_came_while_the_image_was_being_shrunk_is_taken(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        jpeg, shrinking, go_on = picture(3, form="JPEG"), asyncio.Event(), asyncio.Event()

        async def at_once(_limits: JpegLimits) -> bytes:
            return jpeg

        async def slowly(_limits: JpegLimits) -> bytes:
            shrinking.set()
            await go_on.wait()
            return jpeg

        data, instance = picture(3, (20, 20)), microsoft(service.url)
        async with started(MicrosoftVision, tmp_path) as provider:
            slow = asyncio.create_task(provider.tag(image_of(data, shrink=slowly), instance))
            await shrinking.wait()
            await provider.tag(image_of(data, shrink=at_once), instance)
            go_on.set()
            assert (await slow).suggestions
        assert len(service.calls) == 1

    async def test_an_answer_is_kept_whose_caller_goes_while_it_is_written_to_the_cache(
        self, service: FakeMicrosoft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writing, go_on = asyncio.Event(), asyncio.Event()

        async def never_ready(_cache: AnswerCache, _key: str, _answer: Answer) -> None:
            writing.set()
            await go_on.wait()

        monkeypatch.setattr(AnswerCache, "put", never_ready)
        async with started(MicrosoftVision, tmp_path, cache={"enabled": True}) as provider:
            task = asyncio.create_task(provider.tag(image_of(picture()), microsoft(service.url)))
            await writing.wait()
            await lose(task)
            again = asyncio.create_task(provider.tag(image_of(picture()), microsoft(service.url)))
            go_on.set()
            assert (await again).suggestions
        assert len(service.calls) == 1

    async def test_another_account_never_gets_the_answer(self, tmp_path: Path) -> None:
        with FakeMicrosoft("key-a", "key-b") as service:
            async with started(MicrosoftVision, tmp_path) as provider:
                for name in ("a", "b"):
                    image = image_of(picture(), instance=name)
                    await provider.tag(image, microsoft(service.url, f"key-{name}"))
            assert service.keys == ["key-a", "key-b"]


class TestItIsKnownBeforehandWhetherOneCanBeAsked:
    async def test_of_a_rate(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        instance = microsoft(service.url, calls_per_second=0.1)
        async with started(MicrosoftVision, tmp_path, turn_maximum_wait_s=2) as provider:
            assert provider.why_wait("asset-0", "acme", instance) is None, "there is one turn"
            why = provider.why_wait("asset-0", "acme", instance)
            assert isinstance(why, TryLater)
            assert (why.reason, why.counted, why.after_s) == ("rate_limit", False, 10)
            assert provider.why_wait("asset-0", "globex", instance) is None, "another instance has its own"
            assert (await provider.tag(image_of(picture()), instance)).suggestions
            # Who comes nevertheless is not kept either
            error = await error_of(provider, image_of(picture(2)), instance)
            assert (error.reason, error.counted) == ("rate_limit", False)
        assert len(service.calls) == 1

    async def test_of_an_open_circuit_and_of_its_probe(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.always = unavailable()
        instance = microsoft(service.url, maximum_number_of_attempts=1)
        async with started(MicrosoftVision, tmp_path, failures_to_open_circuit=1, circuit_open_s=1) as provider:
            assert (await error_of(provider, image_of(picture()), instance)).counted, "the service has failed"
            why = provider.why_wait("asset-0", "acme", instance)
            assert isinstance(why, TryLater)
            assert (why.reason, why.counted) == ("circuit_open", False)
            await eventually(lambda: provider.circuits() == {"acme": "half_open"}, "a probe is due")
            assert provider.why_wait("asset-0", "acme", instance) is None, "one event may come"
            assert provider.why_wait("asset-0", "acme", instance) is not None, "and no other"

    async def test_of_a_pause_that_the_service_asked_for(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.next(too_many("30"))
        instance = microsoft(service.url, maximum_number_of_attempts=1)
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await error_of(provider, image_of(picture()), instance)
            assert (error.reason, error.counted, error.after_s) == ("quota_exhausted", False, 30)
            why = provider.why_wait("asset-0", "acme", instance)
            assert isinstance(why, TryLater)
            assert (why.reason, why.counted) == ("quota_exhausted", False)
            assert 25 < why.after_s <= 30

    async def test_without_a_wait_from_the_service_the_pauses_grow(
        self, google_service: FakeGoogle, tmp_path: Path
    ) -> None:
        google_service.always = google_too_many()
        instance = google(google_service.url, maximum_number_of_attempts=1)
        async with started(GoogleCloudVision, tmp_path, retry_maximum_wait_s=30, turn_maximum_wait_s=0) as provider:
            assert not (await error_of(provider, image_of(picture()), instance)).counted
            why = provider.why_wait("asset-0", "acme", instance)
            assert why is not None
            assert 0 < why.after_s <= 2

    async def test_of_a_budget_that_is_used_up(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        instance = microsoft(service.url, calls_per_month=1)
        async with started(MicrosoftVision, tmp_path) as provider:
            await provider.tag(image_of(picture(1)), instance)
            assert isinstance(await error_of(provider, image_of(picture(2)), instance), Unavailable)
            why = provider.why_wait("asset-0", "acme", instance)
            assert isinstance(why, Unavailable)
            assert why.reason == "budget_exhausted"
            assert provider.why_wait("asset-0", "acme", microsoft(service.url, calls_per_month=2)) is None, (
                "it was raised"
            )

    async def test_of_a_quota_that_is_used_up(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.refusals[MARKER_KEY] = OUT_OF_QUOTA
        instance = microsoft(service.url)
        async with started(MicrosoftVision, tmp_path, refused_key_pause_s=60) as provider:
            await error_of(provider, image_of(picture()), instance)
            why = provider.why_wait("asset-0", "acme", instance)
            assert isinstance(why, Unavailable)
            assert why.reason == "quota_used_up"

    async def test_of_calls_that_hang(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.always = Fault(delay_s=60)
        instance = microsoft(service.url, timeout_s=20)
        async with started(MicrosoftVision, tmp_path, turn_maximum_wait_s=2) as provider:
            assert provider.why_wait("asset-0", "acme", instance) is None
            task = asyncio.create_task(provider.tag(image_of(picture()), instance))
            await eventually(lambda: provider.why_wait("asset-0", "acme", instance) is not None, "it does not answer")
            why = provider.why_wait("asset-0", "acme", instance)
            assert isinstance(why, TryLater)
            assert (why.reason, why.counted) == ("calls_at_once", False)
            assert provider.why_wait("asset-0", "globex", instance) is None
            await lose(task)

    async def test_what_is_set_wrong_is_left_to_the_call(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            assert provider.why_wait("asset-0", "acme", microsoft(service.url, "")) is None
            assert provider.why_wait("asset-0", "acme", microsoft(None)) is None


class TestWhatMakesNoCallNeedsNoTurn:
    async def test_a_library_whose_answers_are_cached_is_not_held_up(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        instance = microsoft(service.url, calls_per_second=0.1)
        async with started(MicrosoftVision, tmp_path, turn_maximum_wait_s=2, cache={"enabled": True}) as provider:
            await provider.tag(image_of(picture()), instance)
            for number in range(50):
                assert provider.why_wait(f"asset-{number}", "acme", instance) is None
                assert (await provider.tag(image_of(picture()), instance)).suggestions
            assert len(service.calls) == 1
            # The limits of the calls still hold
            errors = await asyncio.gather(
                *(provider.tag(image_of(picture(seed)), instance) for seed in range(1, 9)), return_exceptions=True
            )
            assert {error.reason for error in errors if isinstance(error, AutotagError)} == {"rate_limit"}

    async def test_an_image_that_makes_no_call_gives_its_promise_back(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        instance = microsoft(service.url, calls_per_second=1)
        async with started(MicrosoftVision, tmp_path, turn_maximum_wait_s=3) as provider:
            await provider.tag(image_of(picture()), instance)
            for number in range(1, 21):
                # The same content as another asset's, whose answer is kept
                assert provider.why_wait(f"asset-{number}", "acme", instance) is None
                assert (await provider.tag(image_of(picture()), instance)).suggestions
                # One that could not be fetched
                assert provider.why_wait(f"missing-{number}", "acme", instance) is None
                provider.not_asked("acme", instance)
                # One that is refused before it is sent
                assert provider.why_wait(f"small-{number}", "acme", instance) is None
                await error_of(
                    provider,
                    image_of(picture(number, (20, 20))),
                    microsoft(service.url, calls_per_second=1, resize=False),
                )
            assert len(service.calls) == 1

    async def test_an_event_whose_answer_has_been_paid_for_is_not_refused(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        instance = microsoft(service.url, calls_per_second=0.1)
        async with started(MicrosoftVision, tmp_path, turn_maximum_wait_s=2) as provider:
            await provider.tag(image_of(picture(), asset_id="paid"), instance)
            assert provider.why_wait("another", "acme", instance) is not None
            assert provider.why_wait("paid", "acme", instance) is None
            assert (await provider.tag(image_of(picture(), asset_id="paid"), instance)).suggestions
        assert len(service.calls) == 1

    async def test_retries_in_place_keep_one_promise(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.next(unavailable(), unavailable())
        instance = microsoft(service.url, calls_per_second=100)
        async with started(MicrosoftVision, tmp_path) as provider:
            for asset in ("a", "b", "c"):
                assert provider.why_wait(asset, "acme", instance) is None
            turns = provider._account_clients["acme"].turns
            assert turns is not None
            await provider.tag(image_of(picture()), instance)
            assert len(service.calls) == 3
            assert len(turns._promised) == 2


class TestEqualCausesHaveEqualMessages:
    @pytest.mark.parametrize(
        "responses",
        [
            [nested(429, "429", f"Please retry after {s} seconds.", Retry_After=str(s)) for s in (31, 47)],
            [nested(503, "503", f"Failed; request {i}, at 2026-11-2{i}T10:00.") for i in ("4d3e", "5fa0")],
            [nested(403, "403", f"Out of call volume quota. Quota will be replenished in 1{n}.03:30.") for n in (2, 3)],
        ],
        ids=["429", "503", "quota"],
    )
    async def test_whatever_numbers_a_service_writes(
        self, service: FakeMicrosoft, tmp_path: Path, responses: list[Any]
    ) -> None:
        messages = set()
        for number, response in enumerate(responses):
            service.always = Fault(response)
            async with started(MicrosoftVision, tmp_path / str(number)) as provider:
                once = microsoft(service.url, maximum_number_of_attempts=1)
                messages.add(str(await error_of(provider, image_of(picture()), once)))
        assert len(messages) == 1

    async def test_however_often_it_failed_and_however_long_it_is_left_alone(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        service.always = unavailable()
        messages = set()
        for failures in (1, 2):
            once = microsoft(service.url, maximum_number_of_attempts=1)
            directory = tmp_path / str(failures)
            async with started(
                MicrosoftVision, directory, failures_to_open_circuit=failures, circuit_open_s=50 + failures
            ) as provider:
                for seed in range(failures):
                    await error_of(provider, image_of(picture(seed)), once)
                messages.add(str(await error_of(provider, image_of(picture()), once)))
        assert len(messages) == 1

    async def test_whichever_asset_an_image_belongs_to(self, google_service: FakeGoogle, tmp_path: Path) -> None:
        google_service.image_errors[b""] = {"error": {"code": 3, "message": "Bad image data."}}
        async with started(GoogleCloudVision, tmp_path) as provider:
            asked = [image_of(picture(), asset_id=name, shrink=small_jpeg) for name in ("a-1", "a-2")]
            errors = await asyncio.gather(*(error_of(provider, each, google(google_service.url)) for each in asked))
        assert len(google_service.calls) == 2, "the file, then a JPEG: both have the same content and share a call"
        assert len({str(error) for error in errors}) == 1


async def test_many_names_looked_up_at_once_are_no_failure_of_the_services(
    service: FakeMicrosoft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.providers.cloud.http_client._MAXIMUM_CONCURRENT_LOOKUPS", 1)
    url = service.url.replace("127.0.0.1", "localhost")
    async with started(MicrosoftVision, tmp_path) as provider:
        answers = await asyncio.gather(
            *(provider.tag(image_of(picture(), instance=f"i{n}"), microsoft(url)) for n in range(12))
        )
    assert all(answer.suggestions for answer in answers)
    assert len(service.calls) == 12
