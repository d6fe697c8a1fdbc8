"""RabbitMQ of a wanted version: the installed one if it fits, else a folder that is made once, else what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pika
import private_broker as runner
import psutil
import pytest
import rabbitmq_container
import rabbitmq_folder
import rabbitmq_install
from ports import broker_version, poll

from tests.support.polling import until

SCRIPTS = Path(rabbitmq_folder.__file__).parent
NAME = "debian-trixie-rabbitmq-server"
# Stand-ins. `unshare` runs the command after its options; `debootstrap` records its arguments and makes a directory.
UNSHARE = '#!/bin/sh\nwhile case $1 in -*) true;; *) false;; esac; do shift; done\nexec "$@"\n'
DEBOOTSTRAP = '#!/bin/sh\necho "$@" >>{record}\nfor target; do [ ! -d "$target" ] || break; done\n{then}\n'
ENSURE = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\nimport rabbitmq_folder\n"
ENSURE += "print(rabbitmq_folder.ensure('trixie', 'rabbitmq-server'), flush=True)\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose `bin` is first on the PATH, on a machine without RabbitMQ, with an empty cache in `cache`."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("AUTOTAG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(rabbitmq_install, "PACKAGED", tmp_path / "nothing")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(tmp_path / "bin/unshare", UNSHARE)
    program(tmp_path / "bin/apt-get", "#!/bin/sh\n")
    program(tmp_path / "bin/apt-cache", "#!/bin/sh\necho '  Candidate: 3.10.8-1'\n")
    program(tmp_path / "bin/apt-config", "#!/bin/sh\n")
    return tmp_path


def debootstrap(machine: Path, then: str) -> Path:
    """Install a stand-in that goes on with `then`, where `$target` is the directory; returns the file it records to."""
    record = machine / "record"
    program(machine / "bin/debootstrap", DEBOOTSTRAP.format(record=record, then=then))
    return record


class TestAFolder:
    def test_two_at_once_make_it_once_and_it_is_kept(self, machine: Path) -> None:
        record = debootstrap(machine, 'sleep 0.5; mkdir "$target/usr"')
        both = [
            subprocess.Popen([sys.executable, "-c", ENSURE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        outcomes = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], outcomes
        root = rabbitmq_folder.cache() / NAME
        assert [out.strip() for out, _ in outcomes] == [str(root)] * 2
        assert (root / "usr").is_dir()
        (arguments,) = record.read_text().splitlines()
        assert arguments.startswith("--variant=minbase --include=rabbitmq-server trixie ")
        assert rabbitmq_folder.ensure("trixie", "rabbitmq-server") == root
        assert len(record.read_text().splitlines()) == 1

    @needs_root
    def test_it_holds_no_device_that_a_copying_program_would_read_for_ever(self, machine: Path) -> None:
        debootstrap(machine, 'mkdir "$target/dev" && mknod "$target/dev/full" c 1 7 && touch "$target/dev/file"')
        root = rabbitmq_folder.ensure("trixie", "rabbitmq-server")
        assert [each.name for each in (root / "dev").iterdir()] == ["file"]

    def test_its_folder_is_not_among_the_models(self, machine: Path) -> None:
        debootstrap(machine, ":")
        rabbitmq_folder.ensure("trixie", "rabbitmq-server")
        assert not (machine / "cache").exists()

    def test_one_that_cannot_be_made_leaves_nothing_and_the_error_shows_why(self, machine: Path) -> None:
        debootstrap(machine, 'mkdir "$target/usr"; echo "E: no such release"; exit 3')
        with pytest.raises(rabbitmq_folder.BuildError, match=r"(?s)status 3.*E: no such release"):
            rabbitmq_folder.ensure("trixie", "rabbitmq-server")
        assert [path.name for path in rabbitmq_folder.cache().iterdir()] == [f"{NAME}.lock"]

    @needs_root
    def test_killed_while_it_is_made_no_process_goes_on_and_the_next_run_starts_afresh(self, machine: Path) -> None:
        (machine / "bin/unshare").unlink()  # the real one
        debootstrap(machine, f'mkdir "$target/usr"; echo "$target" >{machine}/begun; exec sleep 1000.{os.getpid()}')
        with subprocess.Popen([sys.executable, "-c", ENSURE], stderr=subprocess.PIPE) as process:
            poll(lambda: (machine / "begun").exists() and sleepers() != [], "it has begun", 30)
            process.kill()
        poll(lambda: sleepers() == [], "nothing of it runs", 10)
        (machine / "bin/debootstrap").unlink()
        debootstrap(machine, 'mkdir "$target/usr"')
        rabbitmq_folder.ensure("trixie", "rabbitmq-server")
        assert {path.name for path in rabbitmq_folder.cache().iterdir()} == {NAME, f"{NAME}.lock"}

    @needs_root
    def test_what_is_mounted_for_a_command_inside_is_seen_by_no_other_process(self, tmp_path: Path) -> None:
        # The folder is this machine's root, so that there are programs in it
        inside = subprocess.run(
            [*rabbitmq_folder.inside(Path("/")), "cat", "/proc/self/mounts"], capture_output=True, text=True, check=True
        ).stdout
        assert inside.count("\n") > Path("/proc/self/mounts").read_text().count("\n")
        made = tmp_path / "made-inside"
        subprocess.run([*rabbitmq_folder.inside(Path("/")), "touch", str(made)], check=True)
        assert made.exists()
        before = Path("/proc/self/mounts").read_text()
        subprocess.run([*rabbitmq_folder.inside(Path("/")), "true"], check=True)
        assert Path("/proc/self/mounts").read_text() == before

    def test_the_mirror_and_the_proxy_are_those_of_apt(self, machine: Path) -> None:
        program(
            machine / "bin/apt-get",
            "#!/bin/sh\necho 'Vendor|stable|main|https://vendor.example/apt/'\n"
            "echo 'Debian|bookworm-security|main|http://mirror.example/security/'\n"
            "echo 'Debian|bookworm|main|http://mirror.example/debian/'\n",
        )
        program(machine / "bin/apt-config", "#!/bin/sh\nprintf http://proxy.example:3128/\n")
        record = debootstrap(
            machine, 'mkdir "$target/usr"; echo "$http_proxy" >>{record}'.replace("{record}", str(machine / "record"))
        )
        rabbitmq_folder.ensure("trixie", "rabbitmq-server")
        arguments, proxy = record.read_text().splitlines()
        assert arguments.split()[-1] == "http://mirror.example/debian"
        assert proxy == "http://proxy.example:3128/"


def sleepers() -> list[int]:
    """The processes of this test's stand-in that are still there."""
    name = f"1000.{os.getpid()}"
    return [each.pid for each in psutil.process_iter(["cmdline"]) if name in (each.info["cmdline"] or [])]


