"""What code execution in a decoder could still do: each forbidden operation is attempted from inside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import until
from tests.support.processes import alive
from worker.children import landlock
from worker.images.content import Content
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool

ROOT = Path(__file__).parents[2]

# Everything needed is imported before the sandbox is entered; then the outcome of each attempt is recorded.
_INSIDE = """
import ctypes, fcntl, json, mmap, os, signal, socket, sys, errno, threading
from worker.children import landlock, sandbox, seccomp
ctypes.CDLL(None)
scratch = sys.argv[2]
unix = socket.socket(socket.AF_UNIX)
tcp = socket.socket()
given = os.open("/etc/hostname", os.O_RDONLY)
process = os.pidfd_open(os.getppid())
status = os.open("/proc/self/status", os.O_RDONLY)
open(scratch + "/own", "w").close()
own = os.open(scratch + "/own", os.O_RDONLY)
directory = os.dup(0)
os.unlink(scratch + "/own")
libc = ctypes.CDLL(None, use_errno=True)

def write_to_the_parents_memory():
    byte = ctypes.create_string_buffer(1)
    here, there = (ctypes.c_size_t * 2)(ctypes.addressof(byte), 1), (ctypes.c_size_t * 2)(1, 1)
    libc.process_vm_writev(os.getppid(), here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0))
    if ctypes.get_errno() != errno.EFAULT:
        raise OSError(ctypes.get_errno(), "denied")

def capabilities():
    return [line.split()[1] for line in os.pread(status, 1 << 14, 0).decode().splitlines() if line.startswith(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"))]

def read_the_parents_memory():
    if not sandbox._can_read_memory(os.getppid()):
        raise PermissionError(errno.EPERM, "denied")

def enter():
    match sys.argv[1]:
        case "none":
            return "none"
        case "whole":
            return sandbox.enter(sandbox.Allowance(1 << 30)).value
        case "whole, with threads":
            return sandbox.enter(sandbox.Allowance(1 << 30, threads=True)).value
        case "whole, with a kernel that lets it signal":
            sandbox._can_signal = lambda pid: True
            return sandbox.enter(sandbox.Allowance(1 << 30)).value
        case "whole, with a kernel that lets it trace":
            sandbox._can_read_memory = lambda pid: True
            return sandbox.enter(sandbox.Allowance(1 << 30)).value
        case "landlock":
            assert sandbox._no_new_privileges()
            return str(landlock.deny_everything())
        case "seccomp":
            library = seccomp.library()
            assert sandbox._no_new_privileges()
            return str(seccomp.allow_only_what_decoding_needs(library))

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def start_a_thread():
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError as error:
        raise PermissionError(errno.EPERM, str(error)) from error
    thread.join()

attempts = {
    "read a file": lambda: open("/etc/passwd").close(),
    "list a directory": lambda: os.listdir("/"),
    "write a file": lambda: open(scratch + "/new", "w").close(),
    "make a socket": lambda: socket.socket().close(),
    "connect": lambda: tcp.connect(("127.0.0.1", 9)),
    "start a process": fork,
    "start a thread": start_a_thread,
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "lift a limit of the parent": lambda: __import__("resource").prlimit(os.getppid(), 7),
    "make a file in memory": lambda: os.close(os.memfd_create("x")),
    "look at a path": lambda: os.stat("/etc/passwd"),
    "look at a path by a descriptor": lambda: os.stat("/etc/passwd", dir_fd=directory),
    "have the kernel signal another": lambda: fcntl.fcntl(given, fcntl.F_SETOWN, os.getppid()),
    "hold up the owner of a file": lambda: fcntl.lockf(given, fcntl.LOCK_SH),
    "run code that it has written": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close(),
    "write to the parent's memory": write_to_the_parents_memory,
    "be notified when a file is opened": lambda: fcntl.fcntl(own, fcntl.F_SETLEASE, fcntl.F_RDLCK),
    "lock a file": lambda: fcntl.flock(own, fcntl.LOCK_SH),
    "read the parent's memory": read_the_parents_memory,
    "signal by a descriptor of a process": lambda: signal.pidfd_send_signal(process, 0),
}
import resource
found = {"level": enter(), "capabilities": capabilities()}
for what, attempt in attempts.items():
    try:
        attempt()
        found[what] = "done"
    except OSError as error:
        found[what] = errno.errorcode[error.errno]
print(json.dumps(found))
"""

DENIED = ("EPERM", "EACCES")


def try_everything(how: str, scratch: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _INSIDE, how, str(scratch)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    if how.startswith("whole"):
        assert set(found["capabilities"]) == {"0" * 16}
    del found["capabilities"]
    return found


def test_without_a_sandbox_all_of_it_works(tmp_path: Path) -> None:
    found = try_everything("none", tmp_path)
    assert found.pop("connect") == "ECONNREFUSED"
    assert set(found.values()) == {"none", "done"}, "otherwise a denial below would prove nothing"


def test_the_whole_sandbox_denies_everything(tmp_path: Path) -> None:
    found = try_everything("whole", tmp_path)
    if found.pop("level") != "seccomp":
        pytest.skip("this machine lacks Landlock or libseccomp")
    assert {what: answer for what, answer in found.items() if answer not in DENIED} == {}
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_needs_threads_gets_them_and_nothing_else(tmp_path: Path) -> None:
    found = try_everything("whole, with threads", tmp_path)
    if found.pop("level") != "seccomp":
        pytest.skip("this machine lacks Landlock or libseccomp")
    assert {what for what, answer in found.items() if answer not in DENIED} == {"start a thread"}
    assert list(tmp_path.iterdir()) == []


def test_landlock_alone_denies_files_and_connections(tmp_path: Path) -> None:
    if landlock.version() < 6:
        pytest.skip("this kernel's Landlock knows no scopes")
    found = try_everything("landlock", tmp_path)
    assert found["level"] == "True"
    for what in ("read a file", "list a directory", "write a file", "connect", "signal the parent"):
        assert found[what] in DENIED, what


def test_seccomp_alone_denies_files_sockets_and_processes(tmp_path: Path) -> None:
    found = try_everything("seccomp", tmp_path)
    if found["level"] != "True":
        pytest.skip("libseccomp is not installed")
    assert {what: answer for what, answer in found.items() if answer not in ("True", *DENIED)} == {}


@pytest.mark.parametrize(("kernel", "level"), [("signal", "landlock"), ("trace", "limits")])
def test_a_level_is_not_reached_where_an_attempt_shows_that_it_does_not_hold(
    kernel: str, level: str, tmp_path: Path
) -> None:
    assert try_everything(f"whole, with a kernel that lets it {kernel}", tmp_path)["level"] == level


def test_a_sandboxed_decoder_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], cwd=ROOT, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(alive(pids)) == 1
        parent.kill()
        parent.wait()
        until(lambda: not alive(pids), f"{pids} have ended")


# The decoder is stopped, so that it cannot detect its parent's end by itself.
_PARENT = """
import asyncio, os, signal, sys, structlog
from worker.supervision.decoder_pool import DecoderPool
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    async with DecoderPool() as pool:
        await pool.wait_ready()
        pids = [child.pid for child in pool.states()]
        os.kill(pids[0], signal.SIGSTOP)
        print(*pids, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_level_reached_is_reported_at_hello() -> None:
    async with DecoderPool(DecoderOptions(sandbox="best")) as pool:
        await pool.wait_ready()
        assert pool.states()[0].hello["sandbox"] in ("limits", "landlock", "seccomp")
        with Content.from_bytes(b"GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\0;", "a tiny GIF") as content:
            assert (await pool.inspect(content, "asset")).format == "GIF"
