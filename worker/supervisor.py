"""Keeps one child alive, and hands it jobs.

Whatever happens, be it something the child did, something it is asked for, or the deadline of the state the child is
in, is taken at once and in order: the supervisor makes an event of it, lets `lifecycle.step` decide, and performs the
actions. It holds no rule of its own, and knows nothing of what is in a job.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from worker.supervision import lifecycle, packets
from worker.supervision.child_handle import ChildHandle, ChildSpec
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
    Closed,
    Crashed,
    Disabled,
    Elapsed,
    Ended,
    Event,
    Given,
    Kill,
    Life,
    Notice,
    Phase,
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
)
from worker.supervision.packets import Packet, ProtocolError

_log = structlog.get_logger(__name__)


class Job(Protocol):
    """One packet for a child, answered by one packet. Exactly one of `answered`, `lost`, `returned` comes back."""

    @property
    def images(self) -> int:
        """How many images it holds."""
        ...

    @property
    def solitary(self) -> bool:
        """Whether the child must have nothing else in hand meanwhile."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long the child may take before it is killed."""
        ...

    @property
    def packet(self) -> bytes:
        """What is sent."""
        ...

    @property
    def fds(self) -> Sequence[int]:
        """The descriptors that travel with it; they stay the sender's to close."""
        ...

    def given(self, child: str, pid: int) -> None:
        """The child of this name has it now."""

    def answered(self, packet: Packet) -> None:
        """The child's answer. Raises `ProtocolError` when it is none: the child is killed, and `lost` follows."""

    def lost(self, cause: Cause) -> None:
        """The child died at this job."""

    def returned(self) -> None:
        """The child was not there to take it, or ended before it came to it: nothing is wrong with the job."""


class Owner(Protocol):
    """Who the children belong to."""

    def told(self, supervisor: Supervisor, notice: Notice) -> None:
        """Something happened in the child's life."""

    def idle(self, supervisor: Supervisor) -> None:
        """The child can take a job, or another one."""


@dataclass(slots=True)
class CrashRecord:
    """The crashes that the relaunch rule remembers: one record for all children that do the same work."""

    times_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class _Heard:
    packet: Packet


@dataclass(frozen=True, slots=True)
class _Give:
    job: Job


_Item = Event | _Heard | _Give


