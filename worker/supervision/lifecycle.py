"""The life of one child process, as a pure function of its state, an event and the time.

`step` decides and has no effects: the supervisor creates the events and performs the actions. Every phase in which a
process exists, or is due to be started, has a deadline, so that no wait is unbounded; when it passes, the supervisor
creates an `Elapsed`. A pair of phase and event that cannot happen raises `IllegalMoveError`.

    Stopped ── Start ──► Starting ── SaidHello ──► Ready ◄─ Replied ── Busy, Checking
                            ▲                        └── Given, Elapsed ──►┘
                            │ Elapsed
                         BackOff ◄── a crash, the process reaped ──► Disabled ── Reset ──► Starting

A process that is being killed is in Dying until it has been reaped; one that was asked to stop is in Stopping. A
second process is never started while one is alive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from worker.supervision.relaunch import NEVER, RelaunchRule, after_crash, relaunches_left


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a child ended or must end: `reason` is a fixed code for metrics, `message` a clause for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What distinguishes one kind of child from another; all kinds run through the same `step`.

    `work_is_blamed`: a death while busy is the fault of the job in hand (a decoder's image), so the child is
    relaunched at once and the death is not counted. Otherwise it is the child's own crash.
    """

    rule: RelaunchRule
    work_is_blamed: bool
    start_timeout_s: float
    idle_check_s: float = 30.0
    check_timeout_s: float = 5.0
    stop_timeout_s: float = 5.0
    kill_timeout_s: float = 1.0


# ── phases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Stopped:
    """There is no process, and none is wanted."""


@dataclass(frozen=True, slots=True)
class Starting:
    """The process has been spawned and has not sent `hello` yet."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Ready:
    """Idle. At the deadline the child is pinged."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Checking:
    """The idle child has been pinged and has not answered yet."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Busy:
    """At work on a job; the deadline is that of the first job in hand. There may be others."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """Asked to end, which is never a crash. `restart`: a new process is to be started once this one has ended."""

    deadline_s: float
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Dying:
    """Being killed, or its socket is closed, and not reaped yet.

    `cause` is None while only the exit status can show it. `counted`: the relaunch rule counts this crash.
    `hopeless`: another start would fail as well. `starting`: it had not sent `hello`. `stop_requested`: it is not to be
    relaunched.
    """

    deadline_s: float
    cause: Cause | None
    counted: bool
    hopeless: bool = False
    starting: bool = False
    stop_requested: bool = False


@dataclass(frozen=True, slots=True)
class BackOff:
    """No process after a crash; the next one is spawned at the deadline."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Disabled:
    """No process until `Reset`."""

    cause: Cause


WorkingPhase = Ready | Checking | Busy
"""The child has started and lives: it is, or soon will be, free for a job."""

ChildPhase = Stopped | Starting | Ready | Checking | Busy | Stopping | Dying | BackOff | Disabled

PHASE_NAMES: dict[type[ChildPhase], str] = {
    Stopped: "stopped",
    Starting: "starting",
    Ready: "ready",
    Checking: "checking",
    Busy: "busy",
    Stopping: "stopping",
    Dying: "dying",
    BackOff: "back_off",
    Disabled: "disabled",
}
"""Every phase in one word, as metrics and the status page write it."""

EXHAUSTED_PAUSE_S = 2.0
"""Between two attempts to start a process, or to send a job, for which this machine has no room."""

WORKING_PHASE_NAMES = frozenset(PHASE_NAMES[phase] for phase in get_args(WorkingPhase))


@dataclass(frozen=True, slots=True)
class Life:
    """The whole state: the phase, and what the relaunch rule goes by.

    `crashes` are the times of those that it still counts; `answered_s` is when an image was last answered.
    """

    phase: ChildPhase = Stopped()
    crashes: tuple[float, ...] = ()
    answered_s: float = NEVER

    @property
    def deadline_s(self) -> float | None:
        """When `Elapsed` is due (monotonic); None in a phase without a deadline."""
        return None if isinstance(self.phase, Stopped | Disabled) else self.phase.deadline_s


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Start:
    """A child is wanted."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The child is no longer wanted. `at_once`: kill it without asking it to stop first."""

    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The operator's reset: crashes are forgotten, and a disabled child is started."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The operating system could not start the process. `exhausted`: because the machine has run out of something."""

    cause: Cause
    exhausted: bool = False


