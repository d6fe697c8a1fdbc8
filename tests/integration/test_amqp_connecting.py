"""Whatever prevents a connection is reported with what to do about it, and connecting is retried regardless."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trustme
from rabbitmq_node import PrivateBroker, TlsFiles
from structlog.testing import capture_logs

from tests.support.polling import TIME_LIMIT_S, eventually
from tests.support.serving import delete, open_operator, serving, settings_for, topology_for
from worker.amqp.connection import connected
from worker.amqp.declare import declare
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.state import BrokerPhase, BrokerState
from worker.amqp.topology import Lane, topology
from worker.diagnostics import preflight
from worker.errors import AutotagError, Misconfigured
from worker.settings import AmqpSettings, Settings


async def state_without_connection(settings: AmqpSettings) -> BrokerState:
    """Start, and return the state after the second failed attempt: it goes on trying."""
    failed = {"event": "no connection to RabbitMQ", "connection": "consuming"}
    with capture_logs() as lines:
        return await _state_after(settings, lambda: sum(failed.items() <= line.items() for line in lines) > 1)


async def _state_after(settings: AmqpSettings, second_attempt: Callable[[], bool]) -> BrokerState:
    async with serving(settings, start=False) as it:
        starting = asyncio.create_task(it.broker.start())
        await eventually(second_attempt, "a second attempt", within_s=20)
        assert not starting.done()
        assert not it.broker.state.ready
        assert not it.broker.state.connected
        state = it.broker.state
        starting.cancel()
        return state


async def pauses_without_consuming(settings: AmqpSettings, number: int) -> dict[str, str]:
    """Start, and return the messages of the pauses once there are so many: it is connected, and goes on trying."""
    async with serving(settings, start=False) as it:
        starting = asyncio.create_task(it.broker.start())
        await eventually(lambda: len(it.broker.state.pauses) == number, f"{number} pauses", within_s=20)
        assert not starting.done()
        assert not it.broker.state.ready
        assert it.broker.state.lanes == frozenset()
        starting.cancel()
        return {reason: pause.message for reason, pause in it.broker.state.pauses.items()}


async def refusal(settings: AmqpSettings) -> AutotagError:
    with pytest.raises(AutotagError) as caught:
        async with connected(settings, "test"):
            pass
    return caught.value


def credentials_of(url: str) -> tuple[str, str, str]:
    """User, password, and `host:port`."""
    account, _, where = url.split("//")[1].partition("@")
    user, _, password = account.partition(":")
    return user, password, where.split("/")[0]


async def test_a_wrong_password(broker: str) -> None:
    user, _, where = credentials_of(broker)
    state = await state_without_connection(settings_for(f"amqp://{user}:wrong-password@{where}/%2F"))
    assert state.last_error_reason == "credentials_refused"
    assert state.last_error is not None
    assert "set amqp.username and amqp.password" in state.last_error
    assert "wrong-password" not in state.last_error


async def test_user_and_password_of_their_own_settings_are_used(broker: str) -> None:
    user, password, where = credentials_of(broker)
    settings = settings_for(f"amqp://nobody:wrong@{where}/%2F", username=user, password=password)
    async with connected(settings, "test") as connection:
        assert str(connection.broker).startswith(f"{user}@")


async def test_a_virtual_host_that_is_not_there(broker: str) -> None:
    user, password, where = credentials_of(broker)
    state = await state_without_connection(settings_for(f"amqp://{user}:{password}@{where}/photo-archive"))
    assert state.last_error_reason == "virtual_host_refused"
    assert "vhost photo-archive not found" in str(state.last_error)


async def test_a_port_without_a_listener() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    state = await state_without_connection(settings_for(f"amqp://guest:guest@127.0.0.1:{port}/%2F"))
    assert state.last_error_reason == "broker_unreachable"
    assert "nothing listens there" in str(state.last_error)


async def test_a_host_name_that_does_not_exist() -> None:
    error = await refusal(settings_for("amqp://guest:guest@no-such-host.invalid:5672/%2F"))
    assert isinstance(error, BrokerUnreachable)
    assert "no-such-host.invalid cannot be resolved" in str(error)


async def test_a_listener_that_sends_nothing() -> None:
    async with silent_server() as port:
        settings = settings_for(f"amqp://guest:guest@127.0.0.1:{port}/%2F", connection_timeout_s=0.5)
        began_s = time.monotonic()
        error = await refusal(settings)
        assert time.monotonic() - began_s < 10
    assert "no answer in time" in str(error)
    assert "amqps://" in str(error)


async def test_a_listener_that_speaks_another_protocol() -> None:
    async with silent_server(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as port:
        error = await refusal(settings_for(f"amqp://guest:guest@127.0.0.1:{port}/%2F"))
    assert error.reason == "not_amqp"


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
@pytest.mark.parametrize("after_s", [0, 0.2])
async def test_cancelling_an_attempt_leaves_nothing_behind(scheme: str, after_s: float) -> None:
    async with silent_server() as port:
        connecting = asyncio.create_task(refusal(settings_for(f"{scheme}://guest:guest@127.0.0.1:{port}/%2F")))
        await asyncio.sleep(after_s)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.sleep(0.1)  # a socket left open would be a warning, which is an error


async def test_queues_declared_elsewhere_with_other_arguments_are_all_named_with_what_differs(broker: str) -> None:
    settings = settings_for(broker)
    topology = topology_for(settings)
    live, bulk = topology.lane_queue(Lane.LIVE), topology.lane_queue(Lane.BULK)
    arguments = next(queue.arguments for queue in topology.queues if queue.name == live)
    async with open_operator(settings) as operator:
        other = dict(arguments) | {"x-dead-letter-exchange": "elsewhere"}
        await operator.call("queue_declare", queue=live, durable=True, arguments=other)
        await operator.call("queue_declare", queue=bulk, durable=True)
        await operator.call(
            "exchange_declare", exchange=topology.results_exchange, exchange_type="direct", durable=True
        )
        pauses = await pauses_without_consuming(settings, 3)
        error = pauses["lane_live_cannot_be_consumed"]
        assert f"queue {live} exists already with another x-dead-letter-exchange: ours would be" in error
        assert "the one there has elsewhere" in error
        assert "amqp.queue_prefix" in error
        assert f"queue {bulk} exists already with another" in pauses["lane_bulk_cannot_be_consumed"]
        error = pauses["results_cannot_be_published"]
        assert f"exchange {topology.results_exchange} exists already with another type: ours would be topic" in error


async def test_a_lane_whose_queue_differs_does_not_keep_the_other_from_being_consumed(broker: str) -> None:
    settings = settings_for(broker)
    topology = topology_for(settings)
    async with open_operator(settings) as operator, serving(settings, topology=topology, start=False) as it:
        await operator.call("queue_declare", queue=topology.lane_queue(Lane.LIVE), durable=True)
        starting = asyncio.create_task(it.broker.start())
        await eventually(lambda: it.broker.state.lanes == {Lane.BULK}, "bulk is consumed", within_s=20)
        await it.publish_event(lane=Lane.BULK)
        (await it.next()).ack()
        assert it.broker.state.phase is BrokerPhase.CONSUMING
        assert not it.broker.state.ready
        assert set(it.broker.state.pauses) == {"lane_live_cannot_be_consumed"}
        # Once the operator has removed the cause, it is consumed too
        await operator.call("queue_delete", queue=topology.lane_queue(Lane.LIVE))
        await asyncio.wait_for(starting, TIME_LIMIT_S)
        assert it.broker.state.ready
        assert it.broker.state.pauses == {}
        assert it.broker.state.reconnects == 0


async def test_with_declaring_turned_off_everything_missing_is_named_and_nothing_is_made(broker: str) -> None:
    settings = settings_for(broker, declare=False)
    topology = topology_for(settings)
    pauses = await pauses_without_consuming(settings, 5)
    for reason, name in (
        ("lane_live_cannot_be_consumed", topology.lane_queue(Lane.LIVE)),
        ("retries_cannot_be_published", topology.retry_queue(Lane.BULK, 1)),
        ("results_cannot_be_published", topology.results_exchange),
        ("dead_letters_cannot_be_published", topology.dead_letters_queue),
    ):
        assert f"'{name}'" in pauses[reason]
    async with open_operator(settings) as operator:
        await declare(operator.connection, topology)
    async with serving(settings, topology=topology) as it:
        await it.publish_event()
        (await it.next()).ack()


async def test_a_user_without_rights(node: PrivateBroker) -> None:
    node.ctl("add_user", "reader", "secret")
    node.ctl("set_permissions", "reader", "^$", "^$", ".*")
    settings = settings_for(node.url_of("/", "reader", "secret"))
    pauses = await pauses_without_consuming(settings, 5)
    assert f"declaring queue {settings.queue_prefix}.images.live" in pauses["lane_live_cannot_be_consumed"]
    assert "rabbitmqctl set_permissions" in pauses["results_cannot_be_published"]


async def test_operators_see_who_is_connected(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url)):
        listed = node.ctl("list_connections", "client_properties", "timeout")
    assert f'"autotag@{socket.gethostname()}:' in listed
    assert f'"autotag-publishing@{socket.gethostname()}:' in listed
    assert listed.split()[-1] == "30"


async def test_the_brokers_version_and_what_matters_of_it_are_known(node: PrivateBroker) -> None:
    number = re.findall(r"[\d.]+", node.eval("rabbit_misc:version()"))[0]
    settings = settings_for(node.url)
    async with serving(settings) as it:
        assert it.broker.state.version == f"RabbitMQ {number}"
    result = await preflight._rabbitmq(Settings.model_validate({"amqp": settings}))
    assert result.status == "ok"
    assert f"RabbitMQ {number}; " in result.message
    assert "16 MiB" in result.message
    await delete(settings, topology(settings.queue_prefix, Settings().retry.delays_s))


# TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEM files: the authority's certificate, the server's and a client's certificate and key, another authority."""
    directory, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("autotag.example.org")
    pems = {
        "ca": authority.cert_pem,
        "server_cert": server.cert_chain_pems[0],
        "server_key": server.private_key_pem,
        "client_cert": client.cert_chain_pems[0],
        "client_key": client.private_key_pem,
        "other_ca": trustme.CA().cert_pem,
    }
    for name, pem in pems.items():
        pem.write_to_path(str(directory / f"{name}.pem"))
    return {name: directory / f"{name}.pem" for name in pems}


