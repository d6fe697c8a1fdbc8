"""The pool of supervised children of one kind: which of them gets the next job, and when one is replaced.

The children share one record of crashes, so that the relaunch rule applies to the model and not to one process; when
it disables one of them, it disables the pool. A child that has done its number of images, or has grown too large, is
replaced without a gap: its successor is started first, and the old one is asked to stop when the successor is ready.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from worker.errors import Unavailable
from worker.supervision.child_handle import ChildSpec
from worker.supervision.lifecycle import (
    PHASE_NAMES,
    BecameDisabled,
    BecameReady,
    Cause,
    Crashed,
    Disabled,
    Notice,
    Policy,
)
from worker.supervision.packets import Packet
from worker.supervision.relaunch import relaunches_left
from worker.supervisor import CrashRecord, Job, Supervisor

_log = structlog.get_logger(__name__)

Observer = Callable[[str, Notice], None]
"""Called with the child's name and every notice about it, for metrics, history and logs."""


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a healthy child is replaced: after a number of images, or above an amount of resident memory. 0: never."""

    after_images: int = 0
    above_bytes: int = 0

    def due(self, supervisor: Supervisor) -> bool:
        """Whether this child should be replaced."""
        if self.after_images and supervisor.images_done >= self.after_images:
            return True
        return bool(self.above_bytes) and supervisor.resident_bytes > self.above_bytes


@dataclass(frozen=True, slots=True)
class ChildState:
    """One child as metrics and the status page show it. `hello` is the packet that it sent when it had started."""

    name: str
    phase: str
    pid: int | None
    resident_bytes: int
    images_done: int
    hello: Packet


class Pool(ABC):
    """The children of one kind, and the jobs that wait for them. Use with `async with`, or `start` and `close`.

    At most `children` work at a time; `spares` more are started and stand by. Each may have `maximum_jobs` in hand;
    `concurrent_jobs`: it works on all of them at once (see `Supervisor`). A subclass owns the queue of waiting jobs:
    it adds a job and calls `_dispatch_or_fail`, and the pool takes jobs out through `_next_job` and `_fail_waiting`.
    """

    def __init__(
        self,
        name: str,
        spec: ChildSpec,
        policy: Policy,
        *,
        children: int,
        spares: int = 0,
        maximum_jobs: int = 2,
        concurrent_jobs: bool = False,
        recycling: Recycling,
        observe: Observer,
    ) -> None:
        """Start nothing yet. `name` is the first part of the children's names.

        Up to its first `-` it is their kind, with which the reason codes of errors begin.
        """
        self._name = name
        self._kind = name.partition("-")[0]
        self._spec = spec
        self._policy = policy
        self._children = children
        self._maximum_jobs = maximum_jobs
        self._concurrent_jobs = concurrent_jobs
        self._recycling = recycling
        self._observe = observe
        self._record = CrashRecord()
        self._members = [self._make_supervisor(f"{name}-{number}") for number in range(1, children + spares + 1)]
        self._successors: dict[Supervisor, Supervisor] = {}
        self._retiring: set[Supervisor] = set()
        self._changed = asyncio.Event()
        self._dispatching = False
        self._dispatch_again = False
        self._closed = True
        self._disabled: Cause | None = None
        self._last_crash: Cause | None = None

    # ── hooks for the subclass ───────────────────────────────────────────────────────────────────────────────────────

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many images wait for a child."""

    @abstractmethod
    def _next_job(self, *, fresh: bool, free: int, in_hand: int) -> Job | None:
        """Take the next job for one child out of the queue; None when there is none for it.

        `fresh`: the child has had no job yet. `in_hand`: how many images it has. `free`: how many children have none.
        """

    @abstractmethod
    def _fail_waiting(self, error: Unavailable) -> None:
        """Empty the queue: no child is left, so every waiting job ends with `error`."""

    # ── starting, stopping, status ───────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Launch the children. Returns at once; jobs wait until a child is ready."""
        self._closed = False
        for supervisor in self._members:
            self._start(supervisor)

    async def close(self, *, at_once: bool = False) -> None:
        """Stop every child, or kill it `at_once`, and wait until all have been reaped.

        Jobs that still wait for a child end with `Unavailable`.
        """
        self._closed = True
        supervisors = [*self._members, *self._successors.values(), *self._retiring]
        for supervisor in supervisors:
            supervisor.stop(at_once=at_once)
        for supervisor in supervisors:
            await supervisor.wait_stopped()
        self._successors.clear()
        self._retiring.clear()
        self._fail_waiting(self._unavailable())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(at_once=kind is not None)

    async def wait_ready(self) -> None:
        """Return when a child is ready. Raises `Unavailable` when the pool is, or becomes, disabled or closed."""
        while not self.ready:
            if not self._accepts_jobs:
                raise self._unavailable()
            self._changed.clear()
            await self._changed.wait()

    async def wait_started(self) -> None:
        """Like `wait_ready`, for no longer than one start may take. Raises `Unavailable` with what went wrong."""
        limit_s = self._policy.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self.wait_ready()
        except TimeoutError:
            why = f": {self._last_crash.message}" if self._last_crash else ""
            raise self._not_started(f"was not ready within {limit_s:g} s{why}") from None
        except Unavailable as error:
            raise self._not_started(f"cannot start: {self.disabled_reason or error}") from None

    def _not_started(self, why: str) -> Unavailable:
        return Unavailable(f"the {self._name} {why}", reason=f"{self._kind}_not_ready")

    def reset(self) -> None:
        """Forget the crashes; if disabled, launch the children again."""
        self._record.times_s = ()
        self._disabled = None
        if self._closed:
            return
        for supervisor in self._members:
            self._retiring.discard(supervisor)
            supervisor.reset()
            self._start(supervisor)

    @property
    def ready(self) -> bool:
        """Whether a child has started and lives."""
        return any(supervisor.working for supervisor in self._members if supervisor not in self._retiring)

    @property
    def at_work(self) -> bool:
        """Whether any child has a job in hand."""
        return any(supervisor.busy for supervisor in self._members)

    @property
    def disabled_reason(self) -> str | None:
        """Why the pool is disabled, for people; None while it is not."""
        return self._disabled.message if self._disabled else None

    @property
    def relaunches_left(self) -> int | None:
        """How many crashes now would still be relaunched; None: any number."""
        record = self._record
        return relaunches_left(self._policy.rule, record.times_s, record.answered_s, time.monotonic())

    def states(self) -> list[ChildState]:
        """Every child, including successors that are starting and predecessors that are stopping."""
        supervisors = [*self._members, *self._successors.values(), *(self._retiring - set(self._members))]
        return [
            ChildState(
                each.name, PHASE_NAMES[type(each.phase)], each.pid, each.resident_bytes, each.images_done, each.hello
            )
            for each in supervisors
        ]

    # ── dispatching ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _dispatch_or_fail(self) -> None:
        """Dispatch the queue or, when the pool is disabled or closed, fail it so that no caller waits in vain."""
        if self._accepts_jobs:
            self._dispatch()
        else:
            self._fail_waiting(self._unavailable())

    def _dispatch(self) -> None:
        """Submit waiting jobs to the idle children first, then to busy ones that can hold one more.

        A child with another job in hand need not wait for the parent when it has finished the first.
        """
        self._dispatch_again = True
        if self._dispatching:
            return  # a job that could not be sent has been put back: the loop below runs once more
        self._dispatching = True
        try:
            while self._dispatch_again and self._accepts_jobs:
                self._dispatch_again = False
                self._submit_jobs()
        finally:
            self._dispatching = False

    def _submit_jobs(self) -> None:
        members = [each for each in self._members if each not in self._retiring]
        busy = [each for each in members if each.busy]
        idle = [each for each in members if each.free and not each.busy][: max(0, self._children - len(busy))]
        for position, supervisor in enumerate(idle):
            self._submit_job(supervisor, free=len(idle) - position)
        for supervisor in (*idle, *busy):
            while supervisor.busy and supervisor.free and self._submit_job(supervisor, free=0):
                pass

    def _submit_job(self, supervisor: Supervisor, *, free: int) -> bool:
        """Submit the next job, if there is one for this child; False when there is none."""
        job = self._next_job(fresh=supervisor.jobs_sent == 0, free=free, in_hand=supervisor.images_in_hand)
        if job is not None:
            supervisor.submit(job)
        return job is not None

    @property
    def _accepts_jobs(self) -> bool:
        """Whether jobs may be queued, even if they have to wait; otherwise `_unavailable` is the reason."""
        return self._disabled is None and not self._closed

    def _unavailable(self) -> Unavailable:
        """The error of a job that no child will do."""
        if self._disabled is None:
            return Unavailable(f"the {self._name} is stopped", reason=f"{self._kind}_stopped")
        return Unavailable(
            f"the {self._name} is disabled: {self._disabled.message}; mend the cause, then run `autotag reset`",
            reason=f"{self._kind}_disabled",
        )

    # ── callbacks of the supervisors ─────────────────────────────────────────────────────────────────────────────────

    def on_free(self, supervisor: Supervisor) -> None:
        """See `SupervisorListener`: dispatch, replace the child, or stop it if it has been replaced."""
        if supervisor in self._retiring:
            if not supervisor.busy:
                supervisor.stop()
            return
        if self._recycling.due(supervisor):
            self._recycle(supervisor)
        self._dispatch()

    def on_notice(self, supervisor: Supervisor, notice: Notice) -> None:
        """See `SupervisorListener`: pass the notice on, complete a replacement, or disable the pool."""
        self._observe(supervisor.name, notice)
        predecessor = next((old for old, new in self._successors.items() if new is supervisor), None)
        match notice:
            case Crashed(cause):
                self._last_crash = cause
            case BecameReady() if predecessor is not None:
                self._replace(predecessor, supervisor)
            case BecameDisabled(cause) if predecessor is not None:
                # The old child still works: it stays, larger than wanted, and no other successor is launched.
                del self._successors[predecessor]
                self._recycling = Recycling()
                _log.error("recycling is given up", child=predecessor.name, cause=cause.message)
                self._retire(supervisor)
            case BecameDisabled(cause):
                self._disable(cause)
        self._changed.set()

    # ── replacing and retiring children ──────────────────────────────────────────────────────────────────────────────

    def _recycle(self, supervisor: Supervisor) -> None:
        """Start the successor of a child. One successor at a time: each needs memory beside its predecessor."""
        if self._successors or not self._accepts_jobs:
            return
        _log.info(
            "recycling child", child=supervisor.name, images=supervisor.images_done, bytes=supervisor.resident_bytes
        )
        successor = self._successors[supervisor] = self._make_supervisor(supervisor.name)
        self._start(successor)

    def _replace(self, predecessor: Supervisor, successor: Supervisor) -> None:
        del self._successors[predecessor]
        self._members[self._members.index(predecessor)] = successor
        self._retire(predecessor)

    def _retire(self, supervisor: Supervisor) -> None:
        """Give the child no more jobs, and stop it when it has none in hand: a stop would cut a long job short."""
        self._retiring.add(supervisor)
        if not supervisor.busy:
            supervisor.stop()

    def _disable(self, cause: Cause) -> None:
        self._disabled = cause
        for supervisor in (*self._members, *self._successors.values()):
            if not isinstance(supervisor.phase, Disabled):
                self._retire(supervisor)
        self._successors.clear()
        self._fail_waiting(self._unavailable())

    def _make_supervisor(self, name: str) -> Supervisor:
        return Supervisor(
            name,
            self._spec,
            self._policy,
            self._record,
            self,
            maximum_jobs=self._maximum_jobs,
            concurrent_jobs=self._concurrent_jobs,
        )

    def _start(self, supervisor: Supervisor) -> None:
        task = supervisor.start()
        task.remove_done_callback(self._on_supervisor_end)
        task.add_done_callback(self._on_supervisor_end)

    def _on_supervisor_end(self, task: asyncio.Task[None]) -> None:
        """A supervisor's task ends when it has been stopped. Any other end is a bug, and must not go unnoticed."""
        self._retiring = {each for each in self._retiring if each in self._members or each.pid is not None}
        if not task.cancelled() and task.exception() is not None:
            self._disable(Cause("supervisor_failed", f"its supervisor failed: {task.exception()}"))
            _log.critical("supervisor failed", exc_info=task.exception())
        self._changed.set()
