"""One paid call for one image, for all who wait for it and after those who have gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.support.polling import eventually
from worker.errors import CannotBeDone, TryLater
from worker.providers.base import Answer, Suggestion
from worker.providers.cloud.errors import CallNotMade, RateLimited, ServiceFailed
from worker.providers.cloud.retries import RetryPolicy, call_with_retries
from worker.providers.cloud.sharing import KEPT_ANSWERS, Interest, SharedCall, SharedCalls, kept_s
from worker.settings import Settings

KEPT_S = 600.0
ANSWER = Answer((Suggestion("cat", 0.9),), "it/1")
PARTIAL = Answer((Suggestion("cat", 0.9),), "it/1", "only a part of the labels came")


class Service:
    """Counts the calls that it gets; each waits until `go_on`."""

    def __init__(self, *outcomes: Answer | Exception) -> None:
        self.outcomes = list(outcomes)
        self.called = 0
        self.go_on = asyncio.Event()

    async def call(self, interest: Interest) -> Answer:
        with interest.sending():
            self.called += 1
            await self.go_on.wait()
            outcome = self.outcomes.pop(0) if self.outcomes else ANSWER
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    async def with_retries(self, interest: Interest) -> Answer:
        return await call_with_retries(lambda: self.call(interest), RetryPolicy(4, 60, 0.01, 0.01), interest=interest)


async def lost(*tasks: asyncio.Task[Answer]) -> None:
    """The deliveries for which these calls are made are lost."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def ask(calls: SharedCalls, service: Service) -> asyncio.Task[Answer]:
    async def answer() -> Answer:
        return calls.kept("k") or await (calls.running("k") or calls.begin("k", service.with_retries)).answer()

    return asyncio.create_task(answer())


async def test_those_who_ask_for_the_same_share_a_call() -> None:
    calls, service = SharedCalls(KEPT_S), Service()
    asked = [ask(calls, service) for _ in range(3)]
    await eventually(lambda: service.called == 1, "it is called")
    service.go_on.set()
    assert await asyncio.gather(*asked) == [ANSWER] * 3
    assert service.called == 1


async def test_a_redelivery_joins_the_call_that_is_in_flight() -> None:
    calls, service = SharedCalls(KEPT_S), Service()
    for _ in range(10):
        first = ask(calls, service)
        await eventually(lambda: service.called == 1, "it is called")
        await lost(first)
    again = ask(calls, service)
    service.go_on.set()
    assert await again == ANSWER
    assert service.called == 1


async def test_an_answer_that_came_when_nobody_waited_is_there_for_the_redelivery() -> None:
    calls, service = SharedCalls(KEPT_S), Service(PARTIAL)
    first = ask(calls, service)
    await eventually(lambda: service.called == 1, "it is called")
    await lost(first)
    service.go_on.set()
    await eventually(lambda: calls.kept("k") is not None, "the answer is kept")
    assert await ask(calls, service) == PARTIAL
    assert service.called == 1


async def test_an_answer_is_there_from_the_moment_the_call_has_ended() -> None:
    calls, service = SharedCalls(KEPT_S), Service()
    first = ask(calls, service)
    await eventually(lambda: service.called == 1, "it is called")
    running = calls.running("k")
    assert running is not None
    await lost(first)
    service.go_on.set()
    # When the redelivery asks in the very step of the loop in which the call ends
    while not running.ended:  # noqa: ASYNC110 - each step of the loop counts
        await asyncio.sleep(0)
    assert calls.kept("k") == ANSWER
    assert await ask(calls, service) == ANSWER
    assert service.called == 1


async def test_a_call_is_joined_while_a_timeout_or_a_scope_within_it_ends_by_cancelling() -> None:
    calls, service = SharedCalls(KEPT_S), Service()

    async def work(interest: Interest) -> Answer:
        task = asyncio.current_task()
        assert task is not None
        with interest.sending():
            task.cancel()  # as anyio does at the end of a task group
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            answer = await service.call(interest)
            task.uncancel()
        return answer

    calls.begin("k", work)
    await eventually(lambda: service.called == 1, "it is called")
    again = ask(calls, service)
    service.go_on.set()
    assert await again == ANSWER
    assert service.called == 1


