"""Several supervised children of one kind: which of them gets the next job, and when one is replaced.

The children share one record of crashes, so that the relaunch rule speaks of the model and not of a process; when it
disables one of them, it disables the pool. A child that has done enough, or has grown too large, is replaced without
a gap: its successor is started first, and the old one is asked to stop when the successor is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from worker.errors import Unavailable
from worker.supervision.child_handle import ChildSpec
from worker.supervision.lifecycle import BecameDisabled, BecameReady, Cause, Disabled, Notice, Policy
from worker.supervision.packets import Packet
from worker.supervision.relaunch import relaunches_left
from worker.supervisor import CrashRecord, Job, Supervisor, phase_name

_log = structlog.get_logger(__name__)

Observer = Callable[[str, Notice], None]
"""Told of every notice in a child's life, with the child's name: metrics and status are fed from here."""


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a healthy child is replaced: after so many images, or above so much resident memory. 0: never."""

    after_images: int = 0
    above_bytes: int = 0

    def due(self, supervisor: Supervisor) -> bool:
        """Whether this child has had its day."""
        if self.after_images and supervisor.images_done >= self.after_images:
            return True
        return bool(self.above_bytes) and supervisor.resident_bytes > self.above_bytes


@dataclass(frozen=True, slots=True)
class ChildState:
    """One child as metrics and the status page show it. `hello` is what it said of itself when it started."""

    name: str
    phase: str
    pid: int | None
    resident_bytes: int
    images_done: int
    hello: Packet


class Work(Protocol):
    """What a pool's children are to do."""

    def next_job(self, *, fresh: bool, free: int, in_hand: int) -> Job | None:
        """The job for a child, if there is one for it.

        `fresh`: it has had none before; `in_hand`: how many images it has; `free`: how many children have none.
        """
        ...

    def abandon(self, error: Unavailable) -> None:
        """Nobody is left to do it: everything that waits ends with `error`."""
        ...


