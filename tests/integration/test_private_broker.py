"""The broker that other tests break: it breaks as requested, and nothing of it is left, whichever process ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import psutil
import pytest
import trustme
from ports import accepts_connections, poll
from rabbitmq_node import BrokerError, PrivateBroker, TlsFiles

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/private_broker.py"
START_LIMIT_S = 30.0
QUORUM = {"x-queue-type": "quorum"}

pytestmark = pytest.mark.broker  # some start theirs without a fixture

StartBroker = Callable[..., PrivateBroker]


def connect(url: str, **changes: Any) -> pika.BlockingConnection:
    parameters = pika.URLParameters(url)
    for name, value in changes.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


def publish_confirmed(url: str, queue: str, body: bytes) -> None:
    connection = connect(url)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True, arguments=QUORUM)
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
    connection.close()


def get(url: str, queue: str) -> bytes | None:
    connection = connect(url)
    body: bytes | None
    _, _, body = connection.channel().basic_get(queue, auto_ack=True)
    connection.close()
    return body


def processes_of(directory: Path) -> list[psutil.Process]:
    """Living processes that name the directory in their command line, environment or as their home."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue  # ended meanwhile, a zombie, or another user's
        if any(str(directory) in word for word in words):
            found.append(process)
    return found


def listening_beyond_loopback(pids: set[int]) -> list[str]:
    sockets = [each for each in psutil.net_connections("inet") if each.status == "LISTEN" and each.pid in pids]
    assert sockets
    addresses = [each.laddr for each in sockets]
    return [f"{address}" for address in addresses if not address or address.ip not in {"127.0.0.1", "::1"}]


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    """One node for all tests that leave it unchanged, since a start takes some seconds."""
    with PrivateBroker() as broker:
        yield broker


