"""Keeps one child process alive and gives it jobs.

Everything that happens (a packet or exit of the child, a request of the pool, a deadline that passes) is processed
immediately and in order: the supervisor turns it into an event, lets `lifecycle.step` decide, and performs the actions.
It has no rules of its own, and does not know what a job contains.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from worker.errors import exhausted
from worker.supervision import lifecycle, packets
from worker.supervision.child_handle import KILLED_FROM_OUTSIDE, ChildHandle, ChildSpec, protocol_broken
from worker.supervision.child_words import words_in
from worker.supervision.lifecycle import (
    Action,
    AskToStop,
    BecameDisabled,
    BecameReady,
    BecameStopped,
    Broke,
    Busy,
    Cause,
    Checking,
    ChildEvent,
    ChildPhase,
    Closed,
    Crashed,
    Elapsed,
    Ended,
    Given,
    Kill,
    Life,
    Notice,
    Ping,
    Policy,
    Ready,
    Relaunching,
    Replied,
    Reset,
    SaidHello,
    SaidHopeless,
    Spawn,
    SpawnFailed,
    Start,
    Starting,
    Stop,
    Stopped,
    Stopping,
    WorkingPhase,
)
from worker.supervision.packets import Packet, ProtocolError
from worker.supervision.relaunch import NEVER

_log = structlog.get_logger(__name__)


class Job(Protocol):
    """One packet for a child, answered by one packet.

    Exactly one of `on_answer`, `on_child_died` and `on_returned` is called, unless `on_answer` raises.
    """

    @property
    def images(self) -> int:
        """How many images it holds; 0 for a job that stands for no event."""
        ...

    @property
    def solitary(self) -> bool:
        """Whether the child must have no other job at the same time."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long the child may take over it before it is killed."""
        ...

    @property
    def packet(self) -> bytes:
        """The serialized packet."""
        ...

    @property
    def fds(self) -> Sequence[int]:
        """The descriptors that are sent with it. The job still owns them and closes them."""
        ...

    def on_sent(self, child: str, pid: int) -> None:
        """The job has been sent to the child of this name and process id."""

    def on_answer(self, packet: Packet) -> None:
        """The child has answered.

        Raises `ProtocolError` for a malformed answer: the child is killed, and `on_child_died` follows.
        """

    def on_child_died(self, cause: Cause) -> None:
        """The child died while it was working on the job."""

    def on_returned(self) -> None:
        """The child ended before it began the job, which is not to blame and may be given to another child."""


class SupervisorListener(Protocol):
    """Callbacks for the events of supervised children. A pool listens to all of its supervisors."""

    def on_notice(self, supervisor: Supervisor, notice: Notice) -> None:
        """The child has started, crashed, stopped, or is going to be relaunched or disabled."""

    def on_free(self, supervisor: Supervisor) -> None:
        """The child can take a job, or one more."""


@dataclass(slots=True)
class CrashRecord:
    """What the relaunch rule goes by: one record for all children that do the same work.

    `times_s` are the crashes that it remembers; `answered_s` is when any of the children last answered an image.
    """

    times_s: tuple[float, ...] = ()
    answered_s: float = NEVER


@dataclass(frozen=True, slots=True)
class _PacketReceived:
    packet: Packet


@dataclass(frozen=True, slots=True)
class _JobSubmitted:
    job: Job


_Input = ChildEvent | _PacketReceived | _JobSubmitted
_AT_WORK = (Ready, Busy)


