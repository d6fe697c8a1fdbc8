"""The gate: for which reasons no events are taken, and that the broker learns of each once, in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from worker.amqp.broker import Broker
from worker.amqp.declare import QueueLevel
from worker.amqp.topology import Lane
from worker.engine import Active
from worker.operations.health.intake import PATIENCE_S, START_S, Intake, Situation, reasons_to_pause
from worker.operations.health.status import Pause

LONG_S = PATIENCE_S + 1
ALL_WELL = Situation()


@dataclass
class FakePool:
    ready: bool = True
    disabled_reason: str | None = None


@dataclass
class FakeEngine:
    decoders: FakePool = field(default_factory=FakePool)
    model: FakePool | None = field(default_factory=FakePool)


@dataclass
class FakeActive:
    """What is known of the settings and the engine: by default all is well."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    nobody: str | None = None
    lacks: dict[str, str] = field(default_factory=dict)
    tags_anything: bool = True
    waits_for_a_switch: bool = False

    def why_nothing_can_be_tagged(self) -> str | None:
        return self.nobody

    def lacking(self) -> dict[str, str]:
        return self.lacks


class FakeBroker:
    """Keeps the reasons that it was given. Other consumers are as many as the test wants."""

    def __init__(self) -> None:
        self.pauses: dict[str, str | None] = {}
        self.changes = 0
        self.others = 0
        self.waiting = 0
        self.state = SimpleNamespace(lanes=frozenset(Lane))
        self.asked = 0

    async def stop_consuming(self, reason: str, message: str | None = None) -> None:
        self.changes += 1
        self.pauses[reason] = message

    async def resume_consuming(self, reason: str) -> None:
        self.changes += 1
        del self.pauses[reason]

    async def lane_levels(self) -> dict[Lane, QueueLevel]:
        self.asked += 1
        return {Lane.LIVE: QueueLevel(self.waiting, self.others), Lane.BULK: QueueLevel(0, 0)}


def reasons(active: FakeActive, situation: Situation = ALL_WELL) -> dict[Pause, str]:
    return reasons_to_pause(cast("Active", active), situation)


def test_where_all_is_well_there_is_no_reason() -> None:
    assert reasons(FakeActive(), Situation(other_consumers=3)) == {}


@pytest.mark.parametrize(
    ("active", "situation", "pause"),
    [
        (FakeActive(nobody="the model is disabled"), ALL_WELL, Pause.NOBODY_CAN_TAG),
        (FakeActive(tags_anything=False, waits_for_a_switch=True), ALL_WELL, Pause.NOTHING_SWITCHED_ON),
        (FakeActive(), Situation(decoders_missing_s=LONG_S), Pause.NO_DECODER),
        (FakeActive(), Situation(model_missing_s=LONG_S), Pause.MODEL_NOT_READY),
        (FakeActive(lacks={"acme": "the model is disabled"}), Situation(other_consumers=1), Pause.LEFT_TO_OTHERS),
    ],
)
def test_what_is_missing_has_a_name(active: FakeActive, situation: Situation, pause: Pause) -> None:
    assert set(reasons(active, situation)) == {pause}


@pytest.mark.parametrize(
    ("active", "situation"),
    [
        (FakeActive(), Situation(decoders_missing_s=PATIENCE_S, model_missing_s=PATIENCE_S)),
        (FakeActive(engine=FakeEngine(model=None)), Situation(model_missing_s=LONG_S)),
        (FakeActive(engine=FakeEngine(model=FakePool(False, "broken"))), Situation(model_missing_s=LONG_S)),
        (FakeActive(lacks={"acme": "the model is disabled"}), Situation(other_consumers=0)),
        (FakeActive(tags_anything=False), Situation(LONG_S, LONG_S, other_consumers=2)),
    ],
    ids=[
        "a child that is just being replaced",
        "a model that nobody wants",
        "a disabled model, while another provider answers",
        "nobody else to leave events to",
        "all events are skipped anyway",
    ],
)
def test_what_is_no_reason(active: FakeActive, situation: Situation) -> None:
    assert reasons(active, situation) == {}


