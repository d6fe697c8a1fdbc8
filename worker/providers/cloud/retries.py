"""Retries in place: with full jitter, honouring `Retry-After`, bounded in number and in total time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from worker.errors import TryLater
from worker.providers.cloud.errors import TIMED_OUT, RateLimited, ServiceFailed
from worker.providers.cloud.sharing import Interest

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to retry.

    `total_s` bounds all attempts and waits together. Waits are drawn at random from `minimum_wait_s` to an upper bound
    that doubles with every attempt, up to `maximum_wait_s`.
    """

    maximum_number_of_attempts: int
    total_s: float
    minimum_wait_s: float = 1.0
    maximum_wait_s: float = 30.0


class FullJitterOrRetryAfter(wait_base):
    """A random wait with full jitter, or the wait that the service asked for if that is longer.

    Full jitter spreads clients that failed at the same time over the whole interval:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, minimum_s: float, maximum_s: float) -> None:
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """Seconds to wait after the attempt that `retry_state` describes."""
        doublings = min(retry_state.attempt_number, 32)
        bound_s = min(self._maximum_s, self._minimum_s * 2**doublings)
        wait_s = random.uniform(self._minimum_s, max(self._minimum_s, bound_s))  # noqa: S311 - spreads load, no secret
        return max(wait_s, _requested_wait_s(retry_state))


class _StopUnwanted(stop_base):
    """Stop when nobody waits for the answer any more."""

    def __init__(self, interest: Interest) -> None:
        self._interest = interest

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return not self._interest.wanted


async def call_with_retries(
    request: Callable[[], Awaitable[_T]],
    policy: RetryPolicy,
    on_retry: Callable[[], None] = lambda: None,
    interest: Interest | None = None,
    **log_fields: object,
) -> _T:
    """The result of `request`, which is repeated while it raises ServiceFailed or RateLimited.

    When the policy allows no further attempt, the last error is raised as TryLater, with the wait that the service
    asked for in `after_s`; it is counted unless the service has done nothing, or has asked for a wait that would end
    after `total_s`. Such a wait is not begun, nor a further attempt when `interest` says that nobody waits any more.
    `on_retry` is called before each wait; `log_fields` identify the call in the log.
    """
    interest = interest or Interest()

    def before_sleep(state: tenacity.RetryCallState) -> None:
        _log_retry(state, log_fields)
        on_retry()

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((ServiceFailed, RateLimited)),
        wait=FullJitterOrRetryAfter(policy.minimum_wait_s, policy.maximum_wait_s),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(policy.maximum_number_of_attempts),
            tenacity.stop_before_delay(policy.total_s),
            _StopUnwanted(interest),
        ),
        before_sleep=before_sleep,
        retry_error_callback=partial(_raise_last_error, policy),
    )

    async def attempt() -> _T:  # tenacity awaits the result of a coroutine function only; `request` may be a lambda
        return await request()

    try:
        async with asyncio.timeout(policy.total_s):
            return await retrying(attempt)
    except TimeoutError:
        pass
    raise TryLater(
        f"no answer within {policy.total_s:g} s, all attempts and waiting for its turn included (`retry_total_s`)",
        reason=TIMED_OUT,
        counted=interest.tried,
    )


def _requested_wait_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.after_s if isinstance(error, TryLater) else 0.0


def _log_retry(state: tenacity.RetryCallState, log_fields: dict[str, object]) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.info(
        "cloud call failed; trying again",
        reason=getattr(error, "reason", None),
        error=str(error),
        attempt=state.attempt_number,
        wait_s=round(state.upcoming_sleep, 2),
        **log_fields,
    )


def _raise_last_error(policy: RetryPolicy, state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TryLater):  # no other error is retried
        asked_to_go = error.after_s > policy.total_s - (state.seconds_since_start or 0.0)
        raise TryLater(
            str(error), reason=error.reason, after_s=error.after_s, counted=error.counted and not asked_to_go
        )
