"""The providers' replies about one image: collected concurrently, and carried over retries in a message header.

A provider returns an answer or raises; here either becomes a `Reply`, which also states whether to ask the provider
again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from types import TracebackType
from typing import Annotated, Literal, Self, cast

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from worker.errors import AutotagError, ResourceExhausted, TryLater, Unavailable, exhausted
from worker.messages import ImageFacts, ProviderReport, TagKind
from worker.messages.fields import AssetId
from worker.operations import tracing
from worker.providers.base import Image, Provider, Suggestion, Waiting
from worker.settings import InstanceSettings

_log = structlog.get_logger(__name__)

_MAXIMUM_HEADER_BYTES = 64 * 1024
"""RabbitMQ closes the connection over properties that do not fit into one frame; the publisher's own need room too."""

_MAXIMUM_MESSAGE_CHARACTERS = 1000
_MAXIMUM_DURATION_S = 24 * 3600.0


class AskAgain(StrEnum):
    """Whether to ask a provider again about the same image."""

    NO = "no"
    """The reply is final."""
    LATER = "later"
    """The provider is down: ask after a delay, and publish the other tags meanwhile."""
    SOON = "soon"
    """This machine had run out of what it takes to ask: the event is held, and the provider asked after a pause."""
    WAIT = "wait"
    """The provider cannot answer until an operator acts or a budget renews: a delayed retry would waste an attempt."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One provider's reply about one image.

    `after_s` is the shortest sensible wait before asking again, `counted` whether that uses up an attempt of the event:
    a wait for a limit of our own does not.
    """

    provider: str
    status: Literal["ok", "skipped", "failed", "unavailable"]
    suggestions: tuple[Suggestion, ...] = ()
    model: str | None = None
    reason: str | None = None
    message: str | None = None
    duration_s: float | None = None
    ask_again: AskAgain = AskAgain.NO
    after_s: float = 0.0
    counted: bool = True
    near_duplicate_of: str | None = None
    distance: int | None = None

    def report(self) -> ProviderReport:
        """The reply in the form that is published in a result."""
        return ProviderReport(
            name=self.provider,
            status=self.status,
            reason=self.reason,
            message=self.message,
            model=self.model,
            duration_s=None if self.duration_s is None else round(self.duration_s, 4),
            near_duplicate_of=self.near_duplicate_of,
            distance=self.distance,
        )


@dataclass(frozen=True, slots=True)
class ProviderReplies:
    """All replies about one image so far: one for each provider, in the providers' order."""

    replies: tuple[Reply, ...] = ()
    facts: ImageFacts | None = None
    """The image that they are about; None where no provider was asked."""

    def of(self, provider: str) -> Reply | None:
        """The reply of one provider."""
        return next((reply for reply in self.replies if reply.provider == provider), None)

    @property
    def answered(self) -> bool:
        """Whether any provider answered."""
        return any(reply.status == "ok" for reply in self.replies)

    @property
    def pending(self) -> tuple[Reply, ...]:
        """The providers to ask again after a delay, or still being asked."""
        return tuple(reply for reply in self.replies if reply.ask_again is AskAgain.LATER)

    @property
    def suspended(self) -> tuple[Reply, ...]:
        """The providers that cannot answer until an operator acts or a budget renews."""
        return tuple(reply for reply in self.replies if reply.ask_again is AskAgain.WAIT)

    @property
    def unasked(self) -> tuple[Reply, ...]:
        """The providers that could not be asked because this machine had run out of something."""
        return tuple(reply for reply in self.replies if reply.ask_again is AskAgain.SOON)

    @property
    def settled(self) -> frozenset[str]:
        """Names of the providers that are not asked again."""
        return frozenset(reply.provider for reply in self.replies if reply.ask_again is AskAgain.NO)

    @property
    def settled_only(self) -> ProviderReplies:
        """Only the replies of providers that are not asked again."""
        return replace(self, replies=tuple(reply for reply in self.replies if reply.ask_again is AskAgain.NO))

    def after(self, earlier: ProviderReplies) -> ProviderReplies:
        """These replies, and those of `earlier` that are about the same image and that these do not replace."""
        if earlier.facts is None or (self.facts is not None and self.facts.sha256 != earlier.facts.sha256):
            return self
        mine = {reply.provider for reply in self.replies}
        kept = tuple(reply for reply in earlier.replies if reply.provider not in mine)
        return ProviderReplies((*kept, *self.replies), self.facts or earlier.facts)

    def final(self, *, uncounted: bool = False) -> ProviderReplies:
        """The same replies when no further counted attempt follows: a pending provider counts as failed.

        One that waits for a limit of our own (`Reply.counted` is false) stays pending, as it has not been tried; with
        `uncounted` it counts as failed too, because nobody is going to ask again.
        """
        return replace(
            self,
            replies=tuple(
                replace(r, status="failed", ask_again=AskAgain.NO)
                if r.ask_again is AskAgain.LATER and (r.counted or uncounted)
                else r
                for r in self.replies
            ),
        )


