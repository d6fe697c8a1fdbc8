"""The results queue gets what nobody else takes: on a new broker, on an older one, and beside older workers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rabbitmq_node import PrivateBroker
from structlog.testing import capture_logs

from tests.support.polling import eventually
from tests.support.serving import Operator, Serving, open_operator, serving, settings_for, topology_for
from worker.amqp.client import open_event_client
from worker.amqp.declare import as_it_is_there, declare, levels, share_results
from worker.amqp.errors import Unroutable
from worker.amqp.topology import topology
from worker.messages import OutgoingMessage
from worker.settings import AmqpSettings


@pytest.fixture
def settings(broker: str) -> AmqpSettings:
    return settings_for(broker)


def result(number: int = 0, key: str = "acme.tagged") -> OutgoingMessage:
    return OutgoingMessage(b"{}", "application/json", {}, f"result-{number}", key)


async def publish(it: Serving, number: int = 0, key: str = "acme.tagged") -> None:
    await asyncio.wait_for(it.broker.publish_result(result(number, key)), 20)


@asynccontextmanager
async def own_queue(operator: Operator, it: Serving, key: str) -> AsyncIterator[str]:
    """A queue of the DMS's own, bound to the documented exchange."""
    queue = f"{it.topology.prefix}.own"
    await operator.call("queue_declare", queue=queue, durable=True, arguments={"x-queue-type": "quorum"})
    await operator.call("queue_bind", queue=queue, exchange=it.topology.results_exchange, routing_key=key)
    yield queue
    await operator.call("queue_delete", queue=queue)


async def depths(operator: Operator, it: Serving, own: str) -> tuple[int, int]:
    """Messages in the results queue and in the DMS's own."""
    found = await levels(operator.connection, (it.topology.results_queue, own))
    return found[it.topology.results_queue].messages, found[own].messages


async def become(operator: Operator, it: Serving, own: str, wanted: tuple[int, int]) -> None:
    for _ in range(200):
        if (found := await depths(operator, it, own)) == wanted:
            return
        await asyncio.sleep(0.02)
    assert found == wanted


async def test_the_results_queue_gets_only_what_no_other_queue_takes(settings: AmqpSettings) -> None:
    async with serving(settings) as it, open_operator(settings) as operator:
        async with own_queue(operator, it, "acme.*") as own:
            await publish(it)
            await publish(it, key="beta.failed")
            await become(operator, it, own, (1, 1))
        await publish(it)
        await it.depth_becomes(it.topology.results_queue, 2)
        assert not any(state.pauses for state in it.states if state.connected)


@pytest.mark.parametrize("what", ["exchange", "nothing"])
async def test_whoever_declares_first_on_a_new_broker_makes_no_old_one_of_it(settings: AmqpSettings, what: str) -> None:
    layout = topology_for(settings)
    async with open_operator(settings) as operator:
        if what == "exchange":  # as `autotag connect` does, or a DMS
            exchange = layout.results_exchange
            await operator.call("exchange_declare", exchange=exchange, exchange_type="topic", durable=True)
        async with serving(settings) as it, serving(settings, topology=layout):
            assert (await as_it_is_there(operator.connection, layout)).shares_results
            async with own_queue(operator, it, "#") as own:
                await publish(it)
                await become(operator, it, own, (0, 1))


@pytest.mark.parametrize("declares", [True, False])
async def test_on_an_older_installation_all_goes_on_as_it_was_until_it_is_migrated(
    settings: AmqpSettings, declares: bool
) -> None:
    settings = settings.model_copy(update={"declare": declares})
    layout = topology_for(settings)
    async with open_operator(settings) as operator:
        # Given what a worker of the version before has declared, and a queue of the DMS's own
        await declare(operator.connection, layout.with_all_results)
        async with serving(settings) as it, own_queue(operator, it, "acme.*") as own:
            await publish(it)
            await become(operator, it, own, (1, 1))
            # When it is migrated while results are published
            publishing = [asyncio.create_task(publish(it, number, f"beta{number % 7}.tagged")) for number in range(300)]
            await share_results(operator.connection, layout)
            publishing += [asyncio.create_task(publish(it, number, "beta.tagged")) for number in range(300)]
            await asyncio.gather(*publishing)
            # Then none is lost, and none that is taken is in the results queue
            await become(operator, it, own, (601, 1))
            await publish(it)
            await become(operator, it, own, (601, 2))
            await eventually(lambda: it.broker.state.ready, "it takes events", within_s=20)
            # And a second time changes nothing
            await share_results(operator.connection, layout)
            await publish(it)
            await become(operator, it, own, (601, 3))


