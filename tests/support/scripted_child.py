"""A child that a test can make fail, for faults that no healthy child shows.

It uses the real protocol and the real child loop. `starts` in its settings lists what it does at each launch (the last
one applies to all later ones); what it does with a job is written at the beginning of the job's descriptors, or is
`every_job` of its settings, or `first_job` for the first of all. Each launch and each job creates a file in the
journal, a directory, so that a test can prove what has happened; the parent's probe, which begins with a zero byte, has
no words there.
"""

from __future__ import annotations

import array
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.children import loop
from worker.errors import Misconfigured
from worker.supervision import packets
from worker.supervision.packets import Packet

LABEL = 7
LARGE_BYTES = 256 << 20


def misbehave(how: str) -> None:
    """Fail as `how` demands. `well`, and anything else that names no fault, does nothing."""
    if how.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[how])
    elif how in _FAULTS:
        _FAULTS[how]()


def _send_raw(data: bytes) -> None:
    os.write(int(sys.argv[1]), data)


def _hang() -> None:
    time.sleep(3600)


def _exit_3() -> None:
    os.write(1, b"about to exit with 3\n")
    os._exit(3)


def _send_garbage() -> None:
    _send_raw(b"\xc1 this is no packet")
    _hang()


def _flood() -> None:
    while True:
        _send_raw(b"\xc1 this is no packet")


def _send_oversize() -> None:
    _send_raw(b"\0" * (200 << 10))
    _hang()


def _close() -> None:
    os.close(int(sys.argv[1]))
    _hang()


def _print_without_end() -> None:
    while True:
        os.write(1, (b"x" * 4095 + b"\n") * 16)


def _hopeless() -> None:
    raise Misconfigured("the model file is missing: build it again", reason="model_missing")


LIES: dict[str, tuple[str, dict[str, object]]] = {
    "long_format": ("done", {"format": "A" * 30_000, "width": 1, "height": 1, "sha256": "0" * 64}),
    "other_format": ("done", {"format": "JPEG2", "width": 1, "height": 1, "sha256": "0" * 64}),
    "huge_width": ("done", {"format": "JPEG", "width": 1 << 62, "height": 1, "sha256": "0" * 64}),
    "too_many_pixels": ("done", {"format": "JPEG", "width": 50_000, "height": 50_000, "sha256": "0" * 64}),
    "no_height": ("done", {"format": "JPEG", "width": 1, "height": 0, "sha256": "0" * 64}),
    "height_of_another_type": ("done", {"format": "JPEG", "width": 1, "height": "1", "sha256": "0" * 64}),
    "no_digest": ("done", {"format": "JPEG", "width": 1, "height": 1}),
    "long_digest": ("done", {"format": "JPEG", "width": 1, "height": 1, "sha256": "0" * 65}),
    "other_reason": ("refused", {"reason": "internal_error", "message": "x"}),
    "long_reason": ("refused", {"reason": "image_" + "a" * 1000, "message": "x"}),
    "long_message": ("refused", {"reason": "image_corrupt", "message": "\x1b[2J\u202e" + "a" * 20_000}),
    "message_of_another_type": ("refused", {"reason": "image_corrupt", "message": ["x"]}),
    "no_more": ("more", {"memory_bytes": 1, "slow": False}),
    "more_of_another_type": ("more", {"memory_bytes": "1", "slow": True}),
    "unknown_kind": ("hello", {"sandbox": "seccomp"}),
}
"""Answers of a decoder that an image has taken over, by the image's word; none is in the form that answers have."""

_FAULTS: dict[str, Callable[[], object]] = {
    "really_segv": lambda: ctypes.string_at(0),
    "exit_0": lambda: os._exit(0),
    "exit_3": _exit_3,
    "hang": _hang,
    "garbage": _send_garbage,
    "flood": _flood,
    "oversize": _send_oversize,
    "close": _close,
    "print": _print_without_end,
    "hopeless": _hopeless,
}


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Serve, Mapping[str, object]]:
    """Start, or fail to, as the settings demand."""
    journal = Path(settings["journal"])
    starts = settings.get("starts", ["well"])
    misbehave(starts[min(_launch_number(journal), len(starts) - 1)])

    def handle(packet: Packet, fds: Sequence[int], reply: loop.SendReply) -> None:
        words = [os.pread(fd, 40, 0).split(b"\0")[0].decode("ascii", "replace") for fd in fds]
        jobs = len(list(journal.glob("job-*")))
        (journal / f"job-{jobs:03}-{os.getpid()}-{'+'.join(words)[:100]}").touch()
        time.sleep(settings.get("job_s", 0.0))
        every = settings.get("every_job", "well")
        misbehave(every if jobs else settings.get("first_job", every))
        for word in words:
            if word == "slow":
                misbehave("hang" if packet["quick_s"] is None else "SIGPROF")
            if word == "large" and packet["memory_bytes"] < LARGE_BYTES:
                reply(packets.pack("more", {"memory_bytes": LARGE_BYTES, "slow": False}))
                return
            if word == "insatiable":
                reply(packets.pack("more", {"memory_bytes": packet["memory_bytes"] + 1, "slow": False}))
                return
            misbehave(word)
            if word in LIES:
                reply(packets.pack(*LIES[word]))
                return
            if word == "wrong_shape":
                reply(packets.pack("done", {"items": "none"}))
                return
        if packet["kind"] == "score":
            reply(packets.pack("done", {"items": [_item(word) for word in words]}))
        else:
            if packet["kind"] == "shrink" and "no_jpeg" not in words:
                os.pwrite(fds[1], b"\xff\xd8\xff", 0)
            reply(packets.pack("done", {"format": "JPEG", "width": 1, "height": 1, "sha256": "0" * 64}))

    return loop.serve_jobs(handle), {"environment": dict(os.environ)}


def _launch_number(journal: Path) -> int:
    """Create this launch's file under the next free number; exclusively, as two children may start at once."""
    number = 0
    while True:
        try:
            (journal / f"launch-{number:03}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return number


def _item(word: str) -> dict[str, object]:
    if word == "refuse":
        return {"reason": "pixels_wrong_length", "message": "its pixels are too few"}
    confidence = float("nan") if word == "nan" else 0.5
    return {"labels": array.array("H", [LABEL]).tobytes(), "confidences": array.array("f", [confidence]).tobytes()}


if __name__ == "__main__":
    loop.serve(prepare)
