"""Makes a real model child misbehave: Python imports this at every start when its directory is on PYTHONPATH.

No code of the project refers to it. In any process but a child it does nothing; there it wraps the function that
receives packets, and looks for faults: files `faults/start…` and `faults/job…` beside this one for the model child, and
`faults/decoder-start…` for a decoder, which can open no file once it has started. A file contains what to do (see
`scripted_child.misbehave`); the first child to rename it does it, so each happens once and leaves a proof. While the
file `magenta-is-poison` exists, pixels that begin in pure magenta kill the model child.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FAULTS = Path(__file__).with_name("faults")
MAGENTA = b"\xff\x00\xff" * 4


def _take_fault(moment: str) -> str | None:
    for fault in sorted(FAULTS.glob(f"{moment}-*.due")):
        taken = fault.with_suffix(f".taken-by-{os.getpid()}")
        try:
            fault.rename(taken)
        except FileNotFoundError:
            continue  # another child was faster
        return taken.read_text()
    return None


def _is_poison(fds: Sequence[int]) -> bool:
    return (FAULTS / "magenta-is-poison").exists() and any(os.pread(fd, len(MAGENTA), 0) == MAGENTA for fd in fds)


def _exhaust_memory() -> None:
    """Allocate memory until there is none left."""
    statm = Path("/proc/self/statm").read_text().split()
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

    def misbehaving(sock: Any, *, maximum_fds: int) -> Any:
        received = receive(sock, maximum_fds=maximum_fds)
        if received is None:
            return None
        packet, fds = received
        moment = moments.get(packet["kind"])
        fault = _take_fault(moment) if moment else None
        if packet["kind"] == "score" and _is_poison(fds):
            fault = "SIGSEGV"
        if fault == "exhaust_memory":
            _exhaust_memory()
        elif fault is not None:
            from tests.support.scripted_child import misbehave

            misbehave(fault)
        return received

    packets.receive = misbehaving


if "worker.children.model" in sys.orig_argv and FAULTS.is_dir():
    _wrap_receive({"begin": "start", "score": "job"})
if "worker.children.decoder" in sys.orig_argv and FAULTS.is_dir():
    _wrap_receive({"begin": "decoder-start"})
