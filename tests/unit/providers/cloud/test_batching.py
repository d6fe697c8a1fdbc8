"""Batches: whoever gives up leaves the queue, and a failure costs only those whom it concerns."""

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

Send = Callable[[list[str]], Awaitable[list[str | AutotagError]]]


def batcher(send: Send, *, calls: int = 1, items: int = 16, longest_wait_s: float = 0.2) -> Batcher[str, str]:
    rules = AccountRules(calls, longest_wait_s, (1.0,), 5, 10, 10, 10)
    account = Account("google", "acme", "https://it", SecretStr("k"), None, 100)
    client = AccountClient(account, rules, CountingBudget(), Places(shared=32, each=4))
    return Batcher(client, send, BatchLimits(items, 1_000_000), maximum_calls=calls)


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

    async def send(self, items: list[str]) -> list[str | AutotagError]:
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