@dataclass(frozen=True, slots=True)
class SaidHello:
    """The child has started and is ready for work."""


@dataclass(frozen=True, slots=True)
class SaidHopeless:
    """The child cannot start, and another attempt would fail in the same way."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Given:
    """A job has been sent to the child, to be answered within `timeout_s` of becoming the first one in hand."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Replied:
    """The child has answered its first job, or a ping.

    `next_timeout_s`: the timeout of the next job in hand; None when there is none. `images`: how many it has answered.
    """

    next_timeout_s: float | None = None
    images: int = 0


@dataclass(frozen=True, slots=True)
class Broke:
    """The child has violated the protocol."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Closed:
    """The child has closed its socket; it should exit at once."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The child has been reaped and its process group is gone. `illegal_instruction`: it died of SIGILL."""

    cause: Cause
    illegal_instruction: bool = False


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The deadline of the phase has passed."""


ChildEvent = (
    Start | Stop | Reset | SpawnFailed | SaidHello | SaidHopeless | Given | Replied | Broke | Closed | Ended | Elapsed
)


# ── actions: what the supervisor must do, and what it must report ────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask the idle child for an answer, to see that it still works."""


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Send the stop packet."""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the child's process group."""


@dataclass(frozen=True, slots=True)
class BecameReady:
    """Notice: the child has started."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """Notice: the child died without having been asked to stop. Not `counted` when the job in hand is to blame."""

    cause: Cause
    counted: bool
    relaunches_left: int | None


@dataclass(frozen=True, slots=True)
class Relaunching:
    """Notice: the next start is due after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class BecameDisabled:
    """Notice: the child stays down until `autotag reset` or a restart of the service."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class BecameStopped:
    """Notice: the child has ended as requested."""


Notice = BecameReady | Crashed | Relaunching | BecameDisabled | BecameStopped
Action = Spawn | Ping | AskToStop | Kill | Notice
Outcome = tuple[Life, tuple[Action, ...]]


class IllegalMoveError(Exception):
    """An event occurred in a phase in which it is impossible: a bug in the supervisor."""


# ── the moves ────────────────────────────────────────────────────────────────────────────────────────────────────────


def step(policy: Policy, life: Life, event: ChildEvent, now_s: float) -> Outcome:
    """The next state and the actions to perform, for `event` at monotonic `now_s`. Raises `IllegalMoveError`."""
    if isinstance(event, Reset):
        return _reset(policy, life, now_s)
    if isinstance(event, Replied) and event.images and life.crashes:  # without crashes there is none to forget
        life = replace(life, answered_s=now_s)
    match life.phase:
        case Stopped() | BackOff() | Disabled():
            return _without_process(policy, life, event, now_s)
        case Starting():
            return _starting(policy, life, event, now_s)
        case Ready():
            return _ready(policy, life, event, now_s)
        case Busy() | Checking():
            return _answer_due(policy, life, event, now_s)
        case Stopping() as phase:
            return _stopping(policy, life, phase, event, now_s)
        case Dying() as phase:
            return _dying(policy, life, phase, event, now_s)


def _reset(policy: Policy, life: Life, now_s: float) -> Outcome:
    if isinstance(life.phase, Disabled | BackOff):
        return _launch(policy, replace(life, crashes=()), now_s)
    return replace(life, crashes=()), ()


def _without_process(policy: Policy, life: Life, event: ChildEvent, now_s: float) -> Outcome:
    match life.phase, event:
        case Stopped(), Start():
            return _launch(policy, life, now_s)
        case BackOff(), Elapsed():
            return _launch(policy, life, now_s)
        case _, Stop():
            return replace(life, phase=Stopped()), (BecameStopped(),)
    raise _illegal_move(life, event)


def _starting(policy: Policy, life: Life, event: ChildEvent, now_s: float) -> Outcome:
    match event:
        case SaidHello():
            return _become_ready(policy, life, now_s, BecameReady())
        case SaidHopeless(cause):
            return _kill(policy, life, cause, now_s, hopeless=True)
        case SpawnFailed(exhausted=True):
            # Nothing is wrong with the child: it is started as soon as there is room for it, however often that fails.
            return replace(life, phase=BackOff(now_s + EXHAUSTED_PAUSE_S)), (Relaunching(EXHAUSTED_PAUSE_S),)
        case SpawnFailed(cause):
            return _crash(policy, life, cause, now_s, counted=True)
        case Ended(cause, illegal_instruction=True):
            return _disable(policy, life, _illegal_instruction(cause), now_s)
        case Closed():
            return replace(life, phase=replace(_exit_due(policy, now_s, counted=True), starting=True)), ()
        case Elapsed():
            message = f"not ready after {policy.start_timeout_s:g} s, killed"
            return _kill(policy, life, Cause("silent_while_starting", message), now_s)
        case Stop():
            # It holds nothing yet, and would read a stop packet only after it had finished starting.
            return replace(life, phase=Stopping(now_s + policy.kill_timeout_s)), (Kill(),)
    return _living(policy, life, event, now_s, counted=True)


def _ready(policy: Policy, life: Life, event: ChildEvent, now_s: float) -> Outcome:
    match event:
        case Given(timeout_s):
            return replace(life, phase=Busy(now_s + timeout_s)), ()
        case Elapsed():
            return replace(life, phase=Checking(now_s + policy.check_timeout_s)), (Ping(),)
    return _living(policy, life, event, now_s, counted=True)


def _answer_due(policy: Policy, life: Life, event: ChildEvent, now_s: float) -> Outcome:
    """In Busy or Checking the child owes an answer. Only a job in hand can be blamed for its death."""
    busy = isinstance(life.phase, Busy)
    counted = not (busy and policy.work_is_blamed)
    match event:
        case Given() if busy:
            return life, ()  # its time starts when it becomes the first one in hand
        case Replied(next_timeout_s) if busy and next_timeout_s is not None:
            return replace(life, phase=Busy(now_s + next_timeout_s)), ()
        case Replied():
            return _become_ready(policy, life, now_s)
        case Elapsed():
            reason = "silent_while_busy" if busy else "silent_while_idle"
            message = "no answer to its job within the deadline, killed" if busy else "no sign of life, killed"
            return _kill(policy, life, Cause(reason, message), now_s, counted=counted)
    return _living(policy, life, event, now_s, counted=counted)


def _living(policy: Policy, life: Life, event: ChildEvent, now_s: float, *, counted: bool) -> Outcome:
    """What may happen to any living child that has not been asked to stop."""
    match event:
        case Broke(cause):
            return _kill(policy, life, cause, now_s, counted=counted)
        case Closed():
            return replace(life, phase=_exit_due(policy, now_s, counted=counted)), ()
        case Ended(cause):
            return _crash(policy, life, cause, now_s, counted=counted)
        case Stop(at_once=True):
            return replace(life, phase=Stopping(now_s + policy.kill_timeout_s)), (Kill(),)
        case Stop():
            return replace(life, phase=Stopping(now_s + policy.stop_timeout_s)), (AskToStop(),)
    raise _illegal_move(life, event)


def _stopping(policy: Policy, life: Life, phase: Stopping, event: ChildEvent, now_s: float) -> Outcome:
    match event:
        case Ended() | SpawnFailed():
            if phase.restart:
                return _launch(policy, life, now_s)
            return replace(life, phase=Stopped()), (BecameStopped(),)
        case Elapsed() | Broke():
            return replace(life, phase=replace(phase, deadline_s=now_s + policy.kill_timeout_s)), (Kill(),)
        case Stop(at_once=True):
            return replace(life, phase=Stopping(now_s + policy.kill_timeout_s)), (Kill(),)
        case Start():
            return replace(life, phase=replace(phase, restart=True)), ()
        case Stop():
            return replace(life, phase=replace(phase, restart=False)), ()
        case Replied() | SaidHello() | SaidHopeless() | Closed():
            return life, ()
    raise _illegal_move(life, event)


def _dying(policy: Policy, life: Life, phase: Dying, event: ChildEvent, now_s: float) -> Outcome:
    match event:
        case Ended(cause, illegal_instruction) if phase.cause is None:
            if phase.starting and illegal_instruction:
                return _reaped(policy, life, replace(phase, hopeless=True), _illegal_instruction(cause), now_s)
            return _reaped(policy, life, phase, cause, now_s)
        case Ended() if phase.cause is not None:
            return _reaped(policy, life, phase, phase.cause, now_s)
        case Elapsed():
            # SIGKILL may have to wait for the kernel (a disk that does not respond), so it is only sent again.
            cause = phase.cause or Cause("hung_up", "it closed its socket and did not end, killed")
            return replace(life, phase=replace(phase, deadline_s=now_s + policy.kill_timeout_s, cause=cause)), (Kill(),)
        case Stop():
            return replace(life, phase=replace(phase, stop_requested=True)), (Kill(),)
        case Start():
            return replace(life, phase=replace(phase, stop_requested=False)), ()
        case Replied() | SaidHello() | SaidHopeless() | Broke() | Closed():
            return life, ()  # sent before the SIGKILL took effect
    raise _illegal_move(life, event)


def _reaped(policy: Policy, life: Life, phase: Dying, cause: Cause, now_s: float) -> Outcome:
    if phase.stop_requested:
        life = replace(life, phase=Stopped())
    elif phase.hopeless:
        return _disable(policy, life, cause, now_s)
    return _crash(policy, life, cause, now_s, counted=phase.counted)


def _launch(policy: Policy, life: Life, now_s: float) -> Outcome:
    return replace(life, phase=Starting(now_s + policy.start_timeout_s)), (Spawn(),)


def _become_ready(policy: Policy, life: Life, now_s: float, *notices: Notice) -> Outcome:
    return replace(life, phase=Ready(now_s + policy.idle_check_s)), notices


def _exit_due(policy: Policy, now_s: float, *, counted: bool) -> Dying:
    """It has closed its socket. Its exit status will explain more than "killed", so it is given a moment to exit."""
    return Dying(now_s + policy.kill_timeout_s, cause=None, counted=counted)


def _kill(
    policy: Policy, life: Life, cause: Cause, now_s: float, *, counted: bool = True, hopeless: bool = False
) -> Outcome:
    """Kill the child; what follows is decided when it has been reaped."""
    return replace(life, phase=Dying(now_s + policy.kill_timeout_s, cause, counted, hopeless)), (Kill(),)


def _crash(policy: Policy, life: Life, cause: Cause, now_s: float, *, counted: bool) -> Outcome:
    """No process is left: relaunch now, later, or not at all. After a requested stop the crash is only counted."""
    stop_requested = isinstance(life.phase, Stopped)
    if not counted:
        left = relaunches_left(policy.rule, life.crashes, life.answered_s, now_s)
        crashed = Crashed(cause, counted=False, relaunches_left=left)
        if stop_requested:
            return life, (crashed, BecameStopped())
        return replace(life, phase=BackOff(now_s)), (crashed, Relaunching(0.0))
    decision = after_crash(policy.rule, life.crashes, life.answered_s, now_s)
    life = replace(life, crashes=decision.crashes)
    crashed = Crashed(cause, counted=True, relaunches_left=decision.relaunches_left)
    if stop_requested:
        return life, (crashed, BecameStopped())
    if decision.delay_s is None:
        limit = Cause("crashed_too_often", _limit_exceeded(policy.rule, decision.crashes, cause))
        return replace(life, phase=Disabled(limit)), (crashed, BecameDisabled(limit))
    return replace(life, phase=BackOff(now_s + decision.delay_s)), (crashed, Relaunching(decision.delay_s))


def _disable(policy: Policy, life: Life, cause: Cause, now_s: float) -> Outcome:
    """The child can never start: disable it without trying relaunches that would fail in the same way."""
    decision = after_crash(policy.rule, life.crashes, life.answered_s, now_s)
    crashed = Crashed(cause, counted=True, relaunches_left=0)
    return replace(life, phase=Disabled(cause), crashes=decision.crashes), (crashed, BecameDisabled(cause))


def _illegal_instruction(cause: Cause) -> Cause:
    return Cause("illegal_instruction", f"this processor lacks an instruction that it needs ({cause.message})")


def _limit_exceeded(rule: RelaunchRule, crashes: tuple[float, ...], cause: Cause) -> str:
    # A crash is remembered beyond the interval only if no image has been answered since.
    within = crashes[0] > crashes[-1] - rule.interval_s
    since = f"within {rule.interval_s:g} s" if within else "without answering an image in between"
    return f"crashed more than {rule.maximum_number_of_relaunches} times {since}; the last time: {cause.message}"


def _illegal_move(life: Life, event: ChildEvent) -> IllegalMoveError:
    return IllegalMoveError(f"{type(event).__name__} cannot happen in {type(life.phase).__name__}")
