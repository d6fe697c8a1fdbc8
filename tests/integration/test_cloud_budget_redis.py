"""The monthly budget of a fleet, counted on a real Redis server by several processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.cloud import MARKER_KEY, image_of, microsoft, picture, started
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.polling import eventually
from tests.support.redis_server import PASSWORD, RedisServer, redis_server
from worker.diagnostics.preflight import check_service
from worker.errors import Misconfigured, TryLater, Unavailable
from worker.providers.cloud.budget_redis import RedisBudget
from worker.providers.microsoft_vision import MicrosoftVision
from worker.settings import Settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def budget(server: RedisServer) -> AsyncIterator[RedisBudget]:
    budget = RedisBudget(SecretStr(server.url), prefix="autotag")
    yield budget
    await budget.close()


RESERVE_MANY = """
import asyncio, sys
from pydantic import SecretStr
from worker.providers.cloud.budget_redis import RedisBudget

async def run():
    budget = RedisBudget(SecretStr(sys.argv[1]), prefix="autotag")
    reservations = await asyncio.gather(*(budget.reserve("p", "acme", 3, 100) for _ in range(25)))
    print(sum(each.calls for each in reservations))
    await budget.close()

asyncio.run(run())
"""


async def test_several_hosts_together_do_not_exceed_it(server: RedisServer, budget: RedisBudget) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", RESERVE_MANY, server.url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    reserved = [int((await process.communicate())[0]) for process in processes]
    assert sum(reserved) == 100
    assert await budget.used("p", "acme") == 100


async def test_it_is_separate_for_each_provider_instance_and_fleet(server: RedisServer, budget: RedisBudget) -> None:
    assert (await budget.reserve("google", "a", 4, 5)).calls == 4
    assert (await budget.reserve("google", "a", 4, 5)).calls == 1
    assert (await budget.reserve("google", "b", 4, 5)).calls == 4
    assert (await budget.reserve("microsoft", "a", 4, 5)).calls == 4
    other = RedisBudget(SecretStr(server.url), prefix="other")
    assert await other.used("google", "a") == 0
    await other.close()


async def test_what_is_released_can_be_reserved_again_and_no_more(budget: RedisBudget) -> None:
    reservation = await budget.reserve("p", "a", 5, 5)
    await budget.release(reservation, 2)
    assert await budget.used("p", "a") == 3
    await budget.release(reservation, 100)
    assert await budget.used("p", "a") == 0


async def test_it_renews_with_the_month_and_its_keys_expire_afterwards(server: RedisServer) -> None:
    now = datetime.now(UTC)
    budget = RedisBudget(SecretStr(server.url), prefix="autotag", now=lambda: now)
    assert (await budget.reserve("p", "a", 5, 5)).calls == 5
    renews = budget.renews()
    (key,) = await budget._redis.keys("*")
    assert 0 < await budget._redis.expiretime(key) - renews.timestamp() <= 7 * 24 * 3600
    now = renews
    assert (await budget.reserve("p", "a", 5, 5)).calls == 5
    await budget.close()


async def test_without_the_server_no_call_is_made_that_has_a_limit_and_that_is_no_attempt(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.providers.cloud.account_client._BUDGET_TRIED_AGAIN_S", 2.0)
    with FakeMicrosoft(MARKER_KEY) as service:
        limited, unlimited = microsoft(service.url, calls_per_month=5), microsoft(service.url)
        async with started(MicrosoftVision, tmp_path, budget_url=server.url) as provider:
            assert (await provider.tag(image_of(picture(1)), limited)).suggestions
            server.stop()
            with pytest.raises(TryLater) as caught:
                await provider.tag(image_of(picture(2)), limited)
            assert provider.why_wait("asset-2", "acme", limited) is not None, "images are not even fetched"
            assert (caught.value.reason, caught.value.counted) == ("budget_unusable", False)
            assert PASSWORD not in str(caught.value)
            assert str(server.port) not in str(caught.value)
            assert len(service.calls) == 1
            assert (await provider.tag(image_of(picture(3), instance="free"), unlimited)).suggestions
            server.start()
            await eventually(lambda: provider.why_wait("asset-2", "acme", limited) is None, "it is tried again")
            assert (await provider.tag(image_of(picture(2)), limited)).suggestions
            assert await provider.calls_used("acme") == 2


async def test_workers_with_separate_state_directories_share_it(server: RedisServer, tmp_path: Path) -> None:
    with FakeMicrosoft(MARKER_KEY) as service:
        limited = microsoft(service.url, calls_per_month=3)
        async with (
            started(MicrosoftVision, tmp_path / "one", budget_url=server.url) as one,
            started(MicrosoftVision, tmp_path / "two", budget_url=server.url) as two,
        ):
            outcomes = await asyncio.gather(
                *(worker.tag(image_of(picture(seed)), limited) for worker in (one, two) for seed in range(5)),
                return_exceptions=True,
            )
        assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) == 7
        assert len(service.calls) == 3


async def budget_check(**settings: object) -> tuple[str, str]:
    defaults = {"microsoft_vision": {"enabled": True, "calls_per_month": 5}}
    found = Settings.model_validate({"defaults": defaults, "amqp": {"url": "amqp://u:p@127.0.0.1:1/"}} | settings)
    (check,) = [each async for each in check_service(found) if each.subject == "budget"]
    return check.status, check.message


async def test_check_looks_at_the_server(server: RedisServer) -> None:
    cloud = {"budget_url": server.url}
    assert (await budget_check(cloud=cloud))[0] == "ok"
    server.stop()
    status, message = await budget_check(cloud=cloud)
    assert status == "failed"
    assert PASSWORD not in message


@pytest.mark.parametrize("url", ["redis://user:pass word@host:port/x", "redis://h:99999999"])
async def test_an_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises((Misconfigured, TryLater)) as caught:
        await RedisBudget(SecretStr(url), prefix="autotag").used("p", "a")
    assert "pass word" not in str(caught.value)
