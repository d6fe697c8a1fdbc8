"""The life of one child process, as a pure function of its state, an event and the time.

`step` decides and does nothing: the supervisor makes the events and performs the actions. Every phase in which a
process exists, or one is due, has a deadline, so that no wait is unbounded; when it passes the supervisor makes an
`Elapsed`. A pair of phase and event that cannot happen raises `IllegalMoveError`.

    Stopped ── Start ──► Starting ── SaidHello ──► Ready ◄─ Replied ── Busy, Checking
                            ▲                        └── Given, Elapsed ──►┘
                            │ Elapsed
                         BackOff ◄── a crash, the process reaped ──► Disabled ── Reset ──► Starting

A process that has to go at once is in Dying until it has been reaped, one that was asked to go is in Stopping: a
second process is never started beside a living one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from worker.supervision.relaunch import RelaunchRule, after_crash, relaunches_left


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a child ended or must end: `reason` is a fixed word for metrics, `message` a clause for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What is data about a kind of child; both kinds run through the same `step`.

    `work_is_blamed`: a death while busy is the fault of what was in hand (a decoder's image), so the child is
    relaunched at once and the death is not counted. Otherwise it is the child's own crash.
    """

    rule: RelaunchRule
    work_is_blamed: bool
    start_timeout_s: float = 120.0
    idle_check_s: float = 30.0
    check_timeout_s: float = 5.0
    stop_timeout_s: float = 5.0
    kill_timeout_s: float = 1.0


# ── phases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Stopped:
    """No process, and none wanted."""


@dataclass(frozen=True, slots=True)
class Starting:
    """Spawned; has not said hello yet."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Ready:
    """Idle. At the deadline it is asked for a sign of life."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Checking:
    """Was idle, and has been asked for a sign of life."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Busy:
    """Is at a job; the deadline is that of the first one in hand. It may have others."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """Asked to end, which is never a crash. `again`: to be started anew once it has ended."""

    deadline_s: float
    again: bool = False


@dataclass(frozen=True, slots=True)
class Dying:
    """Being killed, or gone silent for ever, and not reaped yet.

    `cause` is None while only the exit status can tell it. `counted`: it is a crash of the child's own.
    `hopeless`: another start would fail as well. `starting`: it had not said hello. `leaving`: it is not wanted again.
    """

    deadline_s: float
    cause: Cause | None
    counted: bool
    hopeless: bool = False
    starting: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class BackOff:
    """No process; the next one is spawned at the deadline."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Disabled:
    """No process until `Reset`."""

    cause: Cause


Phase = Stopped | Starting | Ready | Checking | Busy | Stopping | Dying | BackOff | Disabled


@dataclass(frozen=True, slots=True)
class Life:
    """The whole state: the phase, and the times of the crashes that the relaunch rule still remembers."""

    phase: Phase = Stopped()
    crashes: tuple[float, ...] = ()

    @property
    def deadline_s(self) -> float | None:
        """When `Elapsed` is due; None where nothing is awaited."""
        return None if isinstance(self.phase, Stopped | Disabled) else self.phase.deadline_s


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Start:
    """A child is wanted."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The child is not wanted any more; `at_once` without asking it first."""

    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The operator forgives: crashes are forgotten, a disabled child is started."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The operating system did not give us a process."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class SaidHello:
    """The child has started and is ready for work."""


@dataclass(frozen=True, slots=True)
class SaidHopeless:
    """The child cannot start, and never will as things are."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Given:
    """A job has been handed to the child, to be answered within `timeout_s` from when it is the first one in hand."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Replied:
    """The child has answered its job, or the question whether it lives.

    `next_timeout_s`: how long it may take over the job that it has in hand besides; None: it has none.
    """

    next_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Broke:
    """The child has sent something that it should not have sent."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Closed:
    """The child has closed its socket; its exit should follow at once."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The child has been reaped, and its process group with it. `illegal_instruction`: it died of SIGILL."""

    cause: Cause
    illegal_instruction: bool = False


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The deadline of the phase has passed."""


Event = (
    Start | Stop | Reset | SpawnFailed | SaidHello | SaidHopeless | Given | Replied | Broke | Closed | Ended | Elapsed
)


# ── actions: what the supervisor must do, and what it must tell ──────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask the idle child for a sign of life."""


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Send the stop packet."""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the child's process group."""


