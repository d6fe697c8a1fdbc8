"""The relaunch rule: whether a crashed child is started again, and after what delay.

The rule is a pure function of the times of the crashes and of the last answer, so that it can be tested exactly and
asked "what if". Times are monotonic seconds: setting the wall clock back has no effect.

A crash is forgotten when the interval has passed and an image has been answered since it. So a child that fails at
everything uses up its relaunches, however long each failure takes: a hang may well last longer than the interval
divided by their number. Where several children do the same work, an answer of any of them counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAXIMUM_DELAY_S = 30.0
"""The longest delay before a relaunch, however often the child crashes."""

NEVER = -math.inf
"""The time of an answer that has not been given yet."""

_KEPT_WITHOUT_LIMIT = 18
"""As many crashes as the delay grows with; where nothing is ever disabled, older ones make no difference."""

_SECOND_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class RelaunchRule:
    """The number of crashes within an interval that are answered by a relaunch.

    `maximum_number_of_relaunches` is 0 or more: with 5, five crashes within `interval_s` are relaunched and the sixth
    disables. The interval is the shortest time for which a crash counts; without an answer it counts on. None never
    disables; the delay still grows.
    """

    maximum_number_of_relaunches: int | None
    interval_s: float


@dataclass(frozen=True, slots=True)
class RelaunchDecision:
    """What follows from a crash. `crashes` are the times that still count, this crash included.

    `delay_s` is None when the child is to be disabled. `relaunches_left` is how many more crashes would be relaunched
    if they all came now (None: any number).
    """

    crashes: tuple[float, ...]
    delay_s: float | None
    relaunches_left: int | None


def after_crash(rule: RelaunchRule, crashes: tuple[float, ...], answered_s: float, now_s: float) -> RelaunchDecision:
    """Decide about a crash at `now_s`, given the earlier ones and the time of the last answer (`NEVER`: none yet)."""
    remaining = (*remembered(rule, crashes, answered_s, now_s), now_s)
    maximum = rule.maximum_number_of_relaunches
    if maximum is None:
        remaining = remaining[-_KEPT_WITHOUT_LIMIT:]
    elif len(remaining) > maximum:
        return RelaunchDecision(remaining, delay_s=None, relaunches_left=0)
    left = None if maximum is None else maximum - len(remaining)
    return RelaunchDecision(remaining, delay_s=_delay_s(len(remaining)), relaunches_left=left)


def remembered(rule: RelaunchRule, crashes: tuple[float, ...], answered_s: float, now_s: float) -> tuple[float, ...]:
    """Those of `crashes` that still count at `now_s`: younger than the interval, or no image answered after them."""
    return tuple(time_s for time_s in crashes if time_s > now_s - rule.interval_s or answered_s <= time_s)


def relaunches_left(rule: RelaunchRule, crashes: tuple[float, ...], answered_s: float, now_s: float) -> int | None:
    """How many crashes at `now_s` would still be relaunched; None when there is no limit."""
    if rule.maximum_number_of_relaunches is None:
        return None
    return max(0, rule.maximum_number_of_relaunches - len(remembered(rule, crashes, answered_s, now_s)))


def _delay_s(number_of_crashes: int) -> float:
    """0 s after the first crash, then 0.5, 1, 2, 4 … up to MAXIMUM_DELAY_S."""
    if number_of_crashes <= 1:
        return 0.0
    doublings = min(number_of_crashes - 2, 16)  # bounded: a float overflows after a thousand doublings
    return min(MAXIMUM_DELAY_S, _SECOND_DELAY_S * 2.0**doublings)