async def test_workers_of_the_version_before_run_beside_new_ones_and_lose_nothing(settings: AmqpSettings) -> None:
    layout = topology_for(settings)
    async with (
        open_operator(settings) as operator,
        serving(settings, topology=layout.with_all_results) as old,
        serving(settings, topology=layout) as new,
        own_queue(operator, new, "acme.*") as own,
    ):
        await asyncio.gather(publish(old), publish(new))
        await become(operator, new, own, (2, 2))
        # When somebody migrates too early
        await share_results(operator.connection, layout)
        await publish(new, key="beta.tagged")
        with pytest.raises(Unroutable):  # the pipeline keeps its event in a retry queue
            await publish(old, key="beta.tagged")
        await become(operator, new, own, (3, 2))
        # Then the next old worker that connects binds the queue again
        async with serving(settings, topology=layout.with_all_results, start=True) as another:
            await asyncio.gather(publish(old, key="beta.tagged"), publish(another), publish(new))
            await become(operator, new, own, (6, 4))
            another.topology = topology("unused", (1,))  # the others delete what is theirs
        assert old.broker.state.ready
        assert new.broker.state.ready
        # When the old ones have ended, it is done again
    async with open_operator(settings) as operator, serving(settings, topology=layout.with_all_results):
        await share_results(operator.connection, layout)
        async with serving(settings, topology=layout) as new, own_queue(operator, new, "acme.*") as own:
            await publish(new)
            await become(operator, new, own, (0, 1))


@pytest.mark.parametrize("is_old", [False, True])
async def test_one_who_waits_for_results_of_his_own_takes_none_from_the_dms(
    settings: AmqpSettings, is_old: bool
) -> None:
    layout = topology_for(settings)
    async with open_operator(settings) as operator:
        if is_old:
            await declare(operator.connection, layout.with_all_results)
        async with serving(settings) as it, own_queue(operator, it, "acme.*") as own:
            async with open_event_client(settings, layout, listen=True) as client:
                await publish(it)
                await publish(it, key="beta.tagged")
                for _ in range(2):
                    assert await asyncio.wait_for(client.next_result(), 10) == b"{}"
            await become(operator, it, own, (2, 1) if is_old else (1, 1))


@pytest.mark.parametrize("lacks", ["the right", "the exchange"])
async def test_where_copies_cannot_be_published_results_are_all_the_same_each_once(
    node: PrivateBroker, lacks: str
) -> None:
    name = f"narrow-{lacks[4:]}"
    node.ctl("add_user", name, "secret")
    node.ctl("set_permissions", name, "^$", r"^test-[^.]*\.(results|results\.unclaimed|retry|dead)$", ".*")
    owner = settings_for(node.url)
    narrow = settings_for(node.url_of("/", name, "secret"), declare=False, queue_prefix=owner.queue_prefix)
    layout = topology_for(owner)
    async with open_operator(owner) as operator:
        await declare(operator.connection, layout)
        if lacks == "the exchange":
            await operator.call("exchange_delete", exchange=layout.copies_exchange)
        with capture_logs() as logs:
            async with serving(narrow, topology=layout) as it, own_queue(operator, it, "acme.*") as own:
                # When results are published, each after the one before, and then many at once
                for number in range(3):
                    await publish(it, number)
                await asyncio.gather(*(publish(it, number, "beta.tagged") for number in range(50)))
                # Then each has arrived once
                await become(operator, it, own, (50, 3))
                assert it.broker.state.ready
                assert not any(state.pauses for state in it.states if state.connected)
        warned = [each for each in logs if each["log_level"] == "warning"]
        assert len(warned) == 1
        assert "copies" in str(warned[0])
        for queue in layout.queues:
            await operator.call("queue_delete", queue=queue.name)
        for exchange in layout.exchanges:
            await operator.call("exchange_delete", exchange=exchange.name)


async def test_the_command_says_what_it_has_done(settings: AmqpSettings, broker: str) -> None:
    layout = topology_for(settings)
    async with open_operator(settings) as operator:
        await declare(operator.connection, layout.with_all_results)
        async with serving(settings):
            outputs = [await asyncio.to_thread(migrate, broker, settings) for _ in range(2)]
    assert [each["got_all_results"] for each in outputs] == [True, False]
    assert outputs[0]["queue"] == layout.results_queue


def migrate(broker: str, settings: AmqpSettings) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "topology", "migrate", "--json"],
        env={"AUTOTAG_AMQP__URL": broker, "AUTOTAG_AMQP__QUEUE_PREFIX": settings.queue_prefix, "PATH": ""},
        capture_output=True,
        check=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
