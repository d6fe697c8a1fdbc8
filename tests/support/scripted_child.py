"""A child that does what the test tells it to, for faults that no healthy child can be talked into.

It speaks the real protocol through the real child loop. `starts` in its settings says what it does at each launch (the
last one goes on for ever); what it does with a job stands at the beginning of the job's first descriptor. Each launch
and each job is written into the diary, a directory, so that a test can prove what has happened.
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
from worker.supervision.packets import Packet

LABEL = 7


def misbehave(how: str) -> None:
    """Do what `how` says, if it says anything; `well` and pixels that are no words do nothing."""
    if how.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[how])
    elif how in _FAULTS:
        _FAULTS[how]()


def _say(data: bytes) -> None:
    os.write(int(sys.argv[1]), data)


def _hang() -> None:
    time.sleep(3600)


def _exit_3() -> None:
    os.write(1, b"about to exit with 3\n")
    os._exit(3)


def _say_garbage() -> None:
    _say(b"\xc1 this is no packet")
    _hang()


def _flood() -> None:
    while True:
        _say(b"\xc1 this is no packet")


def _say_too_much() -> None:
    _say(b"\0" * (200 << 10))
    _hang()


def _close() -> None:
    os.close(int(sys.argv[1]))
    _hang()


def _print_without_end() -> None:
    while True:
        os.write(1, (b"x" * 4095 + b"\n") * 16)


def _give_up() -> None:
    raise Misconfigured("the model file is missing: build it again", reason="model_missing")


_FAULTS: dict[str, Callable[[], object]] = {
    "really_segv": lambda: ctypes.string_at(0),
    "exit_0": lambda: os._exit(0),
    "exit_3": _exit_3,
    "hang": _hang,
    "garbage": _say_garbage,
    "flood": _flood,
    "oversize": _say_too_much,
    "close": _close,
    "print": _print_without_end,
    "hopeless": _give_up,
}


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Handler, Mapping[str, object]]:
    """Start as told."""
    diary = Path(settings["diary"])
    starts = settings.get("starts", ["well"])
    misbehave(starts[min(_launch_number(diary), len(starts) - 1)])

    def handle(packet: Packet, fds: Sequence[int], reply: loop.Reply) -> None:
        words = [os.pread(fd, 40, 0).split(b"\0")[0].decode("ascii", "replace") for fd in fds]
        jobs = len(list(diary.glob("job-*")))
        (diary / f"job-{jobs:03}-{os.getpid()}-{'+'.join(words)[:100]}").touch()
        time.sleep(settings.get("job_s", 0.0))
        for word in words:
            misbehave(word)
            if word == "wrong_shape":
                reply("done", {"items": "none"})
                return
        if packet["kind"] == "score":
            reply("done", {"items": [_item(word) for word in words]})
        else:
            reply("done", {"format": "JPEG", "width": 1, "height": 1, "sha256": "0" * 64})

    return handle, {"environment": dict(os.environ)}


def _launch_number(diary: Path) -> int:
    """Enter this launch into the diary, under a number that no other child has: two may start at the same moment."""
    number = 0
    while True:
        try:
            (diary / f"launch-{number:03}").touch(exist_ok=False)
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
