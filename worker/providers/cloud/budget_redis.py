"""The call budget on a Redis server, for a fleet: the workers of all hosts count in one place.

A reservation is one script, which Redis runs without anything in between. The server must not evict keys
(`maxmemory-policy noeviction`) and should write what it counts to disk (`appendonly yes`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import SecretStr

from worker.errors import Misconfigured
from worker.providers.cloud.budget import CallBudget, Reservation, unusable, utc_now

_TIMEOUT_S = 5.0
_WHERE = "Redis (`cloud.budget_url`)"
"""How it is named in messages: the address holds a password."""

_KEPT_AFTER_THE_MONTH_S = 7 * 24 * 3600
"""A call that began in the last second of a month may be released in the next."""

_RESERVE = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local reserved = math.max(0, math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - used))
if reserved > 0 then
    redis.call('INCRBY', KEYS[1], reserved)
    redis.call('EXPIREAT', KEYS[1], ARGV[3])
end
return reserved
"""
_RELEASE = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local released = math.min(tonumber(ARGV[1]), used)
if released > 0 then redis.call('DECRBY', KEYS[1], released) end
return released
"""


class RedisBudget(CallBudget):
    """Counts calls on the server at `url`, in keys that begin with `prefix`: `autotag:calls:…`."""

    def __init__(self, url: SecretStr, *, prefix: str, now: Callable[[], datetime] = utc_now) -> None:
        super().__init__(now)
        try:
            from redis import asyncio as redis
            from redis.exceptions import RedisError
        except ImportError as error:
            raise Misconfigured(
                "`cloud.budget_url` needs the package redis: pip install 'autotag-worker[redis]'",
                reason="redis_not_installed",
            ) from error
        self._failures = (RedisError, OSError, TimeoutError)
        try:
            self._redis: Any = redis.from_url(
                url.get_secret_value(), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
            )
        except ValueError:
            raise Misconfigured("`cloud.budget_url` is no address of a Redis server", reason="budget_url") from None
        self._prefix = prefix

    async def reserve(self, provider: str, instance: str, calls: int, limit: int) -> Reservation:
        """Reserve `calls` calls, or what is left of `limit` a month. Raises TryLater if Redis can't be used."""
        month = self.month()
        until = int(self.renews().timestamp()) + _KEPT_AFTER_THE_MONTH_S
        reserved = await self._run(_RESERVE, self._key(provider, instance, month), calls, limit, until)
        return Reservation(provider, instance, month, reserved)

    async def release(self, reservation: Reservation, calls: int) -> None:
        """Return calls of a reservation that were not carried out. Raises TryLater if Redis can't be used."""
        key = self._key(reservation.provider, reservation.instance, reservation.month)
        await self._run(_RELEASE, key, calls)

    async def used(self, provider: str, instance: str) -> int:
        """Calls made or reserved this month. Raises TryLater if Redis can't be used."""
        try:
            return int(await self._redis.get(self._key(provider, instance, self.month())) or 0)
        except self._failures as error:
            raise unusable(_WHERE, error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def _run(self, script: str, key: str, *arguments: int) -> int:
        try:
            return int(await self._redis.eval(script, 1, key, *arguments))
        except self._failures as error:
            raise unusable(_WHERE, error) from error

    def _key(self, provider: str, instance: str, month: str) -> str:
        return f"{self._prefix}:calls:{month}:{provider}:{instance}"