class Supervisor:
    """Supervises one child. `start` and `stop` may be called any number of times.

    The child may have up to `maximum_jobs` in hand, so that it need not wait for the parent between them. It answers
    them in the order in which they were sent. It works on the first of them only or, with `concurrent_jobs`, on any.
    """

    def __init__(
        self,
        name: str,
        spec: ChildSpec,
        policy: Policy,
        crashes: CrashRecord,
        listener: SupervisorListener,
        *,
        maximum_jobs: int,
        concurrent_jobs: bool,
    ) -> None:
        self.name = name
        self.hello: Packet = {}
        self.jobs_sent = 0
        self.images_done = 0
        self._spec = spec
        self._policy = policy
        self._record = crashes
        self._listener = listener
        self._maximum_jobs = maximum_jobs
        self._concurrent_jobs = concurrent_jobs
        self._phase: ChildPhase = Stopped()
        self._child: ChildHandle | None = None
        self._jobs: deque[Job] = deque()
        self._spawned_at_s = 0.0
        self._paused = False
        self._inputs: deque[_Input] = deque()
        self._processing = False
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    # ── for the pool ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def phase(self) -> ChildPhase:
        """The current phase of the child's life."""
        return self._phase

    @property
    def working(self) -> bool:
        """Whether the child has started and lives."""
        return isinstance(self._phase, WorkingPhase)

    @property
    def free(self) -> bool:
        """Whether a job, or one more, may be submitted now."""
        if len(self._jobs) >= self._maximum_jobs or self._paused or not isinstance(self._phase, _AT_WORK):
            return False
        return not self._jobs or not any(job.solitary for job in self._jobs)

    @property
    def busy(self) -> bool:
        """Whether the child has a job in hand."""
        return bool(self._jobs)

    @property
    def images_in_hand(self) -> int:
        """How many images the jobs in hand hold."""
        return sum(job.images for job in self._jobs)

    @property
    def pid(self) -> int | None:
        """The process id; None without a living child."""
        return self._child.pid if self._child else None

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the child; 0 without a living one."""
        return self._child.resident_bytes if self._child else 0

    def start(self) -> asyncio.Task[None]:
        """Start a child, if there is none. The task ends when the supervisor has stopped; it fails only by a bug."""
        if self._stopped is None or self._task is None or self._stopped.done():
            self._stopped = stopped = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(_wait_for(stopped), name=f"supervise {self.name}")
            self._task.add_done_callback(lambda _: self._clean_up(stopped))
        self._post(Start())
        return self._task

    def stop(self, *, at_once: bool = False) -> None:
        """Ask the child to stop, or kill it `at_once`. Returns immediately; `wait_stopped` waits for the end."""
        if self._stopped is not None and not self._stopped.done():
            self._post(Stop(at_once))

    async def wait_stopped(self) -> None:
        """Return when the child has been reaped after `stop`."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def reset(self) -> None:
        """Forget the crashes, and start a child that was disabled or is waiting to be relaunched."""
        self._record.times_s = ()
        if self._stopped is not None and not self._stopped.done():
            self._post(Reset())

    def submit(self, job: Job) -> None:
        """Give the child a job. Raises `IllegalMoveError` when it is not `free`."""
        if not self.free:
            raise lifecycle.IllegalMoveError(f"{self.name} was given a job while it was not free")
        self._jobs.append(job)
        self._post(_JobSubmitted(job))

    # ── callbacks of the child handle ────────────────────────────────────────────────────────────────────────────────

    def on_packet(self, packet: Packet) -> None:
        """See `ChildListener`."""
        self._post(_PacketReceived(packet))

    def on_protocol_error(self, cause: Cause) -> None:
        """See `ChildListener`."""
        self._post(Broke(cause))

    def on_closed(self) -> None:
        """See `ChildListener`."""
        self._post(Closed())

    def on_exit(self, cause: Cause, illegal_instruction: bool) -> None:
        """See `ChildListener`."""
        self._post(Ended(cause, illegal_instruction))

    # ── processing, one input after the other ────────────────────────────────────────────────────────────────────────

    def _clean_up(self, stopped: asyncio.Future[None]) -> None:
        """After a cancellation or a bug, leave neither a process nor a job behind. After a stop there is neither."""
        if stopped is not self._stopped:
            return  # it has been started again meanwhile
        child, self._child = self._child, None
        self._phase = Stopped()
        self._inputs.clear()
        try:
            if child is not None:
                child.kill_and_reap()
        finally:
            self._return_jobs()

    def _post(self, item: _Input) -> None:
        """Process `item`, or queue it while another one is being processed: a callback may post again."""
        if self._stopped is None or self._stopped.done():
            return
        self._inputs.append(item)
        if self._processing:
            return
        self._processing = True
        try:
            while self._inputs:
                self._process(self._inputs.popleft())
        except Exception as error:  # noqa: BLE001 - the caller, often an event loop callback, would hide it
            self._stopped.set_exception(error)
        finally:
            self._processing = False
        if isinstance(self._phase, Stopped) and not self._stopped.done():
            self._stopped.set_result(None)
        self._schedule_timer()

    def _schedule_timer(self) -> None:
        """Have the timer fire at the deadline, or earlier: a timer that fires too early schedules the next one.

        So the timer need not be replaced whenever the deadline moves, which it does with every job.
        """
        deadline_s = Life(self._phase).deadline_s
        if deadline_s is None or (self._timer is not None and self._timer.when() <= deadline_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline_s = Life(self._phase).deadline_s
        if deadline_s is not None and deadline_s <= time.monotonic():
            self._post(Elapsed())
        else:
            self._schedule_timer()

    def _process(self, item: _Input) -> None:
        event = self._event_of(item)
        if event is None:
            return
        record = self._record
        life = Life(self._phase, record.times_s, record.answered_s)
        life, actions = lifecycle.step(self._policy, life, event, time.monotonic())
        self._phase, record.times_s, record.answered_s = life.phase, life.crashes, life.answered_s
        if isinstance(event, Ended):
            self._settle_jobs(actions)
        for action in actions:
            self._perform(action)
        if self.free and not isinstance(event, Given):
            self._listener.on_free(self)

    def _event_of(self, item: _Input) -> ChildEvent | None:
        """The event for `step`; None when there is nothing to decide."""
        match item:
            case _JobSubmitted(job):
                return self._send_job(job)
            case _PacketReceived(packet):
                return self._interpret(packet)
            case Stop() if isinstance(self._phase, Stopped):
                return None
            case Start() if not isinstance(self._phase, Stopped | Stopping | lifecycle.Dying):
                return None  # it is running, or will be
            case _:
                return item

    def _send_job(self, job: Job) -> ChildEvent | None:
        """Send the job; if the child has died a moment ago, the job is returned and not blamed.

        If this machine has no memory for the packet, or no room for its descriptors, the child is none the worse for
        that: it gets no job for a moment.
        """
        if job not in self._jobs:
            return None  # returned already: the child ended meanwhile
        if self._child is not None and isinstance(self._phase, _AT_WORK):
            try:
                self._child.send(job.packet, job.fds)
            except OSError as error:
                self._jobs.remove(job)
                shortage = exhausted(error, also=(errno.ETOOMANYREFS,))  # too many descriptors are on their way
                if shortage is not None:
                    _log.warning("job could not be sent yet", child=self.name, error=str(shortage))
                    self._pause()
                job.on_returned()
                return None if shortage is not None else Closed()
            self.jobs_sent += 1
            job.on_sent(self.name, self._child.pid)
            return Given(job.timeout_s)
        self._jobs.remove(job)
        job.on_returned()
        return None

    def _pause(self) -> None:
        """Take no job for `EXHAUSTED_PAUSE_S`."""
        self._paused = True
        asyncio.get_running_loop().call_later(lifecycle.EXHAUSTED_PAUSE_S, self._end_pause)

    def _end_pause(self) -> None:
        self._paused = False
        if self.free:
            self._listener.on_free(self)

    def _interpret(self, packet: Packet) -> ChildEvent:
        """The event that a packet stands for, which depends on the phase."""
        kind = packet["kind"]
        match self._phase:
            case Starting() if kind == "hello":
                self.hello = packet
                return SaidHello()
            case Starting() if kind == "hopeless":
                return SaidHopeless(_hopeless_cause(packet))
            case Checking() if kind == "pong":
                return Replied()
            case Busy() | Stopping() | lifecycle.Dying(cause=None) if self._jobs:
                return self._complete_job(self._jobs[0], packet)
            case Stopping() | lifecycle.Dying():
                return Replied()  # too late to matter
        return Broke(protocol_broken(f"{kind!r} unasked"))

    def _complete_job(self, job: Job, packet: Packet) -> ChildEvent:
        try:
            job.on_answer(packet)
        except ProtocolError as error:
            return Broke(protocol_broken(error))
        self._jobs.popleft()
        self.images_done += job.images
        return Replied(self._jobs[0].timeout_s if self._jobs else None, job.images)

    def _settle_jobs(self, actions: Sequence[Action]) -> None:
        """The child has been reaped: settle its jobs. Only those that it may have been working on can be to blame."""
        last_lines = self._child.last_lines if self._child else []
        self._child = None
        crash = next((action for action in actions if isinstance(action, Crashed)), None)
        if crash is not None and last_lines:
            _log.warning("last lines of the crashed child", child=self.name, lines=last_lines)
        begun: list[Job] = []
        while self._jobs and crash is not None and (self._concurrent_jobs or not begun):
            begun.append(self._jobs.popleft())
        self._return_jobs()
        for job in reversed(begun):
            assert crash is not None  # noqa: S101 - else there is none
            job.on_child_died(crash.cause)

    def _return_jobs(self) -> None:
        """Return the jobs that were not begun, the last one first: put back at the head of a queue they keep order."""
        while self._jobs:
            self._jobs.pop().on_returned()

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn()
            case Ping():
                self._ping()
            case AskToStop():
                self._send("stop")
            case Kill():
                if self._child is not None:
                    self._child.kill()
            case _:
                self._report(action)

    def _spawn(self) -> None:
        self.hello, self.jobs_sent, self.images_done = {}, 0, 0
        self._spawned_at_s = time.monotonic()
        try:
            self._child = ChildHandle(self.name, self._spec, self)
        except OSError as error:
            shortage = exhausted(error, also=(errno.EAGAIN,))  # EAGAIN: no more processes
            if shortage is not None:
                _log.warning("child could not be started yet", child=self.name, error=str(shortage))
            cause = Cause("spawn_failed", f"could not be started: {error}")
            self._post(SpawnFailed(cause, exhausted=shortage is not None))
        else:
            _log.info("child launched", child=self.name, pid=self.pid)

    def _ping(self) -> None:
        try:
            if self._child is not None:
                self._child.send(packets.pack("ping"))
        except OSError as error:
            if exhausted(error) is not None:  # it has not been asked, so it owes no answer: it is asked another time
                self._post(Replied())

    def _send(self, kind: str) -> None:
        if self._child is not None:
            with suppress(OSError):  # its exit, or the deadline, follows
                self._child.send(packets.pack(kind))

    def _report(self, notice: Notice) -> None:
        """Log the notice and pass it on."""
        match notice:
            case BecameReady():
                took_s = round(time.monotonic() - self._spawned_at_s, 3)
                _log.info("child ready", child=self.name, pid=self.pid, seconds=took_s)
            case Crashed(cause, counted, left):
                by_its_work = "child killed by its work"
                uncounted = "child killed from outside" if cause.reason == KILLED_FROM_OUTSIDE else by_its_work
                event = "child crashed" if counted else uncounted
                _log.error(event, child=self.name, cause=cause.message, reason=cause.reason, relaunches_left=left)
            case Relaunching(delay_s):
                _log.info("relaunching child", child=self.name, delay_s=delay_s)
            case BecameDisabled(cause):
                todo = "mend the cause, then run `autotag reset` or restart the service"
                _log.error("child disabled", child=self.name, cause=cause.message, reason=cause.reason, todo=todo)
            case BecameStopped():
                _log.info("child stopped", child=self.name)
        self._listener.on_notice(self, notice)


async def _wait_for(future: asyncio.Future[None]) -> None:
    await future


def _hopeless_cause(packet: Packet) -> Cause:
    """The reason and message of a child that cannot start, with defaults where it sent none."""
    return Cause(*(words_in(packet) or ("start_failed", "it said that it cannot start")))
