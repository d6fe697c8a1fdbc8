"""A model is a program: what a stranger's, or one that took over its child, can do with and without the sandbox."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import NoticeRecorder
from tests.support.models import built, run_python, write_package
from tests.support.polling import until
from tests.support.processes import alive
from worker.children import landlock, model, sandbox
from worker.errors import Misconfigured, Unavailable
from worker.images.content import Content
from worker.models.manifest import ModelPackage
from worker.supervision.model_pool import ModelOptions, ModelPool

ROOT = Path(__file__).parents[2]

# It stands in the model child's place: the same imports and the same way into the sandbox, then what each attempt gave.
_INSIDE = """
import ctypes, errno, fcntl, json, os, signal, socket, sys, threading
from pathlib import Path
import worker.models.runtimes.litert
from worker.children import landlock, sandbox, seccomp

how, package, scratch, secret_at = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
parent = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
unconnected, unbound = socket.socket(), socket.socket()

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "denied")
    return result

def memory_of_the_parent():
    found = ctypes.create_string_buffer(16)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(found), 16)
    there = (ctypes.c_size_t * 2)(secret_at, 16)
    checked(libc.process_vm_readv(parent, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0)))
    assert found.raw == b"sixteen secrets!"

def memory_file_of_the_parent():
    with open(f"/proc/{parent}/mem", "rb", buffering=0) as memory:
        assert os.pread(memory.fileno(), 16, secret_at) == b"sixteen secrets!"

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def execute():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    assert os.waitpid(pid, 0)[1] == 0

def start_a_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

def connect():
    try:
        unconnected.connect(("127.0.0.1", 9))
    except ConnectionRefusedError:
        pass

attempts = {
    "read a file": lambda: open("/etc/passwd").close(),
    "list a directory": lambda: os.listdir("/etc"),
    "read the parent's environment": lambda: open(f"/proc/{parent}/environ", "rb").read(),
    "open the parent's descriptors": lambda: os.listdir(f"/proc/{parent}/fd"),
    "read the parent's memory": memory_of_the_parent,
    "read the parent's memory as a file": memory_file_of_the_parent,
    "trace the parent": lambda: checked(libc.ptrace(0x4206, parent, None, None)),
    "take the parent's descriptor": lambda: os.close(checked(libc.syscall(438, os.pidfd_open(parent), 1, 0))),
    "signal the parent": lambda: os.kill(parent, 0),
    "signal it by thread": lambda: checked(libc.tgkill(parent, parent, 0)),
    "have the kernel signal the parent": lambda: fcntl.fcntl(unbound, fcntl.F_SETOWN, parent),
    "signal all": lambda: os.kill(-1, 0),
    "limit the parent": lambda: __import__("resource").prlimit(parent, 7),
    "make a socket": lambda: socket.socket().close(),
    "make a local socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "connect": connect,
    "listen": lambda: unbound.bind(("127.0.0.1", 0)),
    "start a process": fork,
    "run a program": execute,
    "write a file": lambda: (scratch / "new").write_text("secret"),
    "write into the package": lambda: (package / "new").write_text("secret"),
    "remove a file of the package": lambda: (package / "spare").unlink(),
    "make a directory": lambda: (scratch / "directory").mkdir(),
    "link to a file": lambda: (scratch / "link").symlink_to("/etc/passwd"),
    "change a mode": lambda: (package / "other").chmod(0o777),
    "make a file in memory": lambda: os.close(os.memfd_create("x")),
    "read a file of the package": lambda: (package / "other").read_bytes(),
    "list the package": lambda: os.listdir(package),
    "start a thread": start_a_thread,
}
if how == "without Landlock":
    landlock.version = lambda: 0
if how == "without seccomp":
    seccomp.library = lambda: None
level = "none" if how == "none" else sandbox.enter_for_model([package]).value
found = {"level": level}
for what, attempt in attempts.items():
    try:
        attempt()
        found[what] = "done"
    except OSError as error:
        found[what] = errno.errorcode[error.errno]