def test_the_sentence_names_the_cause() -> None:
    assert "it crashed too often" in reasons(FakeActive(nobody="it crashed too often"))[Pause.NOBODY_CAN_TAG]
    left = reasons(FakeActive(lacks={"acme": "the model is disabled"}), Situation(other_consumers=2))
    assert "acme (the model is disabled)" in left[Pause.LEFT_TO_OTHERS]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time that the gate sees, in seconds: the last entry."""
    times = [1000.0]
    monkeypatch.setattr("worker.operations.health.intake.time.monotonic", lambda: times[-1])
    return times


def gate(active: FakeActive, *, begun: bool = True) -> tuple[Intake, FakeBroker]:
    broker = FakeBroker()
    made = Intake(cast("Broker", broker))
    if begun:
        made.use(cast("Active", active))
    return made, broker


async def test_the_broker_is_asked_once_for_each_change(clock: list[float]) -> None:
    active = FakeActive()
    it, broker = gate(active)
    await it.update()
    assert broker.changes == 0
    active.engine.decoders.ready = False
    for _ in range(5):
        clock.append(clock[-1] + 1)
        await it.update()
    assert (set(broker.pauses), broker.changes) == ({Pause.NO_DECODER}, 1)
    active.engine.decoders.ready = True
    await it.update()
    assert (broker.pauses, broker.changes) == ({}, 2)


async def test_until_the_model_was_ready_for_the_first_time_no_event_is_taken(clock: list[float]) -> None:
    # Given a service that has not even an engine yet
    active = FakeActive(engine=FakeEngine(model=FakePool(ready=False)))
    it, broker = gate(active, begun=False)
    await it.begin()
    await it.update()
    assert set(broker.pauses) == {Pause.STARTING}
    # When it has one, whose model does not get ready
    it.use(cast("Active", active))
    await it.update()
    assert set(broker.pauses) == {Pause.STARTING}
    clock.append(clock[-1] + START_S + 1)
    await it.update()
    # Then that has a name of its own
    assert set(broker.pauses) == {Pause.MODEL_NOT_READY}
    # And once it was ready, what is missing later is not starting
    assert active.engine.model is not None
    active.engine.model.ready = True
    await it.update()
    assert broker.pauses == {}
    active.engine.model.ready = False
    clock.append(clock[-1] + LONG_S)
    await it.update()
    assert set(broker.pauses) == {Pause.MODEL_NOT_READY}


async def test_another_cause_of_the_same_reason_replaces_its_sentence(clock: list[float]) -> None:
    active = FakeActive(nobody="it crashed too often")
    it, broker = gate(active)
    await it.update()
    active.nobody = "its file is missing"
    await it.update()
    assert "its file is missing" in str(broker.pauses[Pause.NOBODY_CAN_TAG])


async def test_others_are_counted_now_and_then_and_only_where_something_is_lacking(clock: list[float]) -> None:
    active = FakeActive()
    it, broker = gate(active)
    for _ in range(100):
        await it.update()
    assert broker.asked == 0
    active.lacks = {"acme": "the model is disabled"}
    broker.others = 1
    for _ in range(9):
        clock.append(clock[-1] + 1)
        await it.update()
    assert (broker.asked, set(broker.pauses)) == (1, {Pause.LEFT_TO_OTHERS})
    # And when the others have gone, this worker goes on with what it can do
    broker.others = 0
    clock.append(clock[-1] + 20)
    await it.update()
    assert broker.pauses == {}


async def test_where_what_waits_does_not_become_less_it_helps_for_a_while(clock: list[float]) -> None:
    """The others may lack the same, or be too few."""
    it, broker = gate(FakeActive(lacks={"acme": "the model is disabled"}))
    broker.others = 9
    for waiting, left in ((500, True), (400, True), (300, True), (300, False), (900, False)):
        broker.waiting = waiting
        clock.append(clock[-1] + 61)
        await it.update()
        assert (broker.pauses != {}) is left, waiting
    # And after that it leaves them to the others again
    clock.append(clock[-1] + 600)
    await it.update()
    assert set(broker.pauses) == {Pause.LEFT_TO_OTHERS}


async def test_with_nothing_waiting_there_is_nothing_to_help_with(clock: list[float]) -> None:
    it, broker = gate(FakeActive(lacks={"acme": "the model is disabled"}))
    broker.others = 1
    for _ in range(5):
        clock.append(clock[-1] + 61)
        await it.update()
        assert set(broker.pauses) == {Pause.LEFT_TO_OTHERS}


async def test_one_lane_may_be_closed_while_the_other_is_consumed(clock: list[float]) -> None:
    it, broker = gate(FakeActive())
    broker.state.lanes = frozenset({Lane.LIVE})
    assert [await it.is_closed(lane) for lane in (Lane.LIVE, Lane.BULK)] == [False, True]
