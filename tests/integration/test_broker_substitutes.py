"""Where RabbitMQ is missing: the package is installed, else a container is used, else the error says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pika
import private_broker as runner
import pytest
import rabbitmq_container
import rabbitmq_install
from ports import poll, speaks_amqp

from tests.support.polling import until

# A stand-in for docker, which records its arguments. `run` replies to AMQP's protocol header on the published port.
ENGINE = """#!{python}
import pathlib, socket, sys
pathlib.Path({record!r}).open("a").write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "run":
    host, port, _ = sys.argv[sys.argv.index("--publish") + 1].split(":")
    with socket.create_server((host, int(port))) as server:
        while True:
            connection, _ = server.accept()
            connection.recv(8)
            connection.sendall(b"\\x01")
            connection.close()
"""


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the whole PATH, on a machine without RabbitMQ."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AUTOTAG_TEST_BROKER", raising=False)
    monkeypatch.setattr(rabbitmq_install, "PACKAGED", tmp_path / "nothing")
    monkeypatch.setattr(rabbitmq_install, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


class TestInstalling:
    def test_the_service_of_the_package_is_not_started(self, only_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = only_path / "rabbitmq-server"
        monkeypatch.setattr(rabbitmq_install, "PACKAGED", server)
        program(
            only_path / "apt-get",
            f'#!/bin/sh\necho "$@" >>{only_path}/record\n'
            f"case $* in *install*) {only_path}/policy-rc.d; echo policy returned $? >>{only_path}/record\n"
            f": >{server}; /bin/chmod 755 {server};; esac\n",
        )
        assert rabbitmq_install.install() == server
        update, install, policy = (only_path / "record").read_text().splitlines()
        assert update.endswith("update")
        assert "install --yes --no-install-recommends rabbitmq-server" in install
        assert policy == "policy returned 101"
        assert not (only_path / "policy-rc.d").exists()

    def test_a_failure_shows_the_output_of_apt_get(self, only_path: Path) -> None:
        program(only_path / "apt-get", "#!/bin/sh\necho 'E: no such package' >&2\nexit 100\n")
        with pytest.raises(rabbitmq_install.NotInstalledError, match=r"(?s)status 100.*E: no such package"):
            rabbitmq_install.install()

    def test_without_root_the_error_names_the_command(self, only_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program(only_path / "apt-get", "#!/bin/sh\n")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(rabbitmq_install.NotInstalledError, match="sudo apt-get install"):
            rabbitmq_install.install()

    @pytest.mark.usefixtures("only_path")
    def test_without_apt_get_and_containers_the_error_names_every_way(self) -> None:
        with pytest.raises(rabbitmq_install.NotInstalledError) as caught:
            runner.private_or_container()
        assert "AUTOTAG_AMQP__URL" in str(caught.value)
        assert "docker" in caught.value.__notes__[0]


class TestAContainer:
    def test_it_serves_while_it_is_needed_and_is_removed_by_name(self, only_path: Path) -> None:
        record = only_path / "record"
        program(only_path / "docker", ENGINE.format(python=sys.executable, record=str(record)))
        with runner.private_or_container() as broker:
            assert isinstance(broker, rabbitmq_container.ContainerBroker)
            port = pika.URLParameters(broker.url).port
            assert speaks_amqp(port)
        assert not speaks_amqp(port)
        _, run, remove = record.read_text().splitlines()
        name = run.split()[run.split().index("--name") + 1]
        assert f"--publish 127.0.0.1:{port}:5672" in run
        assert remove == f"rm --force {name}"

    def test_one_that_cannot_run_shows_the_output_of_the_engine(
        self, only_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ran = only_path / "ran"
        program(only_path / "docker", f"#!/bin/sh\n[ $1 != run ] || {{ echo 'no such image'; : >{ran}; }}\n")
        monkeypatch.setattr(rabbitmq_container, "START_TIMEOUT_S", 0.3)
        monkeypatch.setattr(rabbitmq_container, "speaks_amqp", lambda _port: not until(ran.exists, "the engine ran"))
        with pytest.raises(TimeoutError) as caught, runner.private_or_container():
            pass
        assert "no such image" in caught.value.__notes__[0]

    def test_it_is_removed_when_its_user_is_killed(self, only_path: Path) -> None:
        record = only_path / "record"
        program(only_path / "docker", ENGINE.format(python=sys.executable, record=str(record)))
        scripts = Path(runner.__file__).parent
        text = (
            f"import sys, time; sys.path.insert(0, {str(scripts)!r})\n"
            "from rabbitmq_container import ContainerBroker\n"
            "with ContainerBroker('docker', 'rabbitmq:4'):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as user:
            assert user.stdout is not None
            assert user.stdout.readline() == "ready\n"
            user.kill()
        poll(lambda: "rm --force" in record.read_text(), "the container is removed", 60)