class ConcurrentRequests:
    """Requests to several providers about one image, in parallel. Leaving the context cancels unfinished ones."""

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

    async def replies_within(self, wait_s: float) -> list[Reply]:
        """The replies after `wait_s` seconds; if no provider has answered by then, wait until one has or all failed."""
        if not self._tasks:
            return []
        done, running = await asyncio.wait(self._tasks.values(), timeout=wait_s)
        while running and not any(task.result().status == "ok" for task in done):
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        return self._replies()

    @property
    def outstanding(self) -> list[str]:
        """Names of the providers that have not replied yet."""
        return [name for name, task in self._tasks.items() if not task.done()]

    async def all_replies(self) -> list[Reply]:
        """Every reply, once all are there. Each provider must bound its own time."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        return self._replies()

    def _replies(self) -> list[Reply]:
        return [task.result() for task in self._tasks.values() if task.done()]


async def ask(provider: Provider, image: Image, instance: InstanceSettings) -> Reply:
    """Ask one provider about one image. Every exception but cancellation becomes a reply."""
    started_s = time.monotonic()

    def reply(status: Literal["failed", "unavailable"], error: AutotagError, ask_again: AskAgain) -> Reply:
        return _reply_of(provider.name, status, error, ask_again, duration_s=time.monotonic() - started_s)

    try:
        with tracing.span(f"provider {provider.name}"):
            answer = await provider.tag(image, instance)
    except ResourceExhausted as error:
        return reply("unavailable", error, AskAgain.SOON)
    except TryLater as error:
        return reply("unavailable", error, AskAgain.LATER)
    except Unavailable as error:
        return reply("unavailable", error, AskAgain.WAIT)
    except AutotagError as error:  # the image is refused, or an operator must act: asking again changes nothing
        return reply("failed", error, AskAgain.NO)
    except Exception as error:  # noqa: BLE001
        if (shortage := exhausted(error)) is not None:
            return reply("unavailable", shortage, AskAgain.SOON)
        # A provider may be third-party code: its bugs must not cost the other providers' tags.
        _log.exception("provider raised", provider=provider.name, asset_id=image.asset_id)
        unexpected = TryLater(
            f"{type(error).__name__} in {provider.name}; the log has the details", reason="provider_raised"
        )
        return reply("unavailable", unexpected, AskAgain.LATER)
    took_s = time.monotonic() - started_s
    note = answer.note and answer.note[:_MAXIMUM_MESSAGE_CHARACTERS]
    return Reply(provider.name, "ok", answer.suggestions, answer.model, message=note, duration_s=took_s)


def why_not_now(provider: Provider, asset_id: str, name: str, instance: InstanceSettings) -> Reply | None:
    """The reply of a provider that cannot be asked now for the instance `name`; None if it can, or does not know."""
    if not _knows_beforehand(type(provider)):
        return None
    match cast("Waiting", provider).why_wait(asset_id, name, instance):
        case None:
            return None
        case TryLater() as error:
            return _reply_of(provider.name, "unavailable", error, AskAgain.LATER)
        case Unavailable() as error:
            return _reply_of(provider.name, "unavailable", error, AskAgain.WAIT)


@lru_cache(maxsize=64)
def _knows_beforehand(kind: type[Provider]) -> bool:
    """Whether providers of this class fulfil `Waiting`. Kept, as the question costs more than an event can spare."""
    return issubclass(kind, Waiting)


def _reply_of(
    provider: str,
    status: Literal["failed", "unavailable"],
    error: AutotagError,
    ask_again: AskAgain,
    *,
    duration_s: float | None = None,
) -> Reply:
    return Reply(
        provider,
        status,
        reason=error.reason,
        # Cut here, not where it is packed: the result of this attempt and one made of carried replies must be equal.
        message=str(error)[:_MAXIMUM_MESSAGE_CHARACTERS],
        duration_s=duration_s,
        ask_again=ask_again,
        after_s=error.after_s if isinstance(error, TryLater | Unavailable) else 0.0,
        counted=error.counted if isinstance(error, TryLater) else True,
    )


def late_reply(provider: str) -> Reply:
    """The placeholder for a provider that has not replied in time."""
    message = f"{provider} has not replied yet"
    return Reply(provider, "unavailable", reason="late", message=message, ask_again=AskAgain.LATER)


_Text = Annotated[str, Field(max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*$")]


_Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


_Texts = Annotated[tuple[_Text, ...], Field(max_length=16)]
_PackedSuggestion = (
    tuple[_Text, _Confidence]
    | tuple[_Text, _Confidence, _Text | None, TagKind, bool, _Texts, _Text, _Texts, _Confidence]
)
"""The fields of a suggestion in their order; the first two, where the others have their defaults."""


class _PackedReply(BaseModel):
    """A settled reply as a header holds it. Read like any input: exact types, and limits for everything."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    provider: Annotated[_Text, Field(min_length=1, max_length=100)]
    status: Literal["ok", "skipped", "failed"]
    suggestions: tuple[_PackedSuggestion, ...]
    model: _Text | None
    reason: _Text | None
    message: Annotated[str, Field(max_length=_MAXIMUM_MESSAGE_CHARACTERS)] | None
    duration_s: Annotated[float, Field(ge=0, le=_MAXIMUM_DURATION_S, allow_inf_nan=False)] | None
    near_duplicate_of: AssetId | None = None
    distance: Annotated[int, Field(ge=0, le=64)] | None = None


