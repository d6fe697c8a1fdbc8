"""The child's life: every legal move, and random walks that must never get stuck or start a second child."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.supervision.lifecycle import (
    EXHAUSTED_PAUSE_S,
    Action,
    AskToStop,
    BackOff,
    BecameDisabled,
    BecameReady,
    BecameStopped,
    Broke,
    Busy,
    Cause,
    Checking,
    ChildEvent,
    Closed,
    Crashed,
    Disabled,
    Dying,
    Elapsed,
    Ended,
    Given,
    IllegalMoveError,
    Kill,
    Life,
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
    step,
)
from worker.supervision.relaunch import RelaunchRule

WHY = Cause("killed_by_sigkill", "killed by SIGKILL: perhaps out of memory?")
START_TIMEOUT_S = 120.0
MODEL = Policy(RelaunchRule(5, 60.0), work_is_blamed=False, start_timeout_s=START_TIMEOUT_S)
DECODER = Policy(RelaunchRule(None, 60.0), work_is_blamed=True, start_timeout_s=START_TIMEOUT_S)
ONE_CRASH_DISABLES = Policy(RelaunchRule(0, 1.0), work_is_blamed=False, start_timeout_s=START_TIMEOUT_S)

INITIAL = Life()


def walk(
    policy: Policy, *events: ChildEvent, life: Life = INITIAL, now_s: float = 100.0
) -> tuple[Life, tuple[Action, ...]]:
    actions: tuple[Action, ...] = ()
    for event in events:
        life, actions = step(policy, life, event, now_s)
    return life, actions


READY = (Start(), SaidHello())
BUSY = (*READY, Given(30.0))


def test_a_child_starts_works_and_stops() -> None:
    life, actions = walk(MODEL, Start())
    assert (life.phase, actions) == (Starting(100 + MODEL.start_timeout_s), (Spawn(),))
    life, actions = walk(MODEL, SaidHello(), life=life)
    assert (life.phase, actions) == (Ready(100 + MODEL.idle_check_s), (BecameReady(),))
    life, actions = walk(MODEL, Given(30.0), life=life)
    assert (life.phase, actions) == (Busy(130.0), ())
    life, actions = walk(MODEL, Replied(), life=life)
    assert isinstance(life.phase, Ready)
    life, actions = walk(MODEL, Stop(), life=life)
    assert (life.phase, actions) == (Stopping(100 + MODEL.stop_timeout_s), (AskToStop(),))
    life, actions = walk(MODEL, Ended(WHY), life=life)
    assert (life, actions) == (Life(), (BecameStopped(),)), "a planned stop is never a crash, whatever the exit status"


def test_the_timeout_of_a_second_job_starts_when_the_first_has_been_answered() -> None:
    life, actions = walk(MODEL, *BUSY, Given(5.0))
    assert (life.phase, actions) == (Busy(130.0), ()), "the deadline is that of the first job"
    life, actions = walk(MODEL, Replied(next_timeout_s=5.0), life=life, now_s=120.0)
    assert (life.phase, actions) == (Busy(125.0), ())
    assert isinstance(walk(MODEL, Replied(), life=life)[0].phase, Ready)


def test_an_idle_child_is_pinged() -> None:
    life, actions = walk(MODEL, *READY, Elapsed())
    assert (life.phase, actions) == (Checking(100 + MODEL.check_timeout_s), (Ping(),))
    assert isinstance(walk(MODEL, Replied(), life=life)[0].phase, Ready)
    life, actions = walk(MODEL, Elapsed(), life=life)
    assert isinstance(life.phase, Dying)
    assert actions == (Kill(),)


@pytest.mark.parametrize(
    ("before", "reason"),
    [((Start(),), "silent_while_starting"), (BUSY, "silent_while_busy"), ((*READY, Elapsed()), "silent_while_idle")],
)
def test_silence_past_the_deadline_is_a_crash_once_the_child_has_been_reaped(
    before: tuple[ChildEvent, ...], reason: str
) -> None:
    life, actions = walk(MODEL, *before, Elapsed())
    assert actions == (Kill(),)
    assert life.crashes == ()
    life, actions = walk(MODEL, Ended(WHY), life=life)
    assert isinstance(life.phase, BackOff)
    crash = next(action for action in actions if isinstance(action, Crashed))
    assert (crash.cause.reason, crash.counted, crash.relaunches_left) == (reason, True, 4)
    assert life.crashes == (100.0,)


def test_a_child_that_sigkill_does_not_reach_is_killed_again_and_not_replaced() -> None:
    life, _ = walk(MODEL, *BUSY, Elapsed())
    for _ in range(5):
        life, actions = walk(MODEL, Elapsed(), life=life, now_s=life.deadline_s or 0)
        assert actions == (Kill(),)


@pytest.mark.parametrize("before", [(Start(),), READY, BUSY, (*READY, Elapsed())])
@pytest.mark.parametrize("fault", [Broke(WHY), Closed(), Ended(WHY)])
def test_every_way_to_die_is_one_crash_of_the_model(before: tuple[ChildEvent, ...], fault: ChildEvent) -> None:
    life, _ = walk(MODEL, *before, fault)
    if not isinstance(fault, Ended):
        life, _ = walk(MODEL, Ended(WHY), life=life)
    assert life == Life(BackOff(100.0), (100.0,))
    assert walk(MODEL, Elapsed(), life=life)[1] == (Spawn(),)


def test_a_failed_spawn_is_a_crash_too() -> None:
    life, actions = walk(MODEL, Start(), SpawnFailed(WHY))
    assert life == Life(BackOff(100.0), (100.0,))
    assert actions == (Crashed(WHY, counted=True, relaunches_left=4), Relaunching(0.0))


def test_a_machine_without_room_for_a_process_is_no_crash_and_never_disables() -> None:
    life, actions = walk(MODEL, Start(), SpawnFailed(WHY, exhausted=True))
    assert actions == (Relaunching(EXHAUSTED_PAUSE_S),)
    for _ in range(20):
        assert life == Life(BackOff(life.deadline_s or 0), ())
        now_s = life.deadline_s or 0
        life, actions = walk(MODEL, Elapsed(), SpawnFailed(WHY, exhausted=True), life=life, now_s=now_s)
    assert walk(MODEL, Elapsed(), SaidHello(), life=life)[1] == (BecameReady(),)


def test_a_child_that_closes_its_socket_is_given_a_moment_to_exit_before_it_is_killed() -> None:
    life, actions = walk(MODEL, *BUSY, Closed())
    assert actions == ()
    _, actions = walk(MODEL, Ended(WHY), life=life)
    assert actions[0] == Crashed(WHY, counted=True, relaunches_left=4), "the exit status says why"
    life, actions = walk(MODEL, Elapsed(), life=life)
    assert actions == (Kill(),)
    _, actions = walk(MODEL, Ended(WHY), life=life)
    assert isinstance(actions[0], Crashed)
    assert actions[0].cause.reason == "hung_up", "the parent's own SIGKILL explains nothing"


def test_the_sixth_crash_within_the_interval_disables_and_a_reset_enables() -> None:
    life = Life()
    for number in range(5):
        event: ChildEvent = Start() if number == 0 else Elapsed()
        life, actions = walk(MODEL, event, Ended(WHY), life=life)
        assert isinstance(actions[1], Relaunching)
    life, actions = walk(MODEL, Elapsed(), Ended(WHY), life=life)
    assert isinstance(life.phase, Disabled)
    assert isinstance(actions[1], BecameDisabled)
    assert "crashed more than 5 times within 60 s" in life.phase.cause.message
    assert life.deadline_s is None, "it never enables itself again"
    life, actions = walk(MODEL, Reset(), life=life)
    assert actions == (Spawn(),)
    assert life.crashes == ()


@pytest.mark.parametrize("silent_in", ["start", "job"])
def test_a_model_that_answers_no_image_is_disabled_however_long_each_failure_takes(silent_in: str) -> None:
    life, now_s = walk(MODEL, Start())[0], 100.0
    for number in range(6):
        if silent_in == "job":
            # An answer to a ping is none to an image.
            life, _ = walk(MODEL, SaidHello(), Elapsed(), Replied(), Given(1000.0), life=life, now_s=now_s)
        now_s = life.deadline_s or 0
        life, _ = walk(MODEL, Elapsed(), Ended(WHY), life=life, now_s=now_s)
        if number < 5:
            assert isinstance(life.phase, BackOff)
            life, _ = walk(MODEL, Elapsed(), life=life, now_s=life.deadline_s or 0)
    assert isinstance(life.phase, Disabled)
    assert "crashed more than 5 times without answering an image in between" in life.phase.cause.message


def test_an_answer_to_an_image_lets_a_crash_be_forgotten_also_when_the_child_is_asked_to_stop() -> None:
    life, _ = walk(MODEL, Start(), Ended(WHY))
    for ending in ((), (Stop(),)):
        after, _ = walk(MODEL, Elapsed(), SaidHello(), Given(1.0), *ending, life=life, now_s=101.0)
        after, _ = walk(MODEL, Replied(images=1), life=after, now_s=102.0)
        assert after.answered_s == 102.0


@pytest.mark.parametrize("policy", [MODEL, DECODER])
def test_a_hopeless_start_disables_at_once_with_its_reason(policy: Policy) -> None:
    missing = Cause("model_missing", "the model is not there")
    life, actions = walk(policy, Start(), SaidHopeless(missing))
    assert actions == (Kill(),)
    life, actions = walk(policy, Ended(WHY), life=life)
    assert life.phase == Disabled(missing)
    assert actions[1] == BecameDisabled(missing)


def test_an_illegal_instruction_disables_at_once_only_while_starting() -> None:
    illegal = Ended(Cause("killed_by_sigill", "killed by SIGILL"), illegal_instruction=True)
    for before in ((Start(),), (Start(), Closed())):
        life, _ = walk(MODEL, *before, illegal)
        assert isinstance(life.phase, Disabled)
        assert life.phase.cause.reason == "illegal_instruction"
    life, _ = walk(MODEL, *BUSY, illegal)
    assert isinstance(life.phase, BackOff)


@pytest.mark.parametrize("fault", [Broke(WHY), Closed(), Ended(WHY), Elapsed()])
def test_a_decoder_that_dies_busy_is_relaunched_at_once_and_nothing_is_counted(fault: ChildEvent) -> None:
    life, actions = walk(DECODER, *BUSY, fault)
    if not isinstance(fault, Ended):
        life, actions = walk(DECODER, Ended(WHY), life=life)
    assert life == Life(BackOff(100.0), ())
    crash, relaunching = actions
    assert isinstance(crash, Crashed)
    assert not crash.counted
    assert relaunching == Relaunching(0.0)


def test_a_decoder_that_cannot_start_backs_off_longer_and_longer_but_is_never_disabled() -> None:
    life, delays = Life(), []
    for number in range(20):
        life, actions = walk(DECODER, Start() if number == 0 else Elapsed(), Ended(WHY), life=life)
        delays += [action.delay_s for action in actions if isinstance(action, Relaunching)]
    assert delays[:4] == [0.0, 0.5, 1.0, 2.0]
    assert max(delays) == 30.0
    assert len(delays) == 20


def test_a_child_asked_to_stop_while_starting_is_killed_and_that_is_no_crash() -> None:
    life, actions = walk(MODEL, Start(), Stop())
    assert actions == (Kill(),)
    assert walk(MODEL, SaidHello(), Ended(WHY), life=life)[0] == Life()


def test_a_busy_child_may_finish_before_it_stops_and_is_killed_when_it_does_not() -> None:
    life, actions = walk(MODEL, *BUSY, Stop())
    assert actions == (AskToStop(),)
    assert isinstance(walk(MODEL, Replied(), life=life)[0].phase, Stopping)
    life, actions = walk(MODEL, Elapsed(), life=life)
    assert actions == (Kill(),)
    assert walk(MODEL, Ended(WHY), life=life)[0] == Life()


def test_a_start_while_stopping_waits_for_the_old_child_to_end() -> None:
    life, actions = walk(MODEL, *READY, Stop(), Start())
    assert actions == ()
    assert walk(MODEL, Ended(WHY), life=life)[1] == (Spawn(),)
    for stop in (Stop(), Stop(at_once=True)):
        assert walk(MODEL, stop, Ended(WHY), life=life)[0] == Life(), "the last request counts"


def test_a_child_that_was_being_killed_when_asked_to_stop_has_its_crash_counted_and_is_not_relaunched() -> None:
    life, _ = walk(MODEL, *BUSY, Elapsed(), Stop())
    life, actions = walk(MODEL, Ended(WHY), life=life)
    assert life == Life(Stopped(), (100.0,))
    assert isinstance(actions[-1], BecameStopped)


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ((), SaidHello()),
        ((), Elapsed()),
        ((), Ended(WHY)),
        ((Start(),), Given(1.0)),
        ((Start(),), Start()),
        (READY, Replied()),
        (READY, SaidHello()),
        ((*READY, Stop()), Given(1.0)),
        ((*READY, Elapsed()), Given(1.0)),
    ],
)
def test_what_cannot_happen_is_refused(before: tuple[ChildEvent, ...], event: ChildEvent) -> None:
    life, _ = walk(MODEL, *before)
    with pytest.raises(IllegalMoveError):
        step(MODEL, life, event, 100.0)


class World:
    """Simulates the supervisor and the operating system: at most one process, which behaves at random."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.life, self.now_s = policy, Life(), 0.0
        self.alive = False
        self.counted = 0
        self.crashes_seen: list[float] = []
        self.answered_s = float("-inf")

    def possible(self) -> list[ChildEvent]:
        """The events that can happen now, by the rules of this simulation and not by those of `step`."""
        events: list[ChildEvent] = [Stop(), Stop(at_once=True), Reset()]
        phase = self.life.phase
        if isinstance(phase, Stopped | Stopping) or (isinstance(phase, Dying) and phase.stop_requested):
            events.append(Start())
        if self.life.deadline_s is not None:
            events.append(Elapsed())
        if self.alive:
            events += [Broke(WHY), Closed(), Ended(WHY), Ended(WHY, illegal_instruction=True)]
            if isinstance(phase, Starting):
                events += [SaidHello(), SaidHopeless(WHY)]
            if isinstance(phase, Ready):
                events.append(Given(30.0))
            if isinstance(phase, Busy | Checking):
                events += [Replied(), Replied(images=1)]
        elif isinstance(phase, Starting):
            events = [SpawnFailed(WHY), SpawnFailed(WHY, exhausted=True)]
        return events

    def happen(self, event: ChildEvent) -> None:
        if isinstance(event, Elapsed):
            assert self.life.deadline_s is not None
            self.now_s = max(self.now_s, self.life.deadline_s)
        before = self.life
        if isinstance(event, Replied) and event.images:
            self.answered_s = self.now_s
        self.life, actions = step(self.policy, self.life, event, self.now_s)
        if isinstance(event, Ended):
            self.alive = False
        for action in actions:
            if isinstance(action, Spawn):
                assert not self.alive, "two living children"
                self.alive = True
            if isinstance(action, Crashed) and action.counted:
                self.crashes_seen.append(self.now_s)
        if isinstance(event, Reset):
            self.crashes_seen = []
        self.check(before, event)

    def check(self, before: Life, event: ChildEvent) -> None:
        phase = self.life.phase
        if isinstance(phase, Stopped | Disabled | BackOff):
            assert not self.alive, "an unsupervised process"
        assert (self.life.deadline_s is None) == isinstance(phase, Stopped | Disabled), "an unbounded wait"
        since_s = self.now_s - self.policy.rule.interval_s
        window = [time for time in self.crashes_seen if time > since_s or time >= self.answered_s]
        remembered = [time for time in self.life.crashes if time > since_s or time >= self.answered_s]
        kept = 18 if self.policy.rule.maximum_number_of_relaunches is None else None
        assert remembered == window[-kept if kept else None :], "the count of crashes is not exact"
        if isinstance(before.phase, Stopping):
            assert self.life.crashes == before.crashes or isinstance(event, Reset), "a planned stop was counted"


@given(data=st.data(), policy=st.sampled_from([MODEL, DECODER, ONE_CRASH_DISABLES]))
def test_no_walk_gets_stuck_or_starts_two_children_or_miscounts(data: Any, policy: Policy) -> None:
    world = World(policy)
    world.happen(Start())
    for _ in range(data.draw(st.integers(0, 60))):
        world.now_s += data.draw(st.sampled_from([0.0, 0.0, 0.5, 7.0, 61.0]))
        world.happen(data.draw(st.sampled_from(world.possible())))
    # From every state, a stop leads to Stopped when only deadlines pass and killed children die.
    world.happen(Stop())
    for _ in range(10):
        if isinstance(world.life.phase, Stopped):
            break
        world.happen(Elapsed())
        if world.alive:
            world.happen(Ended(WHY))
    assert isinstance(world.life.phase, Stopped)
    assert not world.alive
