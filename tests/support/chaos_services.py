"""What takes part in a chaos run beside the workers: both cloud services, with troubles of their own, and a web server.

`scripts/chaos.py` and the fault test start them; the product holds no fake.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from tests.support import fake_google, fake_microsoft
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.fake_service import CLOSE, GARBAGE, Call, FakeServer, FakeService, Fault
from worker.diagnostics.chaos.undisturbed import MAXIMUM_PHOTOGRAPHS
from worker.diagnostics.chaos.workload import GOOGLE_KEY, MICROSOFT_KEY

_TROUBLED_SHARE = 0.1
_LONGEST_OUTAGE_CALLS = 8
"""Long enough to open the circuit, which takes five, and over before the last attempt at an event."""


@dataclass(frozen=True)
class ChaosServices:
    """Where they answer, for `ChaosOptions` and the options of `autotag chaos`."""

    google: str
    microsoft: str
    served: str


@contextmanager
def chaos_services(photographs: Path, seed: int, events: int) -> Iterator[ChaosServices]:
    """Both clouds and a web server for a directory of photographs, for the length of the block."""
    randomly = random.Random(seed + 2)
    with ExitStack() as started:
        google = started.enter_context(_ForgetfulGoogle(GOOGLE_KEY))
        microsoft = started.enter_context(_ForgetfulMicrosoft(MICROSOFT_KEY))
        # The first calls are answered normally: by them the photographs' labels are found out.
        clean = [Fault()] * min(MAXIMUM_PHOTOGRAPHS, len(list(photographs.iterdir())))
        google.next(*clean, *_troubles(randomly, events, fake_google.unavailable(), fake_google.too_many("1")))
        microsoft.next(*clean, *_troubles(randomly, events, fake_microsoft.too_many("1")))
        server = started.enter_context(FakeServer(("127.0.0.1", 0), partial(_Handler, directory=photographs)))
        threading.Thread(target=server.serve_forever, args=(0.02,), name="photographs", daemon=True).start()
        started.callback(server.shutdown)
        yield ChaosServices(google.url, microsoft.url, f"http://127.0.0.1:{server.server_port}")


def _troubles(randomly: random.Random, calls: int, *refusals: Fault) -> Iterator[Fault]:
    """What happens to each call in turn: mostly nothing, sometimes an outage of several calls."""
    kinds = (CLOSE, GARBAGE, Fault(delay_s=0.5), *refusals)
    made, good = 0, randomly.randint(2, 6)
    while made < calls:
        outage = randomly.randint(3, _LONGEST_OUTAGE_CALLS)
        yield from [Fault()] * good
        yield from [randomly.choice(kinds)] * outage
        made += good + outage
        good = round(outage / _TROUBLED_SHARE * randomly.uniform(0.5, 1.5))


class _Forgetful(FakeService):
    """Thousands of images would not fit into memory."""

    def handle(self, call: Call) -> Fault:
        try:
            return super().handle(call)
        finally:
            call.body = b""


class _ForgetfulGoogle(_Forgetful, FakeGoogle):
    pass


class _ForgetfulMicrosoft(_Forgetful, FakeMicrosoft):
    pass


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_what: object) -> None:
        """Log nothing: thousands of images are fetched."""
