"""One paid call for one image: callers with the same image share it, and it outlives the caller that began it.

A caller is cancelled when its delivery is lost; the same event is then delivered again and joins the call. Answers are
kept for a while, since they have been paid for: the caller may have gone before the answer came, or be lost with it
before its result is confirmed. No further call is begun for nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager

import structlog

from worker.providers.base import Answer
from worker.providers.cloud.errors import NotTried, copy_of, stopping
from worker.settings import Settings

_log = structlog.get_logger(__name__)

KEPT_ANSWERS = 1024
"""How many answers of one service are kept; each takes about 3 KB."""

_MARGIN_S = 300.0
"""An event that comes back also waits in its queue, and its image is fetched."""


def kept_s(settings: Settings) -> float:
    """How long answers are kept, in seconds: for longer than an event may be away that comes back for one."""
    return max(*settings.retry.delays_s, settings.amqp.hold_s) + _MARGIN_S


def _nothing() -> None:
    pass


class Interest:
    """Who waits for the answer about one image, and whether a call for it is being made. This one is always wanted."""

    def __init__(self) -> None:
        self._sending = 0
        self._failed = False
        self.turn_came: Callable[[], None] = _nothing
        """Called when a call with the image has its turn, at each retry too."""

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return True

    @property
    def tried(self) -> bool:
        """Whether the service has been asked and did not answer, or is being asked."""
        return self._failed or self._sending > 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        """A call is being made during the block: what it costs is spent, so it is brought to its end."""
        self._sending += 1
        try:
            yield
        except BaseException as error:
            self.note(error)
            raise
        finally:
            self._sending -= 1

    def note(self, error: BaseException) -> None:
        """A call has failed with this error."""
        self._failed = self._failed or not isinstance(error, NotTried)


class SharedCall(Interest):
    """The work on one image's answer, in a task of its own, and those who wait for it."""

    def __init__(self, work: Callable[[Interest], Awaitable[Answer]], whom: Hashable = None) -> None:
        super().__init__()
        self.whom = whom
        self._callers = 0
        self._called_off = False
        """Not `Task.cancelling()`: timeouts and anyio's scopes, as while connecting, cancel a task that goes on."""
        self._task = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[Interest], Awaitable[Answer]]) -> Answer:
        return await work(self)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return self._callers > 0

    @property
    def done(self) -> bool:
        """Whether its task has ended."""
        return self._task.done()

    @property
    def ended(self) -> bool:
        """Whether there is nothing to join any more."""
        return self._task.done() or self._called_off

    async def answer(self) -> Answer:
        """Wait for the answer. Raises the error of the call. When the last who waits is cancelled, no call is begun."""
        self._callers += 1
        try:
            await asyncio.wait({self._task})
        finally:
            self._callers -= 1
            if not self.wanted and not self._sending:
                self._call_off()
        if self._task.cancelled():
            raise stopping()
        if (error := self._task.exception()) is not None:
            raise copy_of(error)
        return self._task.result()

    def answer_to_keep(self) -> Answer | None:
        """The answer, if there is one; one that is not whole only if nobody waits for it."""
        if self._task.cancelled() or self._task.exception() is not None:
            return None
        answer = self._task.result()
        return answer if answer.note is None or not self.wanted else None

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the work has ended, before those who wait are woken."""
        self._task.add_done_callback(lambda _task: callback())

    async def close(self) -> None:
        """Break the call off; those who wait get TryLater."""
        self._call_off()
        await asyncio.wait({self._task})

    def _call_off(self) -> None:
        self._called_off = True
        self._task.cancel()


class SharedCalls:
    """The calls to one service that are being worked on, and its latest answers, by account and content."""

    def __init__(self, kept_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._kept_s = kept_s
        self._now_s = now_s
        self._calls: dict[Hashable, SharedCall] = {}
        self._kept: OrderedDict[Hashable, tuple[Answer, float, Hashable]] = OrderedDict()
        self._kept_for: Counter[Hashable] = Counter()
        """How many answers are kept for whom: see `begin`."""

    def kept(self, key: Hashable) -> Answer | None:
        """An answer that has been paid for already."""
        if (call := self._calls.get(key)) is not None and call.done:
            self._on_end(key, call)  # asked between the end of its task and the callbacks, which the loop runs later
        answer, until_s, _ = self._kept.get(key, (None, 0.0, None))
        return answer if self._now_s() < until_s else None

    def has_for(self, whom: Hashable) -> bool:
        """Whether there may be an answer for `whom`, who can find out its key only at some expense."""
        return whom in self._kept_for or any(call.whom == whom for call in self._calls.values())

    def running(self, key: Hashable) -> SharedCall | None:
        """The call to join, if there is one."""
        call = self._calls.get(key)
        return None if call is None or call.ended else call

    def begin(self, key: Hashable, work: Callable[[Interest], Awaitable[Answer]], whom: Hashable = None) -> SharedCall:
        """Begin a call, for `whom`; others who ask for the same key meanwhile join it."""
        call = self._calls[key] = SharedCall(work, whom)
        call.on_end(lambda: self._on_end(key, call))
        return call

    async def close(self) -> None:
        """Break all calls off."""
        await asyncio.gather(*(call.close() for call in tuple(self._calls.values())))

    def _on_end(self, key: Hashable, call: SharedCall) -> None:
        if self._calls.get(key) is not call:
            return
        del self._calls[key]
        if (answer := call.answer_to_keep()) is None:
            return
        if not call.wanted:
            _log.info("an answer came when nobody waited any more; it is kept for a redelivery", for_s=self._kept_s)
        now_s = self._now_s()
        self._forget(key)
        self._kept[key] = (answer, now_s + self._kept_s, call.whom)
        self._kept_for[call.whom] += 1
        while len(self._kept) > KEPT_ANSWERS or next(iter(self._kept.values()))[1] <= now_s:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: Hashable) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._kept_for[kept[2]] -= 1
            if not self._kept_for[kept[2]]:
                del self._kept_for[kept[2]]