class TestWhichOneIsTaken:
    def test_an_installed_one_of_the_wanted_version(self, machine: Path) -> None:
        server = program(machine / "opt/rabbitmq_server-4.1.3/sbin/rabbitmq-server", "#!/bin/sh\n")
        (machine / "bin/rabbitmq-server").symlink_to(server)
        found = rabbitmq_install.ensure(4)
        assert (found.server, found.root) == (machine / "bin/rabbitmq-server", None)
        assert found.command("epmd") == ["epmd"]

    def test_a_folder_where_another_version_is_installed(self, machine: Path) -> None:
        server = program(machine / "opt/rabbitmq_server-3.10.8/sbin/rabbitmq-server", "#!/bin/sh\n")
        (machine / "bin/rabbitmq-server").symlink_to(server)
        erts = "usr/lib/erlang/erts-15.2/bin"
        debootstrap(machine, f'mkdir -p "$target/{erts}"; touch "$target/{erts}/epmd"')
        found = rabbitmq_install.ensure(4)
        assert found.root == rabbitmq_folder.cache() / NAME
        assert found.tool("epmd") == f"/{erts}/epmd"
        assert found.command("epmd")[0] == "unshare"
        assert (
            rabbitmq_install.ensure(None).server == rabbitmq_install.ensure(3).server == machine / "bin/rabbitmq-server"
        )

    def test_one_that_names_no_version_in_its_path_is_asked(self, machine: Path) -> None:
        program(machine / "bin/rabbitmq-server", "#!/bin/sh\n")
        program(machine / "bin/rabbitmqctl", "#!/bin/sh\necho 4.2.0\n")
        assert rabbitmq_install.ensure(4).root is None

    def test_without_root_the_error_names_the_ways_and_a_container_is_taken_where_there_is_one(
        self, machine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        debootstrap(machine, "exit 1")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("AUTOTAG_TEST_BROKER", "4")
        monkeypatch.setattr(rabbitmq_container, "engine", lambda: None)
        with pytest.raises(rabbitmq_install.NotInstalledError, match=r"RabbitMQ 4 is wanted.*as root.*or install"):
            runner.private_or_container()
        record = machine / "engine"

        def ran() -> bool:
            return record.exists() and "\n" in record.read_text()

        program(machine / "bin/docker", f"#!/bin/sh\necho $* >>{record}\n")
        monkeypatch.setattr(rabbitmq_container, "engine", lambda: "docker")
        monkeypatch.setattr(rabbitmq_container, "START_TIMEOUT_S", 0.5)
        monkeypatch.setattr(rabbitmq_container, "speaks_amqp", lambda _port: not until(ran, "the engine ran"))
        with pytest.raises(TimeoutError), runner.private_or_container():
            pass
        assert record.read_text().splitlines()[0].endswith("/rabbitmq:4")

    def test_a_version_that_there_is_not_is_refused_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTOTAG_TEST_BROKER", "5")
        with pytest.raises(rabbitmq_install.NotInstalledError, match=r"BROKER .* is 3 or 4, not '5'"):
            rabbitmq_install.wanted_version()


def test_a_named_broker_is_used_if_its_version_is_the_wanted_one(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = pika.URLParameters(broker)
    version = (broker_version(parameters.port, parameters.host) or "").partition(".")[0]
    assert version in {"3", "4"}
    monkeypatch.setenv("AUTOTAG_TEST_BROKER", version)
    assert runner.objection(parameters.host, parameters.port, tls=False) is None
    monkeypatch.delenv("AUTOTAG_TEST_BROKER")
    assert runner.objection(parameters.host, parameters.port, tls=False) is None
    monkeypatch.setenv("AUTOTAG_TEST_BROKER", {"3": "4", "4": "3"}[version])
    assert f"has version {version}." in str(runner.objection(parameters.host, parameters.port, tls=False))
    assert runner.objection(parameters.host, 1, tls=False) == "does not answer"