class TestANode:
    def test_two_nodes_run_side_by_side_and_independently(self, private_broker: StartBroker) -> None:
        first, second = private_broker(), private_broker()
        publish_confirmed(first.url, "q", b"first")
        publish_confirmed(second.url, "q", b"second")
        assert get(first.url, "q") == b"first"
        first.kill()
        assert get(second.url, "q") == b"second"

    def test_it_listens_on_loopback_only_and_leaves_no_process_socket_or_file(self) -> None:
        with PrivateBroker(management=True) as broker:
            directory = broker.directory
            processes = processes_of(directory)
            names = {process.name() for process in processes}
            assert {"beam.smp", "epmd"} <= names
            assert listening_beyond_loopback({process.pid for process in processes}) == []
            assert directory.stat().st_mode & 0o077 == 0
        assert processes_of(directory) == []
        assert not directory.exists()
        assert not accepts_connections(broker.port)

    def test_confirmed_messages_survive_a_kill_and_an_orderly_restart(self, private_broker: StartBroker) -> None:
        broker = private_broker()
        publish_confirmed(broker.url, "q", b"kept")
        broker.flush_metadata()
        before = broker.pid
        broker.kill()
        assert not broker.running
        assert not accepts_connections(broker.port)
        broker.start()
        assert broker.pid != before
        broker.restart()
        assert get(broker.url, "q") == b"kept"

    def test_a_node_that_has_started_obeys_rabbitmqctl_at_once(self, private_broker: StartBroker) -> None:
        broker = private_broker()
        assert broker.eval("rabbit:is_running()") == "true"  # the question before commands such as add_user
        broker.restart()
        assert broker.eval("rabbit:is_running()") == "true"

    def test_a_paused_node_keeps_connections_open_and_is_silent(self, node: PrivateBroker) -> None:
        node.pause()
        with socket.create_connection(("127.0.0.1", node.port), timeout=1) as connection:
            connection.settimeout(0.3)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            node.resume()
            connection.settimeout(10)
            assert connection.recv(1) == b"\x01"

    @pytest.mark.parametrize("resource", ["memory", "disk"])
    def test_an_alarm_blocks_publishers_until_it_is_lifted(self, node: PrivateBroker, resource: str) -> None:
        alarm = {"memory": node.set_memory_alarm, "disk": node.set_disk_alarm}[resource]
        publish_confirmed(node.url, "q", b"before")
        alarm(True)
        assert node.alarms() == {resource}
        channel = connect(node.url, blocked_connection_timeout=0.3).channel()
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ConnectionBlockedTimeout):
            channel.basic_publish("", "q", b"blocked")
        alarm(False)
        assert node.alarms() == set()
        publish_confirmed(node.url, "q", b"after")

    def test_an_operator_closes_every_connection(self, node: PrivateBroker) -> None:
        connection = connect(node.url)
        assert node.close_connections() == 1
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="CONNECTION_FORCED"):
            connection.process_data_events(time_limit=5)

    def test_commands_reach_this_node_and_a_wrong_one_is_an_error(self, node: PrivateBroker) -> None:
        node.ctl("add_vhost", "other/one")
        node.ctl("set_permissions", "--vhost", "other/one", "autotag", ".*", ".*", ".*")
        connect(node.url_of("other/one")).close()
        assert "other/one" in node.eval("[binary_to_list(Name) || Name <- rabbit_vhost:list_names()]")
        with pytest.raises(BrokerError, match="no_such_module"):
            node.eval("no_such_module:f()")

    def test_tls_with_client_certificates(self, private_broker: StartBroker, tmp_path: Path) -> None:
        authority = trustme.CA()
        server, client = authority.issue_cert("localhost"), authority.issue_cert("worker")
        files = TlsFiles(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem", client_certificates=True)
        authority.cert_pem.write_to_path(files.authority)
        server.cert_chain_pems[0].write_to_path(files.certificate)
        server.private_key_pem.write_to_path(files.key)
        broker = private_broker(tls=files)

        context = ssl.create_default_context(cafile=files.authority)
        client.configure_cert(context)
        connect(broker.tls_url, ssl_options=pika.SSLOptions(context, "localhost")).close()
        without = ssl.create_default_context(cafile=files.authority)
        with pytest.raises((pika.exceptions.AMQPConnectionError, OSError)):
            connect(broker.tls_url, ssl_options=pika.SSLOptions(without, "localhost"))

    def test_the_error_of_a_node_that_cannot_start_holds_the_reason(self) -> None:
        broker = PrivateBroker()
        (broker.directory / "rabbitmq.conf").write_text("no_such_setting = 1\n")
        with pytest.raises(BrokerError, match="no_such_setting"), broker:
            pass
        assert not broker.directory.exists()


class TestItsStarterDies:
    PROGRAM = (
        f"import sys, time; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from rabbitmq_node import PrivateBroker\n"
        "with PrivateBroker() as broker:\n"
        "    print(broker.directory, flush=True)\n"
        "    {then}\n"
        "    time.sleep(60)\n"
    )

    @pytest.mark.parametrize("then", ["pass", "broker.pause()"], ids=["running", "paused"])
    def test_nothing_is_left_when_it_is_killed(self, then: str) -> None:
        program = self.PROGRAM.replace("{then}", then)
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            directory = Path(process.stdout.readline().strip())
            assert any(each.name() == "beam.smp" for each in processes_of(directory))
            process.kill()
        poll(lambda: processes_of(directory) == [] and not directory.exists(), "all is gone", 10)

    def test_no_process_is_left_when_the_guardian_is_killed_too(self) -> None:
        program = self.PROGRAM.replace("{then}", "pass")
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            directory = Path(process.stdout.readline().strip())
            (guardian,) = psutil.Process(process.pid).children()
            guardian.kill()
            poll(lambda: processes_of(directory) == [], "the broker is gone", 10)
            process.kill()
        shutil.rmtree(directory)  # no process was left to remove it


class TestTheRunner:
    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), "run", "--", *command],
            env={name: value for name, value in os.environ.items() if name != "AUTOTAG_AMQP__URL"} | variables,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def test_a_private_broker_lives_as_long_as_the_command_whose_status_is_returned(self, tmp_path: Path) -> None:
        program = (
            "import os, sys, pika\n"
            "url = os.environ['AUTOTAG_AMQP__URL']\n"
            "pika.BlockingConnection(pika.URLParameters(url)).close()\n"
            "print(url)\n"
            "sys.exit(7)\n"
        )
        done = self.run(sys.executable, "-c", program)
        assert done.returncode == 7, done.stderr
        assert "a private RabbitMQ at 127.0.0.1:" in done.stderr
        assert not accepts_connections(pika.URLParameters(done.stdout.strip()).port)

    def test_a_named_broker_that_answers_is_used(self, node: PrivateBroker) -> None:
        done = self.run("printenv", "AUTOTAG_AMQP__URL", AUTOTAG_AMQP__URL=node.url)
        assert done.stdout.strip() == node.url
        assert "using 127.0.0.1" in done.stderr
        assert "private" not in done.stderr
        assert node.url not in done.stderr  # it holds a password
        assert node.running

    def test_a_named_broker_that_does_not_answer_is_replaced(self) -> None:
        done = self.run("printenv", "AUTOTAG_AMQP__URL", AUTOTAG_AMQP__URL="amqp://guest:guest@127.0.0.1:1/%2F")
        assert done.returncode == 0, done.stderr
        assert "does not answer" in done.stderr
        assert "127.0.0.1:1/" not in done.stdout

    def test_a_command_that_does_not_exist_is_named(self, node: PrivateBroker) -> None:
        done = self.run("no-such-command", AUTOTAG_AMQP__URL=node.url)
        assert done.returncode == 127
        assert "no-such-command" in done.stderr

    @pytest.mark.parametrize(
        ("number", "status"),
        [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
        ids=["SIGTERM", "SIGKILL"],
    )
    def test_a_signal_to_the_runner_ends_command_and_broker(self, number: signal.Signals, status: int) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "AUTOTAG_AMQP__URL"}
        with subprocess.Popen(
            [sys.executable, str(SCRIPT), "run", "--", "sleep", "60"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as runner:
            try:
                assert runner.stderr is not None
                assert "a private RabbitMQ" in runner.stderr.readline()
                poll(
                    lambda: "sleep" in {each.name() for each in psutil.Process(runner.pid).children()}, "sleep runs", 10
                )
                started = psutil.Process(runner.pid).children(recursive=True)
                assert "beam.smp" in {process.name() for process in started}
                runner.send_signal(number)
                assert runner.wait(timeout=START_LIMIT_S) == status
            finally:
                runner.kill()  # else a failure would wait for the command, which has no end
        poll(lambda: not any(is_alive(process) for process in started), "all is gone", 10)

    def test_a_terminal_interrupt_is_left_to_the_command(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "AUTOTAG_AMQP__URL"}
        shell = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done"
        with subprocess.Popen(
            [sys.executable, str(SCRIPT), "run", "--", "sh", "-c", shell],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        ) as runner:
            try:
                assert runner.stdout is not None
                assert runner.stdout.readline() == "ready\n"
                # The runner begins to ignore SIGINT just after it has started the command
                poll(lambda: ignores(runner.pid, signal.SIGINT), "the runner leaves SIGINT to the command", 10)
                os.killpg(runner.pid, signal.SIGINT)
                assert runner.stdout.readline() == "interrupted\n"
                assert runner.wait(timeout=START_LIMIT_S) == 5
            finally:
                runner.kill()


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal."""
    words = Path(f"/proc/{pid}/status").read_text().split()
    return bool(int(words[words.index("SigIgn:") + 1], 16) >> number - 1 & 1)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie that its new parent has not collected yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
