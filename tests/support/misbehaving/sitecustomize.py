"""Makes a real model child misbehave: Python imports this at every start when its directory is on PYTHONPATH.

No code of the project refers to it. In any process but a child it does nothing; there it wraps the function that
receives packets, and looks for faults: files `faults/start…` and `faults/job…` beside this one for the model child, and
`faults/decoder-start…` for a decoder. A file contains what to do (see `scripted_child.misbehave`); the first child to
rename it does it, so each happens once and leaves a proof. While the file `magenta-is-poison` exists, pixels that begin
in pure magenta kill the model child.

A model child in its sandbox can neither open nor rename a file: a helper, started before, does it on request. It is
this file run as a program, and ends with the child.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FAULTS = Path(__file__).with_name("faults")
MAGENTA = b"\xff\x00\xff" * 4


def _take_fault(moment: str, pid: int) -> str | None:
    for fault in sorted(FAULTS.glob(f"{moment}-*.due")):
        taken = fault.with_suffix(f".taken-by-{pid}")
        try:
            fault.rename(taken)
        except FileNotFoundError:
            continue  # another child was faster
        return taken.read_text()
    return None


def _is_poison(fds: Sequence[int]) -> bool:
    return (FAULTS / "magenta-is-poison").exists() and any(os.pread(fd, len(MAGENTA), 0) == MAGENTA for fd in fds)


class _Helper:
    """Takes faults for a child in its sandbox."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)

    def take(self, moment: str) -> str | None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{moment}\n".encode())
        return self._process.stdout.readline().decode().strip() or None

    def exhaust_memory(self) -> None:
        """Allocate memory until there is none left."""
        _exhaust_memory(os.pread(self._statm, 100, 0).split())


def _help(pid: int) -> None:
    for line in sys.stdin:
        sys.stdout.write((_take_fault(line.strip(), pid) or "") + "\n")
        sys.stdout.flush()


def _exhaust_memory(statm: Sequence[bytes]) -> None:
    taken_bytes = int(statm[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken_bytes + (64 << 20), resource.RLIM_INFINITY))
    held = [bytearray(1 << 20)]
    while True:
        held.append(bytearray(1 << 20))  # ends in a MemoryError


def _wrap_receive(moments: dict[str, str]) -> None:
    """`moments`: the name of the faults to look for, by kind of packet."""
    sys.path.insert(0, os.getcwd())  # `python -m` does so too, but only after this has run
    from worker.supervision import packets

    del sys.path[0]
    receive = packets.receive
    helpers: list[_Helper] = []
    misbehaves: list[Callable[[str], None]] = []

    def misbehaving(sock: Any, *, maximum_fds: int) -> Any:
        received = receive(sock, maximum_fds=maximum_fds)
        if received is None:
            return None
        packet, fds = received
        moment = moments.get(packet["kind"])
        if packet["kind"] == "begin":
            from tests.support.scripted_child import misbehave

            misbehaves.append(misbehave)
            if "job" in moments.values():
                helpers.append(_Helper())
        if moment is None:
            return received
        fault = helpers[0].take(moment) if helpers else _take_fault(moment, os.getpid())
        if packet["kind"] == "score" and _is_poison(fds):
            fault = "SIGSEGV"
        if fault == "exhaust_memory":
            helpers[0].exhaust_memory()
        elif fault is not None:
            misbehaves[0](fault)
        return received

    packets.receive = misbehaving


if __name__ == "__main__":
    _help(int(sys.argv[1]))
if "worker.children.model" in sys.orig_argv and FAULTS.is_dir():
    _wrap_receive({"begin": "start", "score": "job"})
if "worker.children.decoder" in sys.orig_argv and FAULTS.is_dir():
    _wrap_receive({"begin": "decoder-start"})
