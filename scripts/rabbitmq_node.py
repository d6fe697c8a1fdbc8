"""A private RabbitMQ node, which tests may break.

Each node has its own ports, name, directory, cookie and epmd, all on loopback. Several can run side by side, and none
interferes with a RabbitMQ that is on the machine already. A node ends when the process that started it ends.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import rabbitmq_install
from guardian import GuardedProcesses
from ports import accepts_connections, free_ports, poll, speaks_amqp

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
EPMD_TIMEOUT_S = 10.0
MEMORY_LIMIT_BYTES = 1_000_000_000
DISK_FREE_LIMIT_BYTES = 50_000_000
USER = "autotag"

# One scheduler thread and no busy waiting: the broker shares the machine with the code under test.
ERLANG_ARGUMENTS = (
    "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +SDcpu 1:1 +SDio 4 +sbwt none +sbwtdcpu none +sbwtdio none"
)

# Otherwise an idle queue keeps the memory of large messages that it has handed out, and a memory alarm stays.
CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
log.console = false
log.file = {directory}/node.log
vm_memory_high_watermark.absolute = {memory_limit}
disk_free_limit.absolute = {disk_free_limit}
raft.wal_max_size_bytes = 16777216
background_gc_enabled = true
background_gc_target_interval = 10000
"""
CONFIGURATION_MANAGEMENT = """\
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
"""
CONFIGURATION_TLS = """\
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {authority}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = {verify}
ssl_options.fail_if_no_peer_cert = {require}
"""


class BrokerError(Exception):
    """The node did not start, did not stop, or refused a command; the message holds its output."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for a TLS listener. With `client_certificates`, clients have to present one too."""

    authority: Path
    certificate: Path
    key: Path
    client_certificates: bool = False


def _ended(pidfd: int) -> bool:
    waiting = select.poll()  # select.select takes no descriptor beyond 1,023
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(0))