async def test_no_further_attempt_is_begun_for_nobody() -> None:
    calls, service = SharedCalls(KEPT_S), Service(*[ServiceFailed("503", reason="service_failed")] * 4)
    first = ask(calls, service)
    await eventually(lambda: service.called == 1, "it is called")
    await lost(first)
    running = calls.running("k")
    assert running is not None
    service.go_on.set()
    await eventually(lambda: running.ended, "the attempt in flight has ended")
    assert service.called == 1
    assert calls.kept("k") is None


async def test_what_has_not_been_sent_is_not_sent_for_nobody() -> None:
    calls, began = SharedCalls(KEPT_S), asyncio.Event()

    async def wait_for_a_turn(_interest: Interest) -> Answer:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(calls.begin("k", wait_for_a_turn).answer())
    await began.wait()
    await lost(task)
    assert calls.running("k") is None


async def test_an_error_reaches_everybody_who_waits_each_with_its_own() -> None:
    calls, service = SharedCalls(KEPT_S), Service(CannotBeDone("no", reason="image_refused"))
    service.go_on.set()
    asked = [ask(calls, service) for _ in range(2)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in errors] == [CannotBeDone] * 2
    assert errors[0] is not errors[1]
    # And it is not kept: the next one asks again
    assert await ask(calls, service) == ANSWER
    assert service.called == 2


async def test_an_answer_is_kept_for_a_while_unless_it_is_not_whole() -> None:
    now_s = 100.0
    calls, service = SharedCalls(KEPT_S, lambda: now_s), Service()
    service.go_on.set()
    await ask(calls, service)
    assert calls.kept("k") == ANSWER
    now_s += KEPT_S
    assert calls.kept("k") is None
    service.outcomes = [PARTIAL]
    assert await ask(calls, service) == PARTIAL
    assert calls.kept("k") is None


@pytest.mark.parametrize(
    "given", [{}, {"amqp": {"hold_s": 1700}}, {"retry": {"delays_s": [3600, 10]}}, {"retry": {"delays_s": [1]}}]
)
def test_answers_are_kept_for_longer_than_an_event_may_be_away(given: dict[str, object]) -> None:
    settings = Settings.model_validate(given)
    assert kept_s(settings) > max(settings.retry.delays_s)
    assert kept_s(settings) > settings.amqp.hold_s


async def test_the_number_of_kept_answers_is_bounded() -> None:
    calls, service = SharedCalls(KEPT_S), Service()
    service.go_on.set()
    for number in range(KEPT_ANSWERS + 1):
        await calls.begin(number, service.call).answer()
    assert calls.kept(0) is None
    assert calls.kept(1) == calls.kept(KEPT_ANSWERS) == ANSWER


async def test_when_the_service_stops_those_who_wait_get_try_later() -> None:
    calls, service = SharedCalls(KEPT_S), Service()
    asked = ask(calls, service)
    await eventually(lambda: service.called == 1, "it is called")
    await calls.close()
    with pytest.raises(TryLater) as caught:
        await asked
    assert (caught.value.reason, caught.value.counted) == ("stopping", False)


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (ServiceFailed("503", reason="service_failed"), True),
        (asyncio.CancelledError(), True),
        (RateLimited("429", reason="quota_exhausted"), False),
        (CallNotMade("open", reason="circuit_open"), False),
    ],
)
def test_an_attempt_is_one_that_the_service_has_worked_on(error: BaseException, tried: bool) -> None:
    interest = Interest()

    def attempt() -> None:
        with interest.sending():
            assert interest.tried
            raise error

    with pytest.raises(type(error)):
        attempt()
    assert interest.tried is tried


async def test_a_call_is_not_joined_once_it_is_called_off() -> None:
    call = SharedCall(lambda _interest: asyncio.sleep(60, ANSWER))
    assert not call.ended
    task = asyncio.create_task(call.answer())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert call.ended
