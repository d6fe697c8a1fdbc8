"""Has a real model child misbehave: Python imports this at every start when its directory is on PYTHONPATH.

Nothing in the project knows of it. In any process but a model child it does nothing; there it wraps the function by
which the child receives packets, and looks for orders, files `orders/start…` and `orders/job…` beside this one. An
order holds what to do (see `scripted_child.misbehave`) and is obeyed by whoever renames it first, so each happens once
and leaves proof that it did. Pixels that begin in pure magenta kill the child whenever they are told to be poison.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ORDERS = Path(__file__).with_name("orders")
MAGENTA = b"\xff\x00\xff" * 4


def _order(moment: str) -> str | None:
    for order in sorted(ORDERS.glob(f"{moment}-*.due")):
        taken = order.with_suffix(f".taken-by-{os.getpid()}")
        try:
            order.rename(taken)
        except FileNotFoundError:
            continue  # somebody else was faster
        return taken.read_text()
    return None


def _is_poison(fds: Sequence[int]) -> bool:
    return (ORDERS / "magenta-is-poison").exists() and any(os.pread(fd, len(MAGENTA), 0) == MAGENTA for fd in fds)


def _exhaust_memory() -> None:
    """Take memory until there is none left to take: the rest of the job is done without."""
    statm = Path("/proc/self/statm").read_text().split()
    taken_bytes = int(statm[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken_bytes + (64 << 20), resource.RLIM_INFINITY))
    hoard = [bytearray(1 << 20)]
    while True:
        hoard.append(bytearray(1 << 20))  # ends in a MemoryError


def _wrap_receive() -> None:
    sys.path.insert(0, os.getcwd())  # `python -m` does so too, but only after this has run
    from worker.supervision import packets

    del sys.path[0]
    receive = packets.receive

    def misbehaving(sock: Any, *, maximum_fds: int) -> Any:
        received = receive(sock, maximum_fds=maximum_fds)
        if received is None:
            return None
        packet, fds = received
        order = _order({"begin": "start", "score": "job"}.get(packet["kind"], "never"))
        if packet["kind"] == "score" and _is_poison(fds):
            order = "SIGSEGV"
        if order == "exhaust_memory":
            _exhaust_memory()
        elif order is not None:
            from tests.support.scripted_child import misbehave

            misbehave(order)
        return received

    packets.receive = misbehaving


if "worker.children.model" in sys.orig_argv and ORDERS.is_dir():
    _wrap_receive()
