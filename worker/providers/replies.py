"""What the providers reply about one image: asked side by side, none waiting for another, and carried over retries.

A provider answers or raises; here either becomes a `Reply`, which says besides whether it is worth asking again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import Literal, Self

import structlog

from worker.errors import AutotagError, TryLater, Unavailable
from worker.messages import ImageFacts, ProviderReport
from worker.operations import tracing
from worker.providers.base import Image, Provider, Suggestion
from worker.settings import InstanceSettings

_log = structlog.get_logger(__name__)


_MOST_CARRIED_BYTES = 64 * 1024
"""RabbitMQ ends the connection over properties that do not fit into one frame; the publisher's need room too."""


class Again(StrEnum):
    """Whether to ask a provider again about the same image."""

    NO = "no"
    LATER = "later"
    """It is down: ask after a delay, and let the other tags go out."""
    WAIT = "wait"
    """It is switched off by a fault until somebody acts: asking after a delay would only spend attempts."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One provider's reply about one image. `after_s` is the shortest sensible wait before it is asked again."""

    provider: str
    status: Literal["ok", "skipped", "failed", "unavailable"]
    suggestions: tuple[Suggestion, ...] = ()
    model: str | None = None
    reason: str | None = None
    message: str | None = None
    duration_s: float | None = None
    again: Again = Again.NO
    after_s: float = 0.0

    def report(self) -> ProviderReport:
        """The reply as it stands in a result."""
        return ProviderReport(
            name=self.provider,
            status=self.status,
            reason=self.reason,
            message=self.message,
            model=self.model,
            duration_s=None if self.duration_s is None else round(self.duration_s, 4),
        )


@dataclass(frozen=True, slots=True)
class ProviderReplies:
    """What is known about one image so far: a reply for each provider, in the providers' order."""

    replies: tuple[Reply, ...]
    facts: ImageFacts | None = None

    @property
    def answered(self) -> bool:
        """Whether any provider answered."""
        return any(reply.status == "ok" for reply in self.replies)

    @property
    def pending(self) -> tuple[Reply, ...]:
        """The providers to ask again after a delay, or still being asked."""
        return tuple(reply for reply in self.replies if reply.again is Again.LATER)

    @property
    def suspended(self) -> tuple[Reply, ...]:
        """The providers that cannot answer until an operator acts or a budget renews."""
        return tuple(reply for reply in self.replies if reply.again is Again.WAIT)

    @property
    def settled(self) -> frozenset[str]:
        """Names of the providers that are not asked again."""
        return frozenset(reply.provider for reply in self.replies if reply.again is Again.NO)

    def final(self) -> ProviderReplies:
        """The same replies when no further attempt follows: a pending provider counts as failed."""
        return replace(
            self,
            replies=tuple(
                replace(r, status="failed", again=Again.NO) if r.again is Again.LATER else r for r in self.replies
            ),
        )


class Asking:
    """Providers being asked about one image, in parallel. Leaving the context calls off whoever has not replied."""

    def __init__(self, providers: Iterable[Provider], image: Image, instance: InstanceSettings) -> None:
        self._tasks = {provider.name: asyncio.create_task(ask(provider, image, instance)) for provider in providers}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def within(self, wait_s: float) -> list[Reply]:
        """The replies that came in time: within `wait_s` seconds and, if nobody has answered by then, until one has."""
        if not self._tasks:
            return []
        done, late = await asyncio.wait(self._tasks.values(), timeout=wait_s)
        while late and not any(task.result().status == "ok" for task in done):
            done, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
        return self._replies()

    @property
    def late(self) -> list[str]:
        """Names of the providers that have not replied yet."""
        return [name for name, task in self._tasks.items() if not task.done()]

    async def all(self) -> list[Reply]:
        """Every reply. Each provider bounds its own time."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        return self._replies()

    def _replies(self) -> list[Reply]:
        return [task.result() for task in self._tasks.values() if task.done()]


async def ask(provider: Provider, image: Image, instance: InstanceSettings) -> Reply:
    """One provider's reply about one image; whatever it raises becomes a part of that."""
    started_s = time.monotonic()

    def reply(
        status: Literal["failed", "unavailable"], error: AutotagError, again: Again, after_s: float = 0.0
    ) -> Reply:
        took_s = time.monotonic() - started_s
        return Reply(
            provider.name,
            status,
            reason=error.reason,
            message=str(error),
            duration_s=took_s,
            again=again,
            after_s=after_s,
        )

    try:
        with tracing.span(f"provider {provider.name}"):
            answer = await provider.tag(image, instance)
    except TryLater as error:
        return reply("unavailable", error, Again.LATER, error.after_s)
    except Unavailable as error:
        return reply("unavailable", error, Again.WAIT, error.after_s)
    except AutotagError as error:  # the image is refused, or the operator must act: asking again changes nothing
        return reply("failed", error, Again.NO)
    except Exception as error:  # noqa: BLE001
        # A provider may be somebody else's code: what it gets wrong must not take the other providers' tags with it.
        _log.exception("provider raised", provider=provider.name, asset_id=image.asset_id)
        unexpected = TryLater(
            f"{type(error).__name__} in {provider.name}; the log has the details", reason="provider_raised"
        )
        return reply("unavailable", unexpected, Again.LATER)
    took_s = time.monotonic() - started_s
    return Reply(provider.name, "ok", answer.suggestions, answer.model, message=answer.note, duration_s=took_s)


def late(provider: str) -> Reply:
    """What stands for a provider that has not replied in time."""
    return Reply(provider, "unavailable", reason="late", message=f"{provider} has not replied yet", again=Again.LATER)


def pack(replies: Iterable[Reply]) -> str:
    """The replies that need no asking again, as text for a message header, to be carried over a retry.

    A provider whose reply has no room in a header is asked again with the others.
    """
    packed: list[str] = []
    room = _MOST_CARRIED_BYTES
    for reply in replies:
        if reply.again is not Again.NO:
            continue
        one = json.dumps(_packed(reply), separators=(",", ":"))
        if len(one) < room:
            packed.append(one)
            room -= len(one) + 1
    return f"[{','.join(packed)}]"


def _packed(reply: Reply) -> dict[str, object]:
    return {
        "provider": reply.provider,
        "status": reply.status,
        "suggestions": [[each.name, each.confidence] for each in reply.suggestions],
        "model": reply.model,
        "reason": reply.reason,
        "message": reply.message,
        "duration_s": reply.duration_s,
    }


def unpack(header: object) -> dict[str, Reply]:
    """What `pack` wrote, by provider. A header that is absent or was not written by us means that nothing is known."""
    if isinstance(header, bytes):
        header = header.decode("utf-8", "replace")
    if not isinstance(header, str):
        return {}
    try:
        replies = [_unpack_one(each) for each in json.loads(header)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {reply.provider: reply for reply in replies}


def _unpack_one(each: Mapping[str, object]) -> Reply:
    fields = dict(each)
    pairs = fields.pop("suggestions")
    if not isinstance(pairs, list):
        raise TypeError("suggestions is a list of pairs")
    suggestions = tuple(Suggestion(str(name), float(confidence)) for name, confidence in pairs)
    return Reply(suggestions=suggestions, **fields)  # type: ignore[arg-type]  # unknown keys raise TypeError, see unpack