class PrivateBroker:
    """One RabbitMQ node and its epmd. A context manager: started on entry; ended, with its directory, on exit.

    `configuration` is added to its rabbitmq.conf.
    """

    def __init__(self, *, management: bool = False, tls: TlsFiles | None = None, configuration: str = "") -> None:
        self._installation = rabbitmq_install.ensure(rabbitmq_install.wanted_version())
        epmd = self._installation.tool("epmd")
        self.directory = Path(tempfile.mkdtemp(prefix="autotag-broker-"))
        self.port, self._dist_port, self._epmd_port, self._management_port, self.tls_port = free_ports(5)
        self._node = f"autotag-{secrets.token_hex(4)}@localhost"
        self._password = secrets.token_hex(8)
        self._management, self._tls, self._configuration = management, tls, configuration
        self._pidfd: int | None = None
        self.pid: int | None = None
        self._write_configuration()
        self._processes = GuardedProcesses(self.directory)
        self._spawn(epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1")

    # Addresses

    @property
    def url(self) -> str:
        """AMQP URL of the virtual host `/`."""
        return self.url_of("/")

    def url_of(self, vhost: str, user: str = USER, password: str | None = None) -> str:
        """AMQP URL of any virtual host, for any user."""
        return f"amqp://{user}:{password or self._password}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    @property
    def tls_url(self) -> str:
        """AMQPS URL with the host name `localhost`, for which the certificate has to be valid."""
        return f"amqps://{USER}:{self._password}@localhost:{self.tls_port}/%2F"

    @property
    def management_url(self) -> str:
        """Base URL of the management API, with user and password. Works only with `management=True`."""
        return f"http://{USER}:{self._password}@127.0.0.1:{self._management_port}"

    # Starting and stopping

    def start(self) -> None:
        """Start the node, with the data it stored before, and wait until it serves. Raises BrokerError."""
        if self.running:
            raise BrokerError("The broker is running already.")
        poll(lambda: accepts_connections(self._epmd_port), "epmd listens", EPMD_TIMEOUT_S)
        self._release()
        self.pid = self._spawn(str(self._installation.server))
        try:
            # A pidfd, unlike a process id, cannot denote another process after this one has ended.
            self._pidfd = os.pidfd_open(self.pid)
            poll(lambda: self._serves() or not self.running, "the broker answers", START_TIMEOUT_S)
        except ProcessLookupError:
            pass  # it ended at once
        if not self.running:
            lines = self.log.splitlines()
            errors = [line for line in lines if "[error]" in line][
                :12
            ]  # the cause comes first, pages of reports follow
            raise BrokerError("\n".join(["RabbitMQ ended while starting. It said:", *(errors or lines[-12:])]))

    def _serves(self) -> bool:
        """Whether every listener is there, TLS the last, and rabbitmqctl is obeyed, which begins after them."""
        others = [self.tls_port] * bool(self._tls) + [self._management_port] * self._management
        return speaks_amqp(self.port) and all(map(accepts_connections, others)) and self._obeys()

    def _obeys(self) -> bool:
        """Whether the node has ended its start: rabbitmqctl asks the same before most of its commands."""
        try:
            return self.eval("rabbit:is_running()") == "true"
        except BrokerError:
            return False  # it takes no questions yet, or has ended

    @property
    def running(self) -> bool:
        """Whether the node's process is running, even if paused or not yet ready."""
        return self._pidfd is not None and not _ended(self._pidfd)

    def stop(self) -> None:
        """Shut down in order: clients get a `connection.close`, messages stay on disk for the next `start`."""
        self._signal(signal.SIGTERM)
        self._wait_until_gone()

    def kill(self) -> None:
        """Send SIGKILL. Clients see their connections end; `start` works afterwards. See `flush_metadata`."""
        self._signal(signal.SIGKILL)
        self._wait_until_gone()

    def flush_metadata(self) -> None:
        """Make queues that were declared just now survive a `kill`.

        RabbitMQ 3.10 writes the directory of quorum queues about a second after a declaration. Killed before that, it
        restarts with the queue's name but without its log: confirmed messages are lost, and no leader is ever elected.
        """
        self.eval("[dets:sync(Table) || Table <- dets:all()]")

    def restart(self) -> None:
        """Stop in order and start again, on the same ports and with the same messages."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the node with SIGSTOP: connections stay open, and it does not reply."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the node and its epmd and remove the directory. Closing twice is harmless."""
        self._processes.close()
        self._release()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Operations

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return its output. Takes half a second; use `eval` for repeated queries."""
        script = self._installation.server.with_name("rabbitmqctl")
        return self._command([str(script), "--quiet", "--node", self._node, *arguments])

    def eval(self, expression: str) -> str:
        """Evaluate an Erlang expression (no full stop) inside the node and return its value as Erlang prints it.

        Takes milliseconds. Erlang prints a binary as `#Bin<…>`; use `binary_to_list(…)` to read it. Raises BrokerError.
        """
        argv = [self._installation.tool("erl_call"), "-sname", self._node, "-timeout", "20", "-e"]
        output = self._command(argv, f"{expression}.\n")
        if not output.startswith("{ok, "):
            raise BrokerError(f"{expression}: {output}")
        return output.removeprefix("{ok, ").removesuffix("}")

    def set_memory_alarm(self, on: bool) -> None:
        """Raise or clear the node's memory alarm, which blocks publishers; returns once the node reports it."""
        limit_bytes = 1 if on else MEMORY_LIMIT_BYTES
        self.eval(f"vm_memory_monitor:set_vm_memory_high_watermark({{absolute, {limit_bytes}}})")
        poll(lambda: ("memory" in self.alarms()) is on, f"memory alarm {on}", STOP_TIMEOUT_S)

    def set_disk_alarm(self, on: bool) -> None:
        """Raise or clear the node's disk alarm, which blocks publishers; returns once the node reports it."""
        limit_bytes = 1 << 60 if on else DISK_FREE_LIMIT_BYTES
        self.eval(f"rabbit_disk_monitor:set_disk_free_limit({limit_bytes})")
        poll(lambda: ("disk" in self.alarms()) is on, f"disk alarm {on}", STOP_TIMEOUT_S)

    def alarms(self) -> set[str]:
        """Resources for which the node has raised an alarm: `memory`, `disk`."""
        raised = self.eval("[R || {{resource_limit, R, _}, _} <- rabbit_alarm:get_alarms()]")
        return {resource for resource in ("memory", "disk") if resource in raised}

    def close_connections(self) -> int:
        """Close every client's connection, as an operator can (reply code 320); returns how many there were."""
        close = 'rabbit_networking:close_connection(C, "closed by the operator")'
        return int(self.eval(f"length([{close} || C <- rabbit_networking:connections()])"))

    @property
    def log(self) -> str:
        """Everything the node has logged, on the console and in its file."""
        files = (self._console, self.directory / "node.log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    # Internals

    @property
    def _console(self) -> Path:
        return self.directory / "console.log"

    def _write_configuration(self) -> None:
        parts = [CONFIGURATION]
        values: dict[str, object] = {
            "port": self.port,
            "user": USER,
            "password": self._password,
            "directory": self.directory,
            "memory_limit": MEMORY_LIMIT_BYTES,
            "disk_free_limit": DISK_FREE_LIMIT_BYTES,
            "management_port": self._management_port,
            "tls_port": self.tls_port,
        }
        if self._management:
            parts.append(CONFIGURATION_MANAGEMENT)
        if self._tls:
            parts.append(CONFIGURATION_TLS)
            required = self._tls.client_certificates
            values |= {
                "authority": self._tls.authority,
                "certificate": self._tls.certificate,
                "key": self._tls.key,
                "verify": "verify_peer" if required else "verify_none",
                "require": str(required).lower(),
            }
        text = "".join(parts).format_map(values) + self._configuration
        (self.directory / "rabbitmq.conf").write_text(text)
        (self.directory / "enabled_plugins").write_text("[rabbitmq_management].\n" if self._management else "[].\n")
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)

    def _environment(self) -> dict[str, str]:
        """The environment of the node and its tools. Ours is not inherited: it may hold RABBITMQ_… variables."""
        here = str(self.directory)
        return {
            "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": here,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": os.devnull,
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONF_ENV_FILE": f"{here}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": here,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_ARGUMENTS,
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",  # 0 to 0: any free port
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
            # Has the start script exec the Erlang VM instead of waiting for it: its process id is then the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _spawn(self, *argv: str) -> int:
        return self._processes.spawn(self._installation.command(*argv), self._environment(), self._console)

    def _command(self, argv: Sequence[str], text: str = "") -> str:
        try:
            done = subprocess.run(
                self._installation.command(*argv),
                check=False,
                env=self._environment(),
                input=text,
                capture_output=True,
                text=True,
                timeout=STOP_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerError(f"{argv[0]} got no answer from the broker in {STOP_TIMEOUT_S:g} s.") from error
        if done.returncode != 0:
            raise BrokerError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is None or not self.running:
            raise BrokerError("The broker is not running.")
        signal.pidfd_send_signal(self._pidfd, number)

    def _wait_until_gone(self) -> None:
        poll(lambda: not self.running, "RabbitMQ ended", STOP_TIMEOUT_S)
        self._release()

    def _release(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._pidfd = self.pid = None
