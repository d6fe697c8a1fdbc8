"""ConcurrentRequests again in place: full jitter, `Retry-After` honoured, bounded in number and in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
import tenacity
from tenacity.wait import wait_base

from worker.errors import TryLater
from worker.providers.cloud.errors import TIMED_OUT, ServiceFailed, RateLimited

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to ask. Waits are drawn from `minimum_wait_s` to a bound that doubles to the maximum."""

    maximum_number_of_attempts: int
    total_s: float
    minimum_wait_s: float = 1.0
    maximum_wait_s: float = 30.0


class FullJitterOrRetryAfter(wait_base):
    """A random wait of full jitter, or what the service asked for where that is longer.

    Full jitter spreads clients that failed together over the whole interval:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, minimum_s: float, maximum_s: float) -> None:
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """Seconds to wait after the attempt that `retry_state` tells of."""
        doublings = min(retry_state.attempt_number, 32)
        bound_s = min(self._maximum_s, self._minimum_s * 2**doublings)
        wait_s = random.uniform(self._minimum_s, max(self._minimum_s, bound_s))  # noqa: S311 - spreads load, hides nothing
        return max(wait_s, _asked_for_s(retry_state))


async def call_with_retries(
    ask: Callable[[], Awaitable[_T]],
    patience: RetryPolicy,
    on_retry: Callable[[], None] = lambda: None,
    **who: object,
) -> _T:
    """The answer to `ask`, asked again while it raises ServiceFailed or RateLimited.

    When patience ends, the last error comes out as TryLater with what the service asked for in `after_s`. A wait that
    would end after `total_s` is not begun. `who` names the call in the log; `on_retry` is told before it is made again.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        _tell(state, who)
        on_retry()

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((ServiceFailed, RateLimited)),
        wait=FullJitterOrRetryAfter(patience.minimum_wait_s, patience.maximum_wait_s),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(patience.maximum_number_of_attempts),
            tenacity.stop_before_delay(patience.total_s),
        ),
        before_sleep=before_sleep,
        retry_error_callback=_give_up,
    )

    async def attempt() -> _T:  # tenacity awaits nothing but what a coroutine function gives
        return await ask()

    try:
        async with asyncio.timeout(patience.total_s):
            return await retrying(attempt)
    except TimeoutError:
        pass
    raise TryLater(
        f"no answer within {patience.total_s:g} s, all attempts and waiting for its turn included (`retry_total_s`)",
        reason=TIMED_OUT,
    )


def _asked_for_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.after_s if isinstance(error, TryLater) else 0.0


def _tell(state: tenacity.RetryCallState, who: dict[str, object]) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.info(
        "cloud call failed; trying again",
        reason=getattr(error, "reason", None),
        error=str(error),
        attempt=state.attempt_number,
        wait_s=round(state.upcoming_sleep, 2),
        **who,
    )


def _give_up(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TryLater):  # nothing else is asked again
        last = f"{error} (call {state.attempt_number}, the last for now)"
        raise TryLater(last, reason=error.reason, after_s=error.after_s)