@pytest.fixture(scope="module")
def node(files: dict[str, Path]) -> Iterator[PrivateBroker]:
    """A broker with users and a TLS listener of its own."""
    tls = TlsFiles(files["ca"], files["server_cert"], files["server_key"], client_certificates=True)
    with PrivateBroker(tls=tls) as node:
        yield node


async def test_tls_with_a_client_certificate_and_what_goes_wrong_without_each_part(
    node: PrivateBroker, files: dict[str, Path]
) -> None:
    valid = {"ca_file": files["ca"], "cert_file": files["client_cert"], "key_file": files["client_key"]}

    async with serving(settings_for(node.tls_url, **valid)) as it:
        assert it.broker.state.ready
        large = b"x" * 3_000_000
        await it.publish_event(body=large)
        delivery = await it.next()
        assert delivery.body == large
        delivery.ack()

    # Reading is paused and resumed again and again, when few of the messages fit
    async with serving(settings_for(node.tls_url, maximum_bytes_in_hand=1_500_000, **valid)) as it:
        for number in range(20):
            await it.publish_event(str(number), b"x" * 1_000_000)
        for number in range(20):
            delivery = await it.next()
            assert (delivery.message_id, len(delivery.body)) == (str(number), 1_000_000)
            assert it.broker.state.unsettled <= 3
            delivery.ack()
        assert it.broker.state.reconnects == 0

    untrusted = await refusal(settings_for(node.tls_url, **valid | {"ca_file": files["other_ca"]}))
    assert isinstance(untrusted, Misconfigured)
    assert "amqp.ca_file" in str(untrusted)

    by_address = node.tls_url.replace("@localhost:", "@127.0.0.1:")
    wrong_name = await refusal(settings_for(by_address, **valid))
    assert wrong_name.reason == "tls_failed"
    assert "IP address mismatch" in str(wrong_name)

    without = await refusal(settings_for(node.tls_url, ca_file=files["ca"]))
    assert without.reason == "tls_failed", str(without)
    assert "client certificate" in str(without)

    plain_to_tls = await refusal(settings_for(node.tls_url.replace("amqps://", "amqp://"), connection_timeout_s=2))
    assert "amqps://" in str(plain_to_tls)

    tls_to_plain = await refusal(settings_for(node.tls_url.replace(f":{node.tls_port}/", f":{node.port}/"), **valid))
    assert tls_to_plain.reason == "tls_failed", str(tls_to_plain)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"ca_file": "missing"}, "amqp.ca_file"),
        ({"ca_file": "garbage"}, "amqp.ca_file"),
        ({"ca_file": "ca", "cert_file": "client_cert", "key_file": "server_key"}, "amqp.key_file"),
        ({"ca_file": "ca", "cert_file": "missing"}, "amqp.cert_file"),
    ],
)
async def test_tls_files_that_cannot_be_used_are_named(
    files: dict[str, Path], tmp_path: Path, changes: dict[str, str], names: str
) -> None:
    (tmp_path / "garbage.pem").write_text("no certificate")
    given = {option: files.get(name, tmp_path / f"{name}.pem") for option, name in changes.items()}
    error = await refusal(settings_for("amqps://guest:guest@localhost:1/%2F", **given))
    assert isinstance(error, Misconfigured)
    assert names in str(error)


async def test_certificates_for_a_connection_without_tls_are_a_mistake(files: dict[str, Path]) -> None:
    error = await refusal(settings_for("amqp://guest:guest@localhost:1/%2F", ca_file=files["ca"]))
    assert "amqps://" in str(error)


@contextlib.asynccontextmanager
async def silent_server(greeting: bytes = b"") -> AsyncIterator[int]:
    """A server that accepts connections and is no broker; yields its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(greeting)
            await reader.read(100)
            while not greeting and await reader.read(100):
                pass

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