print(json.dumps(found), flush=True)
os._exit(0)
"""

FILES = {"read a file", "list a directory", "read the parent's environment", "open the parent's descriptors"}
SIGNALS = {"signal the parent", "signal it by thread", "have the kernel signal the parent"}
NEEDED = {"read a file of the package", "list the package", "start a thread"}
DENIED = ("EPERM", "EACCES")

SECRET = ctypes.create_string_buffer(b"sixteen secrets!")
"""In the memory of this process, which is the exploit's parent."""

_PR_SET_DUMPABLE = 4
_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)


def try_everything(how: str, scratch: Path, **environment: str) -> dict[str, Any]:
    package, outside = scratch / "package", scratch / "outside"
    package.mkdir()
    outside.mkdir()
    for name in ("other", "spare"):
        (package / name).write_text("part of a model")
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # a test of the command line may have turned it off
    libc.prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)  # and Yama forbids some of what no sandbox does
    done = subprocess.run(
        [sys.executable, "-c", _INSIDE, how, package, outside, str(ctypes.addressof(SECRET))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_a_sandbox_all_of_it_works(tmp_path: Path) -> None:
    found = try_everything("none", tmp_path)
    assert {what: answer for what, answer in found.items() if answer not in ("none", "done")} == {}


def test_in_the_sandbox_only_what_models_need_works(tmp_path: Path) -> None:
    found = try_everything("sandbox", tmp_path)
    if found.pop("level") != "seccomp":
        pytest.skip("this machine lacks Landlock or libseccomp")
    assert {what: answer for what, answer in found.items() if answer not in DENIED} == dict.fromkeys(NEEDED, "done")
    assert list((tmp_path / "outside").iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "package").iterdir()) == ["other", "spare"]


def test_without_landlock_nothing_but_reading_is_left_and_the_level_says_so(tmp_path: Path) -> None:
    found = try_everything("without Landlock", tmp_path)
    if found["make a socket"] == "done":
        pytest.skip("libseccomp is not installed")
    assert found.pop("level") == "limits"
    assert {what for what, answer in found.items() if answer not in DENIED} - FILES == NEEDED
    assert list((tmp_path / "outside").iterdir()) == []


def test_without_seccomp_files_and_the_parent_are_out_of_reach_and_the_level_says_so(tmp_path: Path) -> None:
    needs_landlock()
    found = try_everything("without seccomp", tmp_path)
    assert found.pop("level") == "landlock"
    left = {what for what, answer in found.items() if answer not in DENIED}
    reached = {what for what in left if "parent" in what or "file" in what or "directory" in what}
    assert reached <= {"read a file of the package", "make a file in memory", "limit the parent", *SIGNALS}
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_thread_that_would_stay_outside_is_not_kept_secret(tmp_path: Path) -> None:
    found = try_everything("sandbox", tmp_path, OPENBLAS_NUM_THREADS="2")
    assert found["level"] == ("none" if (os.cpu_count() or 1) > 1 else "seccomp")


def prying_package(directory: Path, runtime: str, read: Path, write: Path) -> ModelPackage:
    """A model that copies a file whenever it scores, by operations of its graph."""
    directory.mkdir()
    run_python("tests.support.prying_models", runtime, directory / "model", read, write)
    return write_package(
        directory,
        "model",
        ["red", "green", "blue"],
        runtime=runtime,
        input={"name": "input", "size": 8},
        output={"name": "output", "activation": "logits"},
    )


def needs_landlock() -> None:
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("runtime", ["saved_model", "graph_def"])
@pytest.mark.parametrize("wanted", ["a file", "the environment of the parent"])
async def test_a_model_that_copies_a_file_can_do_so_only_without_the_sandbox(
    tmp_path: Path, runtime: str, wanted: str
) -> None:
    needs_landlock()
    copy, secret = tmp_path / "copy", tmp_path / "secret"
    secret.write_bytes(b"a password")
    read = secret if wanted == "a file" else Path(f"/proc/{os.getpid()}/environ")
    package = prying_package(tmp_path / "package", runtime, read, copy)

    recorder = NoticeRecorder()
    async with ModelPool(ModelOptions(packages=(package.directory,)), observe=recorder) as pool:
        with pytest.raises(Unavailable, match="model small does what a model must not"):
            await pool.wait_ready()
    assert not copy.exists()
    assert [crash.cause.reason for crash in recorder.crashes()] == ["model_forbidden"]

    async with ModelPool(ModelOptions(packages=(package.directory,), sandbox="off")) as pool:
        await pool.wait_ready()
    assert copy.read_bytes() == read.read_bytes() != b"", "otherwise its denial would prove nothing"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("runtime", ["saved_model", "graph_def"])
async def test_a_model_that_writes_into_its_own_package_is_stopped(tmp_path: Path, runtime: str) -> None:
    needs_landlock()
    directory = tmp_path / "package"
    package = prying_package(directory, runtime, directory / "labels.txt", directory / "copy")
    async with ModelPool(ModelOptions(packages=(directory,))) as pool:
        with pytest.raises(Unavailable, match="model small does what a model must not"):
            await pool.wait_ready()
    assert not (package.directory / "copy").exists()


def status_of(pid: int | None) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


@pytest.mark.timeout(300)
async def test_the_built_in_model_works_in_the_strictest_sandbox(tmp_path: Path) -> None:
    package = built("efficientnet-lite0")
    options = ModelOptions(packages=(package.directory,), threads=2, sandbox="best")
    async with ModelPool(options) as pool:
        await pool.wait_ready()
        [child] = pool.states()
        if child.hello["sandbox"] != "seccomp":
            pytest.skip("this machine lacks Landlock or libseccomp")
        side = package.manifest.input.size
        with Content.from_bytes(bytes(side * side * 3), "black") as pixels:
            assert len(await pool.score(pixels.fd, 0.0)) == 1000
        fields = status_of(child.pid)
    assert fields["NoNewPrivs"] == "1"
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


def test_a_sandboxed_model_ends_with_its_parent() -> None:
    directory = built("efficientnet-lite0").directory
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, directory], cwd=ROOT, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        [pid] = (int(word) for word in parent.stdout.readline().split())
        assert alive([pid])
        parent.kill()
        parent.wait()
        until(lambda: not alive([pid]), f"{pid} has ended")


