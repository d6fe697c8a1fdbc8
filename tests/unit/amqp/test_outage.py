"""A broker that is away is logged when it goes, once an hour, and when it is back; never once an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker.amqp.errors import BrokerUnreachable
from worker.amqp.outage import REPEAT_EVERY_S, STABLE_AFTER_S, OutageLog
from worker.amqp.parameters import Address
from worker.errors import AutotagError, Misconfigured

BROKER = Address("h", 5672, "/", "u", tls=False)
AWAY = BrokerUnreachable("nobody answers", reason="broker_unreachable")
REFUSED = Misconfigured("set amqp.password", reason="credentials_refused")
MISSING = Misconfigured("no such virtual host", reason="virtual_host_refused")
STARTED = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)


class Connecting:
    """A connection, seen by its log; `at_s` is the time, which every call moves on by the pause between attempts."""

    def __init__(self, lines: list[Any]) -> None:
        self.log = OutageLog("consuming")
        self.at_s = 0.0
        self._lines: list[dict[str, Any]] = lines

    def fails(self, error: AutotagError = AWAY, *, times: int = 1, every_s: float = 5.0) -> None:
        for _ in range(times):
            self.log.failed(error, self.at_s, STARTED + timedelta(seconds=self.at_s), next_try_in_s=1.23)
            self.at_s += every_s

    def connects(self, *, lasts: bool) -> None:
        self.log.connected(BROKER, self.at_s)
        if lasts:
            self.at_s += STABLE_AFTER_S
            self.log.lasted(BROKER, self.at_s)

    def shown(self, level: str = "info") -> list[tuple[str, str]]:
        """Level and event of the lines that are seen at a level of the log."""
        hidden = {"info": {"debug"}, "debug": set()}[level]
        return [(line["log_level"], line["event"]) for line in self._lines if line["log_level"] not in hidden]

    def fields(self, number: int) -> dict[str, Any]:
        return [line for line in self._lines if line["log_level"] != "debug"][number]


LOST, BACK = ("warning", "no connection to RabbitMQ"), ("info", "connected to RabbitMQ")
ERROR = ("error", LOST[1])


@pytest.fixture
def it() -> Iterator[Connecting]:
    with capture_logs() as lines:
        yield Connecting(lines)


def test_a_night_without_a_broker_is_a_line_an_hour(it: Connecting) -> None:
    it.connects(lasts=True)
    it.fails(times=8 * 720)  # eight hours, an attempt every 5 s
    it.connects(lasts=True)
    assert it.shown() == [BACK, *[LOST] * 8, BACK]
    assert len(it.shown("debug")) == 8 * 720 + 2, "every attempt has a line at level debug"


def test_each_line_says_since_when_and_how_often(it: Connecting) -> None:
    it.fails(times=721)
    it.connects(lasts=True)
    first, hourly, back = (it.fields(number) for number in range(3))
    assert (first["failures"], first["since"]) == (1, "2026-05-17T12:00:00+00:00")
    assert (hourly["failures"], hourly["since"]) == (721, "2026-05-17T12:00:00+00:00")
    assert (back["failures"], back["after_s"], back["broker"]) == (721, 721 * 5.0, str(BROKER))
    assert first | {"failures": 721} == hourly, "and what is the matter now"
    assert (first["reason"], first["error"], first["next_try_in_s"]) == ("broker_unreachable", "nobody answers", 1.2)


def test_the_first_connection_of_all_is_no_end_of_an_outage(it: Connecting) -> None:
    it.connects(lasts=False)
    assert it.shown() == [BACK]
    assert "failures" not in it.fields(0)


def test_each_outage_has_its_lines(it: Connecting) -> None:
    for _ in range(3):
        it.fails(times=10)
        it.connects(lasts=True)
    assert it.shown() == [LOST, BACK] * 3


def test_a_connection_that_is_lost_again_and_again_is_one_outage(it: Connecting) -> None:
    it.fails()
    for _ in range(100):
        it.connects(lasts=False)
        it.fails()
    assert it.shown() == [LOST, BACK], "the first of it, and no more"
    it.connects(lasts=True)
    assert it.shown() == [LOST, BACK, BACK], "and when it lasts"
    assert it.fields(-1)["failures"] == 101
    it.fails()
    assert it.shown()[-1] == LOST


def test_it_is_said_every_hour_of_a_connection_that_is_lost_again_and_again_too(it: Connecting) -> None:
    for _ in range(int(3 * REPEAT_EVERY_S / 5)):
        it.connects(lasts=False)
        it.fails()
    assert it.shown().count(LOST) == 3
    assert it.shown().count(BACK) == 2, "before the first loss, and after it"


def test_what_an_operator_has_to_mend_does_not_wait_for_the_hour_and_is_said_once(it: Connecting) -> None:
    it.fails(times=10)
    it.fails(REFUSED, times=10)
    it.fails(times=10)
    it.fails(MISSING, times=10)
    it.fails(REFUSED, times=10)
    assert it.shown() == [LOST, ERROR, ERROR]
    assert [it.fields(number)["reason"] for number in range(3)] == [AWAY.reason, REFUSED.reason, MISSING.reason]