class Supervisor:
    """One child's keeper. `start` and `stop` may be called again and again.

    The child may have `most_jobs` in hand, so that it need not wait for us between them. It answers them in the order
    in which they were given, and is at the first of them or, `side_by_side`, perhaps at all.
    """

    def __init__(
        self,
        name: str,
        spec: ChildSpec,
        policy: Policy,
        crashes: CrashRecord,
        owner: Owner,
        *,
        most_jobs: int = 2,
        side_by_side: bool = False,
    ) -> None:
        self.name = name
        self.hello: Packet = {}
        self.jobs_given = 0
        self.images_done = 0
        self._spec = spec
        self._policy = policy
        self._record = crashes
        self._owner = owner
        self._most_jobs = most_jobs
        self._side_by_side = side_by_side
        self._phase: Phase = Stopped()
        self._child: ChildHandle | None = None
        self._jobs: deque[Job] = deque()
        self._spawned_at_s = 0.0
        self._inbox: deque[_Item] = deque()
        self._taking = False
        self._timer: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    # ── what its owner asks and sees ─────────────────────────────────────────────────────────────────────────────────

    @property
    def phase(self) -> Phase:
        """Where the child is in its life."""
        return self._phase

    @property
    def able(self) -> bool:
        """Whether the child has started and lives: it is, or soon will be, free for a job."""
        return isinstance(self._phase, Ready | Checking | Busy)

    @property
    def free(self) -> bool:
        """Whether a job, or one more, may be given now."""
        if not isinstance(self._phase, Ready | Busy) or len(self._jobs) >= self._most_jobs:
            return False
        return not any(job.solitary for job in self._jobs)

    @property
    def busy(self) -> bool:
        """Whether a job is in hand."""
        return bool(self._jobs)

    @property
    def images_in_hand(self) -> int:
        """How many images its jobs hold."""
        return sum(job.images for job in self._jobs)

    @property
    def pid(self) -> int | None:
        """The living child's process id."""
        return self._child.pid if self._child else None

    @property
    def resident_bytes(self) -> int:
        """The living child's resident memory; 0 without one."""
        return self._child.resident_bytes if self._child else 0

    def start(self) -> asyncio.Task[None]:
        """Want a child. The task ends when the supervisor has been stopped; its failure is a mistake in our code."""
        if self._over is None or self._task is None or self._over.done():
            self._over = over = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(_last_until(over), name=f"supervise {self.name}")
            self._task.add_done_callback(lambda _: self._abandon_ship(over))
        self._post(Start())
        return self._task

    def stop(self, *, at_once: bool = False) -> None:
        """Want no child any more: ask it to end, or end it `at_once`. `gone` waits for it."""
        if self._over is not None and not self._over.done():
            self._post(Stop(at_once))

    async def gone(self) -> None:
        """Return when the child has been reaped after `stop`."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def reset(self) -> None:
        """Forget the crashes, and start a child that was disabled or is waiting to be relaunched."""
        self._record.times_s = ()
        if self._over is not None and not self._over.done():
            self._post(Reset())

    def give(self, job: Job) -> None:
        """Hand over a job; only when `free`."""
        if not self.free:
            raise lifecycle.IllegalMoveError(f"{self.name} was given a job while it was not free")
        self._jobs.append(job)
        self._post(_Give(job))

    # ── what the child does ──────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, packet: Packet) -> None:
        """From the child: a packet."""
        self._post(_Heard(packet))

    def broke(self, cause: Cause) -> None:
        """From the child: garbage."""
        self._post(Broke(cause))

    def closed(self) -> None:
        """From the child: its socket is closed."""
        self._post(Closed())

    def ended(self, cause: Cause, illegal_instruction: bool) -> None:
        """From the child: its end."""
        self._post(Ended(cause, illegal_instruction))

    # ── one thing after the other ────────────────────────────────────────────────────────────────────────────────────

    def _abandon_ship(self, over: asyncio.Future[None]) -> None:
        """Cancelled, or a mistake of ours: leave neither a process nor a job behind. Nothing to do after a stop."""
        if over is not self._over:
            return  # it has been started again meanwhile
        child, self._child = self._child, None
        self._phase = Stopped()
        self._inbox.clear()
        try:
            if child is not None:
                child.destroy()
        finally:
            self._give_back()

    def _post(self, item: _Item) -> None:
        """Take this, after whatever is being taken just now."""
        if self._over is None or self._over.done():
            return
        self._inbox.append(item)
        if self._taking:
            return
        self._taking = True
        try:
            while self._inbox:
                self._take(self._inbox.popleft())
        except Exception as error:  # noqa: BLE001 - it would go unseen in whoever called
            self._over.set_exception(error)
        finally:
            self._taking = False
        if isinstance(self._phase, Stopped) and not self._over.done():
            self._over.set_result(None)
        self._watch_the_deadline()

    def _watch_the_deadline(self) -> None:
        """See to it that the deadline's passing is noticed. A timer for an earlier one just looks again."""
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
            self._watch_the_deadline()

    def _take(self, item: _Item) -> None:
        event = self._as_event(item)
        if event is None:
            return
        life = Life(self._phase, self._record.times_s)
        life, actions = lifecycle.step(self._policy, life, event, time.monotonic())
        self._phase, self._record.times_s = life.phase, life.crashes
        if isinstance(event, Ended):
            self._bury(actions)
        for action in actions:
            self._perform(action)
        if self.free and not isinstance(event, Given):
            self._owner.idle(self)

    def _as_event(self, item: _Item) -> Event | None:
        match item:
            case _Give(job):
                return self._hand_over(job)
            case _Heard(packet):
                return self._understand(packet)
            case Stop() if isinstance(self._phase, Stopped):
                return None
            case Start() if not isinstance(self._phase, Stopped | Stopping | lifecycle.Dying):
                return None  # it is wanted already
            case _:
                return item

    def _hand_over(self, job: Job) -> Event | None:
        """Send the job; a child that died a moment ago costs the job nothing."""
        if job not in self._jobs:
            return None  # given back already: the child ended meanwhile
        if self._child is not None and isinstance(self._phase, Ready | Busy):
            try:
                self._child.send(job.packet, job.fds)
            except OSError:
                self._jobs.remove(job)
                job.returned()
                return Closed()
            self.jobs_given += 1
            job.given(self.name, self._child.pid)
            return Given(job.timeout_s)
        self._jobs.remove(job)
        job.returned()
        return None

    def _understand(self, packet: Packet) -> Event:
        """What a packet means depends on what is due from the child."""
        kind = packet["kind"]
        match self._phase:
            case Starting() if kind == "hello":
                self.hello = packet
                return SaidHello()
            case Starting() if kind == "hopeless":
                return SaidHopeless(_cause_in(packet))
            case Checking() if kind == "pong":
                return Replied()
            case Busy() | Stopping() | lifecycle.Dying(cause=None) if self._jobs:
                return self._answer(self._jobs[0], packet)
            case Stopping() | lifecycle.Dying():
                return Replied()  # too late to matter
        return Broke(Cause("protocol_broken", f"protocol broken: it sent {kind!r} unasked"))

    def _answer(self, job: Job, packet: Packet) -> Event:
        try:
            job.answered(packet)
        except ProtocolError as error:
            return Broke(Cause("protocol_broken", f"protocol broken: it sent {error}"))
        self._jobs.popleft()
        self.images_done += job.images
        return Replied(self._jobs[0].timeout_s if self._jobs else None)

    def _bury(self, actions: Sequence[Action]) -> None:
        """The child has been reaped: settle what it had in hand. Only what it was at can have to do with its end."""
        last_lines = self._child.last_lines if self._child else []
        self._child = None
        crash = next((action for action in actions if isinstance(action, Crashed)), None)
        if crash is not None and last_lines:
            _log.warning("last lines of the crashed child", child=self.name, lines=last_lines)
        at_work: list[Job] = []
        while self._jobs and crash is not None and (self._side_by_side or not at_work):
            at_work.append(self._jobs.popleft())
        self._give_back()
        for job in reversed(at_work):
            assert crash is not None  # noqa: S101 - else there is none
            job.lost(crash.cause)

    def _give_back(self) -> None:
        """What the child has not come to, the last one first, so that it lies in its old order where it came from."""
        while self._jobs:
            self._jobs.pop().returned()

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn()
            case Ping():
                self._send("ping")
            case AskToStop():
                self._send("stop")
            case Kill():
                if self._child is not None:
                    self._child.kill()
            case _:
                self._tell(action)

    def _spawn(self) -> None:
        self.hello, self.jobs_given, self.images_done = {}, 0, 0
        self._spawned_at_s = time.monotonic()
        try:
            self._child = ChildHandle(self.name, self._spec, self)
        except OSError as error:
            self._post(SpawnFailed(Cause("spawn_failed", f"could not be started: {error}")))
        else:
            _log.info("child launched", child=self.name, pid=self.pid)

    def _send(self, kind: str) -> None:
        if self._child is not None:
            with suppress(OSError):  # its end, or the deadline, will tell
                self._child.send(packets.pack(kind))

    def _tell(self, notice: Notice) -> None:
        match notice:
            case BecameReady():
                took_s = round(time.monotonic() - self._spawned_at_s, 3)
                _log.info("child ready", child=self.name, pid=self.pid, seconds=took_s)
            case Crashed(cause, counted, left):
                words = "child crashed" if counted else "child killed by its work"
                _log.error(words, child=self.name, cause=cause.message, reason=cause.reason, relaunches_left=left)
            case Relaunching(delay_s):
                _log.info("relaunching child", child=self.name, delay_s=delay_s)
            case BecameDisabled(cause):
                todo = "mend the cause, then run `autotag reset` or restart the service"
                _log.error("child disabled", child=self.name, cause=cause.message, reason=cause.reason, todo=todo)
            case BecameStopped():
                _log.info("child stopped", child=self.name)
        self._owner.told(self, notice)


async def _last_until(over: asyncio.Future[None]) -> None:
    await over


def _cause_in(packet: Packet) -> Cause:
    """The words of a child that cannot start; a child that cannot even say why is taken at its kind."""
    reason, message = packet.get("reason"), packet.get("message")
    return Cause(
        reason if isinstance(reason, str) else "start_failed",
        message if isinstance(message, str) else "it said that it cannot start",
    )


def phase_name(phase: Phase) -> str:
    """The phase in one word, as metrics and the status page write it: `ready`, `back_off` …"""
    return _PHASE_NAMES[type(phase)]


_PHASE_NAMES: dict[type, str] = {
    Stopped: "stopped",
    Starting: "starting",
    Ready: "ready",
    Checking: "checking",
    Busy: "busy",
    Stopping: "stopping",
    lifecycle.Dying: "dying",
    lifecycle.BackOff: "back_off",
    Disabled: "disabled",
}
