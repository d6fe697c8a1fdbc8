"""The tagger: one image decoded once, shown to the providers, and their replies merged into a finished result.

This is all of Autotag except the queues. The pipeline, `autotag tag`, the status page and `autotag bench` enter here.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from worker.errors import ResourceExhausted, TryLater, Unavailable
from worker.images.content import Content
from worker.images.format import sniff
from worker.images.requests import JpegLimits, PixelRecipe
from worker.messages import Result
from worker.operations.metrics import EventMetrics
from worker.providers.base import GOOGLE_CLOUD_VISION, MICROSOFT_VISION, TENSORFLOW, Image, Promising, Provider
from worker.providers.replies import AskAgain, ConcurrentRequests, ProviderReplies, Reply, ask, late_reply, why_not_now
from worker.settings import InstanceSettings
from worker.supervision.decoder_pool import Decoded
from worker.supervision.turns import Turn
from worker.tagging import results
from worker.tagging.merge import Choice, Thresholds, choose
from worker.tagging.near_duplicates import NearDuplicates
from worker.tagging.repetition import Repetition
from worker.tagging.results import Subject
from worker.vocabulary import ENGLISH, language_of

_log = structlog.get_logger(__name__)

OnPartial = Callable[[Result, ProviderReplies], Awaitable[None]]
"""Called with the incomplete result, and the replies it was made from, while other providers are still being asked."""


class NotAllAsked(ResourceExhausted):
    """This machine had run out of what it takes to ask some of the providers. `replies` has those of the others."""

    def __init__(self, replies: ProviderReplies) -> None:
        first = replies.unasked[0]
        super().__init__(first.message or "")
        self.replies = replies


NO_REPLIES = ProviderReplies()


class Decoders(Protocol):
    """The decoder children, as the tagger uses them."""

    async def decode(
        self, content: Content, recipes: tuple[PixelRecipe, ...], asset: str, turn: Turn, *, hashed: bool = False
    ) -> Decoded:
        """Facts, pixels and, if `hashed`, the hash of an image. Raises CannotBeDone with a reason `image_…`."""
        ...

    async def shrink(self, content: Content, limits: JpegLimits, asset: str, turn: Turn) -> bytes:
        """The image as a JPEG within limits. Raises CannotBeDone."""
        ...


@dataclass(frozen=True, slots=True)
class Tagged:
    """A finished result, the replies that it was made from, and every suggestion with its verdict, best first."""

    result: Result
    replies: ProviderReplies
    choices: tuple[Choice, ...]


class Tagger:
    """Tags images with the decoder children and every provider that an instance has switched on.

    `memory` is for instances that have near-duplicates switched on; None: no answer is ever given again.
    """

    def __init__(
        self,
        decoders: Decoders,
        providers: tuple[Provider, ...],
        metrics: EventMetrics,
        memory: NearDuplicates | None = None,
    ) -> None:
        self._decoders = decoders
        self._metrics = metrics
        self._repetition = Repetition(memory, metrics)
        self._memory = memory
        self.providers = providers

    def restricted_to(self, providers: tuple[Provider, ...], *, remembering: bool = False) -> Tagger:
        """A tagger that asks only some of the providers; unless it is `remembering`, about every image."""
        return Tagger(self._decoders, providers, self._metrics, self._memory if remembering else None)

    def who_waits(
        self, subject: Subject, instance: InstanceSettings, earlier: ProviderReplies = NO_REPLIES
    ) -> tuple[Reply, ...]:
        """The replies of the providers that cannot be asked now, found out before anything is fetched or decoded.

        Raises TryLater, uncounted, or Unavailable if that leaves nobody to ask: the event waits without its image, and
        `after_s` is when the first of them may be asked. Where some have answered before and all others are suspended,
        the result is made of the answers: nothing is raised. Called once for each attempt: see `Waiting.why_wait`.
        """
        enabled = [provider for provider in self.providers if provider.enabled(instance)]
        asked = [provider for provider in enabled if earlier.of(provider.name) is None]
        waiting = [
            reply
            for provider in asked
            if (reply := why_not_now(provider, subject.asset_id, subject.instance, instance)) is not None
        ]
        for reply in waiting:
            self._metrics.replied(reply)
        if waiting and len(waiting) == len(asked):
            later = [reply for reply in waiting if reply.ask_again is AskAgain.LATER]
            first = min(later or waiting, key=lambda reply: reply.after_s)
            if later:
                raise TryLater(first.message or "", reason=first.reason or "", after_s=first.after_s, counted=False)
            raise_if_suspended(ProviderReplies(tuple(waiting)).after(earlier), subject.asset_id)
        return tuple(waiting)

    def not_asked(
        self,
        subject: Subject,
        instance: InstanceSettings,
        waiting: tuple[Reply, ...] = (),
        earlier: ProviderReplies = NO_REPLIES,
        asked: Collection[Provider] = (),
    ) -> None:
        """After `who_waits`: only those of `asked` were asked about the image; the others have their promises back."""
        held_back = {reply.provider for reply in waiting}
        for provider in self.providers:
            promised = provider.name not in held_back and earlier.of(provider.name) is None
            if promised and provider not in asked and isinstance(provider, Promising) and provider.enabled(instance):
                provider.not_asked(subject.instance, instance)

    async def tag(
        self,
        subject: Subject,
        content: Content,
        instance: InstanceSettings,
        *,
        maximum_number_of_tags: int = 0,
        lowest_confidence: float | None = None,
        earlier: ProviderReplies = NO_REPLIES,
        waiting: tuple[Reply, ...] = (),
        last_attempt: bool = True,
        more_attempts: bool = False,
        on_partial: OnPartial | None = None,
    ) -> Tagged:
        """Ask the providers about one image and make the result.

        `maximum_number_of_tags` 0 means no limit. The local model is asked for labels down to `lowest_confidence`
        where that is below the instance's threshold; the threshold still decides which of them are tags.
        `earlier` holds the final replies of attempts before this one; those providers are not asked again, unless the
        image has changed since: then its old answers are dropped. `waiting` is what `who_waits` has found. At the
        `last_attempt` a provider that is down counts as failed; before it, the result is incomplete and
        `replies.pending` names the provider. With `more_attempts` one that waits for a limit of our own stays pending
        even at the last attempt, as it has not been tried. Where some providers have answered and others are late by
        more than the instance's `provider_wait_s`, `on_partial` is awaited with the result so far.

        Raises CannotBeDone for an image that no decoder can read, and Unavailable when no provider has answered and
        one that could is suspended.
        """

        def finish(replies: ProviderReplies) -> Tagged:
            return conclude(subject, replies, instance, maximum_number_of_tags)

        async def report_partial(so_far: ProviderReplies) -> None:
            if on_partial is not None:
                await on_partial(finish(so_far).result, so_far)

        asked_as = instance if lowest_confidence is None else with_low_threshold(instance, lowest_confidence)
        asked: list[Provider] = []
        try:
            replies = await self._ask_providers(subject, content, asked_as, earlier, waiting, report_partial, asked)
        finally:
            self.not_asked(subject, instance, waiting, earlier, asked)
        if replies.unasked:
            raise NotAllAsked(replies)
        if last_attempt:  # first: what is down counts as failed then, and does not keep a suspended one from waiting
            replies = replies.final(uncounted=not more_attempts)
        raise_if_suspended(replies, subject.asset_id)
        return finish(replies)

    def without_image(
        self, instance: InstanceSettings, answered: ProviderReplies, reason: str, message: str
    ) -> ProviderReplies:
        """The replies of all of an instance's providers, when the image can no longer be shown to any.

        Those that are not among `answered` count as failed, with `reason` and `message`.
        """
        enabled = [provider.name for provider in self.providers if provider.enabled(instance)]
        failed = {name: Reply(name, "failed", reason=reason, message=message) for name in enabled}
        return ProviderReplies(tuple(answered.of(name) or failed[name] for name in enabled), answered.facts)

    async def _ask_providers(
        self,
        subject: Subject,
        content: Content,
        instance: InstanceSettings,
        earlier: ProviderReplies,
        waiting: tuple[Reply, ...],
        report_partial: Callable[[ProviderReplies], Awaitable[None]],
        asked: list[Provider],
    ) -> ProviderReplies:
        """The replies of all; those that are asked are put into `asked`."""
        asset = subject.asset_id
        enabled = [provider for provider in self.providers if provider.enabled(instance)]
        mime_type = sniff(content.head) or "application/octet-stream"
        refused = {provider.name: why for provider in enabled if (why := provider.refuses(mime_type, instance))}
        if len(refused) == len(enabled) and mime_type.startswith(("image/", "application/pdf")):
            return ProviderReplies(tuple(_refusal(name, why) for name, why in refused.items()))

        known = {name: _refusal(name, why) for name, why in refused.items()}
        known |= {reply.provider: reply for reply in waiting if reply.provider not in known}
        # One that has been switched off since, or that never was a provider of this instance, does not count.
        answered = {each.name: reply for each in enabled if (reply := earlier.of(each.name)) and each.name not in known}
        left = [each for each in enabled if each.name not in known | answered]
        decoded = await self._decode(content, left, subject, instance)
        if answered and (earlier.facts is None or earlier.facts.sha256 != decoded.facts.sha256):
            _log.warning("the file has changed since an earlier attempt; its old answers are dropped", asset_id=asset)
            answered = {}
            if decoded.pixels_fd is not None:
                os.close(decoded.pixels_fd)
            decoded = await self._decode(
                content, [each for each in enabled if each.name not in known], subject, instance
            )
        known |= answered
        try:
            left = [each for each in enabled if each.name not in known]
            known |= self._repetition.replies(subject, decoded, left, instance)
            asked += (provider for provider in left if provider.name not in known)
            image = Image(
                asset_id=asset,
                instance=subject.instance,
                content=content,
                facts=decoded.facts,
                mime_type=mime_type,
                pixels_fd=decoded.pixels_fd,
                shrink_content=partial(self._shrink, asset, subject.turn),
                turn=subject.turn,
            )

            def in_order(replies: list[Reply]) -> ProviderReplies:
                found = known | {reply.provider: reply for reply in replies}
                ordered = (found.get(provider.name) or late_reply(provider.name) for provider in enabled)
                return ProviderReplies(tuple(ordered), decoded.facts)

            if len(asked) == 1:  # no other provider's tags are held up
                replies = [await ask(asked[0], image, instance)]
            else:
                async with ConcurrentRequests(asked, image, instance) as requests:
                    so_far = in_order(await requests.replies_within(instance.provider_wait_s))
                    if requests.outstanding and so_far.answered:
                        await report_partial(so_far)
                    replies = await requests.all_replies()
            for reply in replies:
                self._metrics.replied(reply)
            self._repetition.remember(subject, decoded, asked, replies, instance)
            return in_order(replies)
        finally:
            if decoded.pixels_fd is not None:
                os.close(decoded.pixels_fd)

    async def _decode(
        self, content: Content, asked: list[Provider], subject: Subject, instance: InstanceSettings
    ) -> Decoded:
        found = next((recipe for provider in asked if (recipe := provider.pixel_recipe())), ())
        recipes = found if isinstance(found, tuple) else (found,)
        hashed = bool(self._repetition.repeatable(asked, instance))
        with self._metrics.stage("decode"):
            return await self._decoders.decode(content, recipes, subject.asset_id, subject.turn, hashed=hashed)

    async def _shrink(self, asset: str, turn: Turn, content: Content, limits: JpegLimits) -> bytes:
        with self._metrics.stage("shrink"):
            return await self._decoders.shrink(content, limits, asset, turn)


def with_low_threshold(instance: InstanceSettings, lowest_confidence: float) -> InstanceSettings:
    """The instance's settings with the local model's threshold lowered to `lowest_confidence`, never raised."""
    local = instance.tensorflow
    lowest = min(local.threshold, lowest_confidence)
    return instance.model_copy(update={"tensorflow": local.model_copy(update={"confidence_threshold": lowest})})


def conclude(
    subject: Subject, replies: ProviderReplies, instance: InstanceSettings, maximum_number_of_tags: int
) -> Tagged:
    """The result that given replies make; neither the image nor a provider is needed for it."""
    choices = _choices(subject, replies, instance, maximum_number_of_tags)
    return Tagged(results.tagged(subject, replies, choices), replies, tuple(choices))


def _choices(
    subject: Subject, replies: ProviderReplies, instance: InstanceSettings, maximum_number_of_tags: int
) -> list[Choice]:
    """Every suggestion of the replies with its verdict under the instance's settings, best first."""
    return choose(
        {reply.provider: reply.suggestions for reply in replies.replies},
        thresholds={reply.provider: thresholds(instance, reply.provider) for reply in replies.replies},
        rules=instance.labels,
        existing_tags=subject.existing_tags,
        maximum=maximum_number_of_tags,
        language=language_of(subject.locale, instance.language),
        by_concept=instance.tensorflow.tags == "concepts",
        spoken={
            GOOGLE_CLOUD_VISION: ENGLISH,
            MICROSOFT_VISION: instance.microsoft_vision.language.partition("-")[0].lower(),
        },
    )


def thresholds(instance: InstanceSettings, provider: str) -> Thresholds:
    """From which confidence on a provider's suggestions are an instance's tags."""
    local = instance.tensorflow
    if provider == TENSORFLOW:
        if local.tags == "labels":
            return Thresholds(local.threshold)
        return Thresholds(local.threshold, local.specific_threshold, local.maximum_parents)
    table = getattr(instance, provider, None)  # a third party's provider may have no table of its own
    return Thresholds(getattr(table, "confidence_threshold", None))


def raise_if_suspended(replies: ProviderReplies, asset: str) -> None:
    """Raise Unavailable where no provider has answered, none is pending, and one is suspended."""
    if replies.suspended and not replies.answered and not replies.pending:
        names = ", ".join(reply.provider for reply in replies.suspended)
        first = replies.suspended[0]
        raise Unavailable(
            f"{asset} waits: {names} cannot answer ({first.message})",
            reason=first.reason or "",
            after_s=min(reply.after_s for reply in replies.suspended),
        )


def _refusal(provider: str, why: str) -> Reply:
    return Reply(provider, "skipped", reason="format_not_taken", message=why)
