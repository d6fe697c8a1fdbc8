"""One account's limits: pauses, and a budget that cannot be used."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from tests.support.call_budget import CountingBudget
from tests.support.polling import eventually
from worker.errors import TryLater
from worker.providers.cloud import account_client
from worker.providers.cloud.account_client import Account, AccountClient, AccountRules
from worker.providers.cloud.errors import CallNotMade, RateLimited, ServiceFailed, transient_error
from worker.providers.cloud.places import Places
from worker.providers.cloud.sharing import Interest


def client_of(budget: CountingBudget, *, rate: float | None = None) -> AccountClient:
    rules = AccountRules(4, 10.0, (10.0, 60.0), 5, 10, 10, 30)
    account = Account("microsoft", "acme", "https://it", SecretStr("k"), rate, 100)
    return AccountClient(account, rules, budget, Places(shared=32, each=4))


class Service:
    """Answers, or raises `error`; counts."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0

    async def request(self, _data: bytes) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return "an answer"


async def read() -> bytes:
    return b"an image"


async def test_whatever_asks_for_a_long_wait_gets_it_from_all_of_the_account() -> None:
    service, client = Service(), client_of(CountingBudget())
    service.error = transient_error("it", 503, 600, "down")
    with pytest.raises(ServiceFailed):
        await client.call(read, service.request, Interest())
    # Then no other image is sent, nor even fetched
    why = client.why_wait()
    assert isinstance(why, CallNotMade)
    assert (why.reason, why.counted) == ("service_failed", False)
    assert 590 < why.after_s <= 600
    with pytest.raises(CallNotMade):
        await client.call(read, service.request, Interest())
    assert service.calls == 1


async def test_a_pause_that_begins_while_a_turn_is_waited_for_is_kept() -> None:
    service, client = Service(), client_of(CountingBudget(), rate=4)
    async with client.turn() as turn:
        turn.used = True
        for _ in range(3):  # the burst
            async with client.turn() as more:
                more.used = True
        turns = client.turns
        assert turns is not None
        taken_s = turns.wait_s(0.0)
        late = asyncio.create_task(client.call(read, service.request, Interest()))
        await eventually(lambda: turns.wait_s(0.0) > taken_s, "it waits for its turn")

        async def too_many() -> None:
            raise RateLimited("429", reason="quota_exhausted", after_s=600)

        with pytest.raises(RateLimited):
            await client.send(too_many, None, turn)
    with pytest.raises(CallNotMade, match="pause"):
        await late
    assert service.calls == 0


async def test_the_only_probe_is_not_promised_to_one_without_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(CountingBudget(), rate=0.05)
    asked: list[float] = []
    monkeypatch.setattr(client._circuit, "why_wait", asked.append)
    assert client.why_wait() is None
    why = client.why_wait()
    assert why is not None
    assert why.reason == "rate_limit"
    assert len(asked) == 1


async def test_while_the_budget_cannot_be_used_no_image_is_fetched_or_tries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, service = CountingBudget(), Service()
    client = client_of(budget)
    budget.broken = True
    for _ in range(3):
        with pytest.raises(TryLater) as caught:
            await client.call(read, service.request, Interest())
        assert (caught.value.reason, caught.value.counted) == ("budget_unusable", False)
    assert budget.asked == 1
    why = client.why_wait()
    assert isinstance(why, TryLater)
    assert (why.reason, why.counted) == ("budget_unusable", False)
    assert 0 < why.after_s <= account_client._BUDGET_TRIED_AGAIN_S
    # It is tried again after a while
    budget.broken = False
    client._budget_unusable_until_s = 0.0
    assert client.why_wait() is None
    assert await client.call(read, service.request, Interest()) == "an answer"