class Pool:
    """The children of one kind. At most `children` work at a time; `spares` more are started and stand by."""

    def __init__(
        self,
        name: str,
        spec: ChildSpec,
        policy: Policy,
        work: Work,
        *,
        children: int,
        spares: int = 0,
        most_jobs: int = 2,
        side_by_side: bool = False,
        recycling: Recycling = Recycling(),
        observe: Observer = lambda _name, _notice: None,
    ) -> None:
        self._name = name
        self._spec = spec
        self._policy = policy
        self._work = work
        self._children = children
        self._most_jobs = most_jobs
        self._side_by_side = side_by_side
        self._recycling = recycling
        self._observe = observe
        self._record = CrashRecord()
        self._members = [self._supervisor(f"{name}-{number}") for number in range(1, children + spares + 1)]
        self._successors: dict[Supervisor, Supervisor] = {}
        self._retiring: set[Supervisor] = set()
        self._changed = asyncio.Event()
        self._giving = False
        self._more_to_give = False
        self._closed = True
        self.disabled: Cause | None = None

    # ── what it is asked, and what it shows ──────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Launch the children. Returns at once; jobs wait until one is ready."""
        self._closed = False
        for supervisor in self._members:
            self._start(supervisor)

    async def close(self, *, at_once: bool = False) -> None:
        """Stop every child and wait until all have been reaped. What still waits for a child ends as unavailable."""
        self._closed = True
        everybody = [*self._members, *self._successors.values(), *self._retiring]
        for supervisor in everybody:
            supervisor.stop(at_once=at_once)
        for supervisor in everybody:
            await supervisor.gone()
        self._successors.clear()
        self._retiring.clear()
        self._work.abandon(self.unavailable())

    def reset(self) -> None:
        """Forget the crashes; if disabled, launch the children again."""
        self._record.times_s = ()
        self.disabled = None
        if self._closed:
            return
        for supervisor in self._members:
            self._retiring.discard(supervisor)
            supervisor.reset()
            self._start(supervisor)

    @property
    def ready(self) -> bool:
        """Whether a started child lives."""
        return any(supervisor.able for supervisor in self._members if supervisor not in self._retiring)

    @property
    def at_work(self) -> bool:
        """Whether any child has a job in hand."""
        return any(supervisor.busy for supervisor in self._members)

    @property
    def serving(self) -> bool:
        """Whether work may be given to the pool, even if it has to wait; otherwise `unavailable` says why not."""
        return self.disabled is None and not self._closed

    async def wait_ready(self) -> None:
        """Return when a child is ready. Raises `Unavailable` when the pool is, or becomes, disabled."""
        while not self.ready:
            if not self.serving:
                raise self.unavailable()
            self._changed.clear()
            await self._changed.wait()

    def relaunches_left(self, now_s: float) -> int | None:
        """How many crashes now would still be relaunched; None: any number."""
        return relaunches_left(self._policy.rule, self._record.times_s, now_s)

    def states(self) -> list[ChildState]:
        """Every child there is, those that are coming and going included."""
        everybody = [*self._members, *self._successors.values(), *(self._retiring - set(self._members))]
        return [
            ChildState(each.name, phase_name(each.phase), each.pid, each.resident_bytes, each.images_done, each.hello)
            for each in everybody
        ]

    def unavailable(self) -> Unavailable:
        """The error for work that nobody is there to do."""
        if self.disabled is None:
            return Unavailable(f"the {self._name} is stopped", reason=f"{self._name}_stopped")
        return Unavailable(
            f"the {self._name} is disabled: {self.disabled.message}; mend the cause, then run `autotag reset`",
            reason=f"{self._name}_disabled",
        )

    def dispatch(self) -> None:
        """Give what waits to whoever is free, then to those at work, so that they need not wait for us afterwards."""
        self._more_to_give = True
        if self._giving:
            return  # a job that could not be given has come back: see to it when this round is over
        self._giving = True
        try:
            while self._more_to_give and self.serving:
                self._more_to_give = False
                self._give_out()
        finally:
            self._giving = False

    def _give_out(self) -> None:
        serving = [each for each in self._members if each not in self._retiring]
        at_work = [each for each in serving if each.busy]
        idle = [each for each in serving if each.free and not each.busy][: max(0, self._children - len(at_work))]
        for position, supervisor in enumerate(idle):
            self._give(supervisor, free=len(idle) - position)
        for supervisor in (*idle, *at_work):
            while supervisor.busy and supervisor.free and self._give(supervisor, free=0):
                pass

    def _give(self, supervisor: Supervisor, *, free: int) -> bool:
        fresh, in_hand = supervisor.jobs_given == 0, supervisor.images_in_hand
        job = self._work.next_job(fresh=fresh, free=free, in_hand=in_hand)
        if job is not None:
            supervisor.give(job)
        return job is not None

    # ── what the children tell ───────────────────────────────────────────────────────────────────────────────────────

    def idle(self, supervisor: Supervisor) -> None:
        """A child is free, or can take one more job."""
        if supervisor in self._retiring:
            if not supervisor.busy:
                supervisor.stop()
            return
        if self._recycling.due(supervisor):
            self._recycle(supervisor)
        self.dispatch()

    def told(self, supervisor: Supervisor, notice: Notice) -> None:
        """Something happened in a child's life."""
        self._observe(supervisor.name, notice)
        predecessor = next((old for old, new in self._successors.items() if new is supervisor), None)
        match notice:
            case BecameReady() if predecessor is not None:
                self._replace(predecessor, supervisor)
            case BecameDisabled(cause) if predecessor is not None:
                # The old one still does its work: it goes on, larger than wished, and nothing more is launched.
                del self._successors[predecessor]
                self._recycling = Recycling()
                _log.error("recycling is given up", child=predecessor.name, cause=cause.message)
                self._retire(supervisor)
            case BecameDisabled(cause):
                self._disable(cause)
        self._changed.set()

    # ── one child after another ──────────────────────────────────────────────────────────────────────────────────────

    def _recycle(self, supervisor: Supervisor) -> None:
        """Start the successor of a child that has had its day. One at a time, for the memory of two."""
        if self._successors or not self.serving:
            return
        _log.info(
            "recycling child", child=supervisor.name, images=supervisor.images_done, bytes=supervisor.resident_bytes
        )
        successor = self._successors[supervisor] = self._supervisor(supervisor.name)
        self._start(successor)

    def _replace(self, predecessor: Supervisor, successor: Supervisor) -> None:
        del self._successors[predecessor]
        self._members[self._members.index(predecessor)] = successor
        self._retire(predecessor)

    def _retire(self, supervisor: Supervisor) -> None:
        """Give it no more work, and stop it when it has none in hand: a stop cuts a long job short."""
        self._retiring.add(supervisor)
        if not supervisor.busy:
            supervisor.stop()

    def _disable(self, cause: Cause) -> None:
        self.disabled = cause
        for supervisor in (*self._members, *self._successors.values()):
            if not isinstance(supervisor.phase, Disabled):
                self._retire(supervisor)
        self._successors.clear()
        self._work.abandon(self.unavailable())

    def _supervisor(self, name: str) -> Supervisor:
        return Supervisor(
            name,
            self._spec,
            self._policy,
            self._record,
            self,
            most_jobs=self._most_jobs,
            side_by_side=self._side_by_side,
        )

    def _start(self, supervisor: Supervisor) -> None:
        task = supervisor.start()
        task.remove_done_callback(self._on_supervisor_end)
        task.add_done_callback(self._on_supervisor_end)

    def _on_supervisor_end(self, task: asyncio.Task[None]) -> None:
        """A supervisor ends when it has been stopped. Any other end is a mistake of ours, and must not go unseen."""
        self._retiring = {each for each in self._retiring if each in self._members or each.pid is not None}
        if not task.cancelled() and task.exception() is not None:
            self._disable(Cause("supervisor_failed", f"its supervisor failed: {task.exception()}"))
            _log.critical("supervisor failed", exc_info=task.exception())
        self._changed.set()
