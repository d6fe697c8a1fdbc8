"""Batches: those who give up leave the queue, and a failure costs only those whom it concerns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.call_budget import CountingBudget
from tests.support.polling import eventually
from worker.errors import AutotagError
from worker.providers.cloud.account_client import Account, AccountClient, AccountRules
from worker.providers.cloud.batching import Batcher, BatchLimits
from worker.providers.cloud.errors import CallNotMade, ServiceFailed
from worker.providers.cloud.places import Places
from worker.providers.cloud.sharing import Interest

pytestmark = pytest.mark.timeout(20)  # one that goes round in the loop would not come to an end

Send = Callable[[list[tuple[str, bytes]]], Awaitable[list[str | AutotagError]]]


async def read(item: str) -> bytes:
    if item == "bad":
        raise OSError(5, "Input/output error")
    return item.encode()


def client_of(
    budget: CountingBudget, *, calls: int = 1, rate: float | None = None, wait_s: float = 0.2
) -> AccountClient:
    rules = AccountRules(calls, wait_s, (1.0,), 5, 10, 10, 10)
    account = Account("google", "acme", "https://it", SecretStr("k"), rate, 100)
    return AccountClient(account, rules, budget, Places(shared=32, each=4))


def batcher(send: Send, *, calls: int = 1, items: int = 16) -> Batcher[str, str]:
    client = client_of(CountingBudget(), calls=calls)
    return Batcher(client, read, send, BatchLimits(items, 1_000_000), maximum_calls=calls)


async def submit(it: Batcher[str, str], item: str) -> Any:
    try:
        return await it.submit(item, 1, Interest())
    except AutotagError as error:
        return error


async def has_ended(it: Batcher[str, str]) -> None:
    """No worker is left, and no item; the loop is not kept busy meanwhile."""
    began_s, used_s = time.monotonic(), time.process_time()
    await eventually(lambda: not it._workers and not it._queue, "no worker and no item are left")
    assert time.process_time() - used_s <= 0.5 * (time.monotonic() - began_s) + 0.1


class Hung:
    """An endpoint that does not answer until `go_on`, and then that it failed."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def send(self, items: list[tuple[str, bytes]]) -> list[str | AutotagError]:
        await self.go_on.wait()
        return [ServiceFailed("no answer", reason="timed_out") for _ in items]


async def test_one_worker_whose_only_item_has_gone_ends() -> None:
    it = batcher(Hung().send)
    # Given an item whose caller is cancelled while its worker waits for a place
    async with it._client.place(None):
        task = asyncio.create_task(submit(it, "a"))
        await eventually(lambda: it._workers, "there is a worker")
        task.cancel()
        await asyncio.wait({task})
    # When there is a place, there is nobody to send
    await has_ended(it)


@pytest.mark.parametrize(("calls", "events"), [(1, 2), (4, 3), (4, 10)])
async def test_after_a_hung_call_and_a_few_events_there_is_silence(calls: int, events: int) -> None:
    hung = Hung()
    it = batcher(hung.send, calls=calls, items=1)
    submitted = [asyncio.create_task(submit(it, str(number))) for number in range(events)]
    # Given that all but the one that hangs have given up
    await eventually(lambda: sum(task.done() for task in submitted) >= events - 1, "the others have given up")
    gone = [task.result() for task in submitted if task.done()]
    assert {type(each) for each in gone} == {CallNotMade}
    assert not it._queue
    # When the call has failed, and nobody comes any more
    hung.go_on.set()
    await asyncio.wait(submitted)
    await has_ended(it)


async def answer(items: list[tuple[str, bytes]]) -> list[str | AutotagError]:
    return [f"{item}: {data.decode()}" for item, data in items]


async def test_one_that_cannot_be_read_fails_alone_and_books_nothing() -> None:
    budget = CountingBudget()
    client = client_of(budget, rate=1000)
    it: Batcher[str, str] = Batcher(client, read, answer, BatchLimits(16, 1_000_000), maximum_calls=1)
    interests = {name: Interest() for name in ("a", "bad", "b")}
    outcomes = await asyncio.gather(
        *(it.submit(name, 1, interest) for name, interest in interests.items()), return_exceptions=True
    )
    assert outcomes[::2] == ["a: a", "b: b"]
    assert isinstance(outcomes[1], OSError)
    assert budget.calls == 2
    assert [interest.tried for interest in interests.values()] == [False, True, False]
    # And where there is no other, no call is made at all
    with pytest.raises(OSError, match="Input/output"):
        await it.submit("bad", 1, Interest())
    assert budget.calls == 2


class Gone(Interest):
    """Nobody waits any more."""

    @property
    def wanted(self) -> bool:
        return False


def turns_taken(client: AccountClient) -> bool:
    assert client.turns is not None
    return client.turns.wait_s(time.monotonic()) > 0


async def fail_to_read() -> bytes:
    raise OSError(5, "Input/output error")


async def read_well() -> bytes:
    return b"an image"


async def request(_data: bytes) -> str:
    return "an answer"


@pytest.mark.parametrize("why", ["unreadable", "not wanted", "no budget", "cancelled"])
async def test_a_turn_without_a_call_is_given_back(why: str) -> None:
    budget = CountingBudget()
    budget.broken = why == "no budget"
    client = client_of(budget, rate=0.01, wait_s=500)
    interest = Gone() if why == "not wanted" else Interest()
    hang = asyncio.Event()

    async def hangs() -> bytes:
        await hang.wait()
        return b""

    how = {"unreadable": fail_to_read, "cancelled": hangs}.get(why, read_well)
    call = asyncio.create_task(client.call(how, request, interest))
    if why == "cancelled":
        await eventually(lambda: turns_taken(client), "the turn is taken")
        call.cancel()
    await asyncio.wait({call})
    assert call.cancelled() or call.exception() is not None
    assert not turns_taken(client)
    assert budget.calls == 0
    # While a call that is made uses its turn
    budget.broken = False
    assert await client_of(budget, rate=0.01).call(read_well, request, Interest()) == "an answer"


async def test_a_turn_for_a_batch_that_cannot_be_read_or_booked_is_given_back() -> None:
    budget = CountingBudget()
    client = client_of(budget, rate=0.01)
    it: Batcher[str, str] = Batcher(client, read, answer, BatchLimits(16, 1_000_000), maximum_calls=1)
    with pytest.raises(OSError, match="Input/output"):
        await it.submit("bad", 1, Interest())
    budget.broken = True
    with pytest.raises(AutotagError):
        await it.submit("a", 1, Interest())
    await eventually(lambda: not it._workers, "the worker has ended")
    assert not turns_taken(client)