@dataclass(frozen=True, slots=True)
class BecameReady:
    """Told: the child has started."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """Told: the child died unasked. Not `counted` when what it had in hand is to blame."""

    cause: Cause
    counted: bool
    relaunches_left: int | None


@dataclass(frozen=True, slots=True)
class Relaunching:
    """Told: the next start is due after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class BecameDisabled:
    """Told: the child stays down until `autotag reset` or a restart of the service."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class BecameStopped:
    """Told: the child has ended as asked."""


Notice = BecameReady | Crashed | Relaunching | BecameDisabled | BecameStopped
Action = Spawn | Ping | AskToStop | Kill | Notice
Outcome = tuple[Life, tuple[Action, ...]]


class IllegalMoveError(Exception):
    """An event came in a phase in which it cannot come: a mistake in the supervisor."""


# ── the moves ────────────────────────────────────────────────────────────────────────────────────────────────────────


def step(policy: Policy, life: Life, event: Event, now_s: float) -> Outcome:
    """The next state and what to do, for `event` at monotonic `now_s`. Raises `IllegalMoveError`."""
    if isinstance(event, Reset):
        return _reset(policy, life, now_s)
    match life.phase:
        case Stopped() | BackOff() | Disabled():
            return _without_process(policy, life, event, now_s)
        case Starting():
            return _starting(policy, life, event, now_s)
        case Ready():
            return _ready(policy, life, event, now_s)
        case Busy() | Checking():
            return _asked(policy, life, event, now_s)
        case Stopping() as phase:
            return _stopping(policy, life, phase, event, now_s)
        case Dying() as phase:
            return _dying(policy, life, phase, event, now_s)


def _reset(policy: Policy, life: Life, now_s: float) -> Outcome:
    if isinstance(life.phase, Disabled | BackOff):
        return _launch(policy, replace(life, crashes=()), now_s)
    return replace(life, crashes=()), ()


def _without_process(policy: Policy, life: Life, event: Event, now_s: float) -> Outcome:
    match life.phase, event:
        case Stopped(), Start():
            return _launch(policy, life, now_s)
        case BackOff(), Elapsed():
            return _launch(policy, life, now_s)
        case _, Stop():
            return replace(life, phase=Stopped()), (BecameStopped(),)
    raise _illegal(life, event)


def _starting(policy: Policy, life: Life, event: Event, now_s: float) -> Outcome:
    match event:
        case SaidHello():
            return _rest(policy, life, now_s, BecameReady())
        case SaidHopeless(cause):
            return _condemn(policy, life, cause, now_s, hopeless=True)
        case SpawnFailed(cause):
            return _crash(policy, life, cause, now_s, counted=True)
        case Ended(cause, illegal_instruction=True):
            return _disable(policy, life, _unfit(cause), now_s)
        case Closed():
            return replace(life, phase=replace(_ending(policy, now_s, counted=True), starting=True)), ()
        case Elapsed():
            message = f"not ready after {policy.start_timeout_s:g} s, killed"
            return _condemn(policy, life, Cause("silent_while_starting", message), now_s)
        case Stop():
            # It holds nothing yet, and would read the packet only after it had finished starting.
            return replace(life, phase=Stopping(now_s + policy.kill_timeout_s)), (Kill(),)
    return _alive(policy, life, event, now_s, counted=True)


def _ready(policy: Policy, life: Life, event: Event, now_s: float) -> Outcome:
    match event:
        case Given(timeout_s):
            return replace(life, phase=Busy(now_s + timeout_s)), ()
        case Elapsed():
            return replace(life, phase=Checking(now_s + policy.check_timeout_s)), (Ping(),)
    return _alive(policy, life, event, now_s, counted=True)


def _asked(policy: Policy, life: Life, event: Event, now_s: float) -> Outcome:
    """Busy or Checking: an answer is due. Only a job in hand can be to blame."""
    busy = isinstance(life.phase, Busy)
    counted = not (busy and policy.work_is_blamed)
    match event:
        case Given() if busy:
            return life, ()  # its time begins when it is the first one in hand
        case Replied(next_timeout_s) if busy and next_timeout_s is not None:
            return replace(life, phase=Busy(now_s + next_timeout_s)), ()
        case Replied():
            return _rest(policy, life, now_s)
        case Elapsed():
            reason = "silent_while_busy" if busy else "silent_while_idle"
            message = "no answer to its job within the deadline, killed" if busy else "no sign of life, killed"
            return _condemn(policy, life, Cause(reason, message), now_s, counted=counted)
    return _alive(policy, life, event, now_s, counted=counted)


def _alive(policy: Policy, life: Life, event: Event, now_s: float, *, counted: bool) -> Outcome:
    """What may happen to any living child that has not been told to go."""
    match event:
        case Broke(cause):
            return _condemn(policy, life, cause, now_s, counted=counted)
        case Closed():
            return replace(life, phase=_ending(policy, now_s, counted=counted)), ()
        case Ended(cause):
            return _crash(policy, life, cause, now_s, counted=counted)
        case Stop(at_once=True):
            return replace(life, phase=Stopping(now_s + policy.kill_timeout_s)), (Kill(),)
        case Stop():
            return replace(life, phase=Stopping(now_s + policy.stop_timeout_s)), (AskToStop(),)
    raise _illegal(life, event)


def _stopping(policy: Policy, life: Life, phase: Stopping, event: Event, now_s: float) -> Outcome:
    match event:
        case Ended() | SpawnFailed():
            if phase.again:
                return _launch(policy, life, now_s)
            return replace(life, phase=Stopped()), (BecameStopped(),)
        case Elapsed() | Broke():
            return replace(life, phase=replace(phase, deadline_s=now_s + policy.kill_timeout_s)), (Kill(),)
        case Stop(at_once=True):
            return replace(life, phase=Stopping(now_s + policy.kill_timeout_s)), (Kill(),)
        case Start():
            return replace(life, phase=replace(phase, again=True)), ()
        case Stop():
            return replace(life, phase=replace(phase, again=False)), ()
        case Replied() | SaidHello() | SaidHopeless() | Closed():
            return life, ()
    raise _illegal(life, event)


def _dying(policy: Policy, life: Life, phase: Dying, event: Event, now_s: float) -> Outcome:
    match event:
        case Ended(cause, illegal_instruction) if phase.cause is None:
            if phase.starting and illegal_instruction:
                return _dead(policy, life, replace(phase, hopeless=True), _unfit(cause), now_s)
            return _dead(policy, life, phase, cause, now_s)
        case Ended() if phase.cause is not None:
            return _dead(policy, life, phase, phase.cause, now_s)
        case Elapsed():
            # SIGKILL may have to wait for the kernel (a disk that does not answer), so it is only sent again.
            cause = phase.cause or Cause("hung_up", "it closed its socket and did not end, killed")
            return replace(life, phase=replace(phase, deadline_s=now_s + policy.kill_timeout_s, cause=cause)), (Kill(),)
        case Stop():
            return replace(life, phase=replace(phase, leaving=True)), (Kill(),)
        case Start():
            return replace(life, phase=replace(phase, leaving=False)), ()
        case Replied() | SaidHello() | SaidHopeless() | Broke() | Closed():
            return life, ()  # last words of a child already condemned
    raise _illegal(life, event)


def _dead(policy: Policy, life: Life, phase: Dying, cause: Cause, now_s: float) -> Outcome:
    if phase.leaving:
        life = replace(life, phase=Stopped())
    elif phase.hopeless:
        return _disable(policy, life, cause, now_s)
    return _crash(policy, life, cause, now_s, counted=phase.counted)


def _launch(policy: Policy, life: Life, now_s: float) -> Outcome:
    return replace(life, phase=Starting(now_s + policy.start_timeout_s)), (Spawn(),)


def _rest(policy: Policy, life: Life, now_s: float, *notices: Notice) -> Outcome:
    return replace(life, phase=Ready(now_s + policy.idle_check_s)), notices


def _ending(policy: Policy, now_s: float, *, counted: bool) -> Dying:
    """It has hung up: its exit status will say more than "killed", so it is given a moment to get there."""
    return Dying(now_s + policy.kill_timeout_s, cause=None, counted=counted)


def _condemn(
    policy: Policy, life: Life, cause: Cause, now_s: float, *, counted: bool = True, hopeless: bool = False
) -> Outcome:
    """Kill it; what follows is decided when it has been reaped."""
    return replace(life, phase=Dying(now_s + policy.kill_timeout_s, cause, counted, hopeless)), (Kill(),)


def _crash(policy: Policy, life: Life, cause: Cause, now_s: float, *, counted: bool) -> Outcome:
    """No process is left: relaunch now, later, or not at all. One that is leaving only has its crash counted."""
    leaving = isinstance(life.phase, Stopped)
    if not counted:
        crashed = Crashed(cause, counted=False, relaunches_left=relaunches_left(policy.rule, life.crashes, now_s))
        if leaving:
            return life, (crashed, BecameStopped())
        return replace(life, phase=BackOff(now_s)), (crashed, Relaunching(0.0))
    decision = after_crash(policy.rule, life.crashes, now_s)
    life = replace(life, crashes=decision.crashes)
    crashed = Crashed(cause, counted=True, relaunches_left=decision.relaunches_left)
    if leaving:
        return life, (crashed, BecameStopped())
    if decision.delay_s is None:
        why = Cause("crashed_too_often", _too_often(policy.rule, cause))
        return replace(life, phase=Disabled(why)), (crashed, BecameDisabled(why))
    return replace(life, phase=BackOff(now_s + decision.delay_s)), (crashed, Relaunching(decision.delay_s))


def _disable(policy: Policy, life: Life, cause: Cause, now_s: float) -> Outcome:
    """It can never start: it is disabled without using up relaunches that would fail in the same way."""
    decision = after_crash(policy.rule, life.crashes, now_s)
    crashed = Crashed(cause, counted=True, relaunches_left=0)
    return Life(Disabled(cause), decision.crashes), (crashed, BecameDisabled(cause))


def _unfit(cause: Cause) -> Cause:
    return Cause("illegal_instruction", f"this processor lacks an instruction that it needs ({cause.message})")


def _too_often(rule: RelaunchRule, cause: Cause) -> str:
    limit = f"{rule.maximum_number_of_relaunches} times within {rule.interval_s:g} s"
    return f"crashed more than {limit}; the last time: {cause.message}"


def _illegal(life: Life, event: Event) -> IllegalMoveError:
    return IllegalMoveError(f"{type(event).__name__} cannot happen in {type(life.phase).__name__}")