# The model child is stopped, so that it cannot detect its parent's end by itself.
_PARENT = """
import asyncio, os, signal, sys, structlog
from pathlib import Path
from worker.supervision.model_pool import ModelOptions, ModelPool
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    async with ModelPool(ModelOptions(packages=(Path(sys.argv[1]),), threads=1)) as pool:
        await pool.wait_ready()
        pid = pool.states()[0].pid
        os.kill(pid, signal.SIGSTOP)
        print(pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_package_may_be_named_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(built("efficientnet-lite0").directory)
    async with ModelPool(ModelOptions(packages=(link,), threads=1)) as pool:
        await pool.wait_ready()


def test_what_is_asked_for_strictly_and_not_reached_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "enter_for_model", lambda _package: sandbox.Level.LANDLOCK)
    assert model.enter_sandbox([tmp_path], "best") == sandbox.Level.LANDLOCK
    with pytest.raises(
        Misconfigured, match=r"only level 'landlock' here, and tensorflow\.sandbox is 'strict'"
    ) as caught:
        model.enter_sandbox([tmp_path], "strict")
    assert caught.value.reason == "sandbox_too_weak"


async def test_without_a_sandbox_the_level_is_none() -> None:
    package = built("efficientnet-lite0").directory
    async with ModelPool(ModelOptions(packages=(package,), threads=1, sandbox="off")) as pool:
        await pool.wait_ready()
        assert pool.states()[0].hello["sandbox"] == "none"
