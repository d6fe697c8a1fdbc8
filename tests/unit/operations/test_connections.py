"""The limit of connections: which is closed when, by a clock of the test's own."""

from __future__ import annotations

import math
from collections import Counter

from tests.support.processes import descriptors
from worker.operations.connections import (
    AcceptedConnection,
    ConnectionLimit,
    Refusal,
    Stage,
    affordable,
)


class Door:
    """A limit with the connections that it closed, by number."""

    def __init__(self, maximum: int = 3) -> None:
        self.refusals: Counter[Refusal] = Counter()
        self.limit = ConnectionLimit(maximum, request_within_s=10, on_refused=self._count)
        self.closed: list[int] = []
        self._number = 0

    def _count(self, why: Refusal) -> None:
        self.refusals[why] += 1

    def admit(self, now_s: float) -> AcceptedConnection | None:
        number = self._number
        self._number += 1
        return self.limit.admit(lambda: self.closed.append(number), now_s)

    def admitted(self, now_s: float) -> AcceptedConnection:
        connection = self.admit(now_s)
        assert connection is not None
        return connection


def test_the_connection_that_has_waited_longest_makes_room() -> None:
    door = Door()
    connections = [door.admitted(at_s) for at_s in (1.0, 2.0, 3.0)]
    # Given that the first has just been answered, so that it has waited less than the second
    connections[0].enter(Stage.ANSWERING, 4.0)
    connections[0].enter(Stage.WAITING, 5.0, 10)
    assert door.admit(6.0) is not None
    assert door.closed == [1]
    assert door.refusals == {Refusal.MAKE_ROOM: 1}


def test_a_connection_whose_body_is_coming_is_spared_while_another_waits_for_a_head() -> None:
    door = Door()
    connections = [door.admitted(at_s) for at_s in (1.0, 2.0, 3.0)]
    connections[0].enter(Stage.READING, 1.5, 10)
    assert door.admit(4.0) is not None
    assert door.closed == [1]
    connections[2].enter(Stage.READING, 4.5, 10)
    door.limit.closed(connections[1])
    assert door.admit(5.0) is not None
    assert door.closed == [1, 3], "the new one waits for its head, the two others read a body"


def test_none_makes_room_while_all_are_being_answered() -> None:
    door = Door()
    for each in [door.admitted(at_s) for at_s in (1.0, 2.0, 3.0)]:
        each.enter(Stage.ANSWERING, 3.5)
    assert door.admit(4.0) is None
    assert door.closed == []
    assert door.refusals == {Refusal.LIMIT: 1}


def test_there_are_never_more_than_a_quarter_above_the_limit_however_slowly_they_close() -> None:
    door = Door(maximum=8)
    admitted = [door.admit(float(at_s)) for at_s in range(100)]
    assert sum(each is not None for each in admitted) == 10
    assert len(door.limit) == 10
    # When those that were closed have given their descriptors back, there is room again
    for number in door.closed:
        connection = admitted[number]
        assert connection is not None
        door.limit.closed(connection)
    assert len(door.limit) == 8 - (len(door.closed) - 2)
    assert door.admit(101.0) is not None


def test_a_deadline_counts_from_accept_and_is_moved_by_a_new_stage_alone() -> None:
    door = Door()
    first, second = door.admitted(0.0), door.admitted(0.0)
    second.enter(Stage.READING, 9.0, 10)
    door.limit.close_overdue(9.9)
    assert door.closed == []
    door.limit.close_overdue(10.0)
    assert door.closed == [0]
    assert first.closing
    second.enter(Stage.ANSWERING, 12.0)
    assert second.deadline_s == math.inf
    door.limit.close_overdue(1000.0)
    assert door.closed == [0]
    assert door.refusals == {Refusal.TIMEOUT: 1}


def test_a_connection_is_closed_once() -> None:
    door = Door()
    door.admitted(0.0)
    door.limit.close_overdue(11.0)
    door.limit.close_overdue(12.0)
    assert door.limit.make_room() is False
    assert door.closed == [0]


def test_the_limit_is_a_quarter_of_the_descriptors_at_most() -> None:
    with descriptors(1024):
        assert affordable(200) == 200
        assert affordable(1000) == 256
    with descriptors(256):
        assert affordable(200) == 64
