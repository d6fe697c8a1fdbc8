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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.children import loop
from worker.errors import Misconfigured
from worker.frames import Packet

LABEL = 7


def misbehave(how: str) -> None:
    """Do what `how` says, if it says anything; `well` and pixels that are no words do nothing."""
    socket_fd = int(sys.argv[1])
    match how:
        case "SIGKILL" | "SIGSEGV" | "SIGILL" | "SIGABRT":
            number = signal.Signals[how]
            signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
            os.kill(os.getpid(), number)
        case "really_segv":
            ctypes.string_at(0)
        case "exit_0":
            os._exit(0)
        case "exit_3":
            print("about to exit with 3")
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "garbage":
            os.write(socket_fd, b"\xc1 this is no packet")
            time.sleep(3600)
        case "flood":
            while True:
                os.write(socket_fd, b"\xc1 this is no packet")
        case "oversize":
            os.write(socket_fd, b"\0" * (200 << 10))
            time.sleep(3600)
        case "close":
            os.close(socket_fd)
            time.sleep(3600)
        case "print":
            line = b"x" * 4095 + b"\n"
            while True:
                os.write(1, line * 16)
        case "hopeless":
            raise Misconfigured("the model file is missing: build it again", reason="model_missing")


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Handler, Mapping[str, object]]:
    """Start as told."""
    diary = Path(settings["diary"])
    launches = len(list(diary.glob("launch-*")))
    (diary / f"launch-{launches:03}-{os.getpid()}").touch()
    starts = settings.get("starts", ["well"])
    misbehave(starts[min(launches, len(starts) - 1)])

    def handle(packet: Packet, fds: Sequence[int]) -> tuple[str, Mapping[str, object]]:
        words = [os.pread(fd, 40, 0).split(b"\0")[0].decode("ascii", "replace") for fd in fds]
        jobs = len(list(diary.glob("job-*")))
        (diary / f"job-{jobs:03}-{os.getpid()}-{'+'.join(words)[:100]}").touch()
        time.sleep(settings.get("job_s", 0.0))
        for word in words:
            misbehave(word)
            if word == "wrong_shape":
                return "done", {"items": "none"}
        if packet["kind"] == "score":
            return "done", {"items": [_item(word) for word in words]}
        return "done", {"format": "JPEG", "width": 1, "height": 1, "sha256": "0" * 64}

    return handle, {"environment": dict(os.environ)}


def _item(word: str) -> dict[str, object]:
    if word == "refuse":
        return {"reason": "pixels_wrong_length", "message": "its pixels are too few"}
    confidence = float("nan") if word == "nan" else 0.5
    return {"labels": array.array("H", [LABEL]).tobytes(), "confidences": array.array("f", [confidence]).tobytes()}


if __name__ == "__main__":
    loop.serve(prepare)