class _PackedReplies(BaseModel):
    """What `pack` writes: the image, and what was replied about it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    image: ImageFacts
    replies: tuple[_PackedReply, ...]


_FACTS: TypeAdapter[ImageFacts] = TypeAdapter(ImageFacts)


def pack(replies: ProviderReplies) -> str:
    """The settled replies and the image that they are about as JSON text for a message header, carried over a retry.

    A reply that does not fit into the header, or that `unpack` would not take, is left out; its provider is asked again
    with the pending ones. Without facts about the image no reply is kept: it might be another one next time.
    """
    if replies.facts is None:
        return "{}"
    image = _FACTS.dump_json(replies.facts).decode()
    packed: list[str] = []
    room_bytes = _MAXIMUM_HEADER_BYTES - len(image.encode()) - len('{"image":,"replies":[]}')
    for reply in replies.settled_only.replies:
        text = _pack_one(reply)
        if text is not None and (length := len(text.encode())) < room_bytes:
            packed.append(text)
            room_bytes -= length + 1  # and a comma
    return f'{{"image":{image},"replies":[{",".join(packed)}]}}'


def _pack_one(reply: Reply) -> str | None:
    try:
        return _PackedReply.model_validate(
            {
                "provider": reply.provider,
                "status": reply.status,
                "suggestions": tuple(map(_pack_suggestion, reply.suggestions)),
                "model": reply.model,
                "reason": reply.reason,
                "message": reply.message and reply.message[:_MAXIMUM_MESSAGE_CHARACTERS],
                "duration_s": reply.duration_s,
                **(
                    {"near_duplicate_of": reply.near_duplicate_of, "distance": reply.distance}
                    if reply.near_duplicate_of is not None
                    else {}
                ),
            }
        ).model_dump_json(exclude_unset=True)
    except ValidationError as error:
        faults = [".".join(map(str, fault["loc"])) for fault in error.errors(include_input=False)[:3]]
        _log.warning("a reply is not kept for the next attempt", provider=reply.provider, faulty=faults)
        return None


def _pack_suggestion(suggestion: Suggestion) -> tuple[object, ...]:
    fields = tuple(getattr(suggestion, name) for name in Suggestion.__slots__)
    return fields[:2] if suggestion == Suggestion(*fields[:2]) else fields


def unpack(header: object) -> ProviderReplies:
    """What `pack` has packed. Empty if the header is absent or anything in it is not valid."""
    if not isinstance(header, str | bytes) or len(header) > _MAXIMUM_HEADER_BYTES:
        return ProviderReplies()
    try:
        packed = _PackedReplies.model_validate_json(header, strict=True)
    except ValidationError:
        return ProviderReplies()
    by_provider = {each.provider: _unpack_one(each) for each in packed.replies}
    return ProviderReplies(tuple(by_provider.values()), packed.image)


def _unpack_one(packed: _PackedReply) -> Reply:
    return Reply(
        packed.provider,
        packed.status,
        tuple(Suggestion(*each) for each in packed.suggestions),
        packed.model,
        packed.reason,
        packed.message,
        packed.duration_s,
        near_duplicate_of=packed.near_duplicate_of,
        distance=packed.distance,
    )
