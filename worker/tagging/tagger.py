"""The tagger: one image decoded once, shown to the providers, and their replies merged into a finished result.

This is all of Autotag except the queues. The pipeline, `autotag tag`, the status page and `autotag bench` enter here.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from worker.errors import ResourceExhausted, Unavailable
from worker.images.content import Content
from worker.images.format import sniff
from worker.images.requests import JpegLimits, PixelRecipe
from worker.messages import Result
from worker.operations.metrics import EventMetrics
from worker.providers.base import Image, Provider
from worker.providers.replies import ConcurrentRequests, ProviderReplies, Reply, ask, late_reply
from worker.settings import InstanceSettings
from worker.supervision.decoder_pool import Decoded
from worker.supervision.turns import Turn
from worker.tagging import results
from worker.tagging.merge import Choice, choose
from worker.tagging.results import Subject

OnPartial = Callable[[Result, ProviderReplies], Awaitable[None]]
"""Called with the incomplete result, and the replies it was made from, while other providers are still being asked."""


class NotAllAsked(ResourceExhausted):
    """This machine had run out of what it takes to ask some of the providers. `replies` has those of the others."""

    def __init__(self, replies: ProviderReplies) -> None:
        first = replies.unasked[0]
        super().__init__(first.message or "")
        self.replies = replies


class Decoders(Protocol):
    """The decoder children, as the tagger uses them."""

    async def decode(self, content: Content, recipe: PixelRecipe | None, asset: str, turn: Turn) -> Decoded:
        """Facts and pixels of an image. Raises CannotBeDone with a reason `image_…`."""
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
    """Tags images with the decoder children and every provider that an instance has switched on."""

    def __init__(self, decoders: Decoders, providers: tuple[Provider, ...], metrics: EventMetrics) -> None:
        self._decoders = decoders
        self._metrics = metrics
        self.providers = providers

    def restricted_to(self, providers: tuple[Provider, ...]) -> Tagger:
        """A tagger that asks only some of the providers."""
        return Tagger(self._decoders, providers, self._metrics)

    async def tag(
        self,
        subject: Subject,
        content: Content,
        instance: InstanceSettings,
        *,
        maximum_number_of_tags: int = 0,
        lowest_confidence: float | None = None,
        earlier: Mapping[str, Reply] | None = None,
        last_attempt: bool = True,
        on_partial: OnPartial | None = None,
    ) -> Tagged:
        """Ask the providers about one image and make the result.

        `maximum_number_of_tags` 0 means no limit. The local model is asked for labels down to `lowest_confidence`
        where that is below the instance's threshold; the threshold still decides which of them are tags.
        `earlier` holds replies of an attempt before this one; those providers are not asked again. At the
        `last_attempt` a provider that is down counts as failed; before it, the result is incomplete and
        `replies.pending` names the provider. Where some providers have answered and others are late by more than
        the instance's `provider_wait_s`, `on_partial` is awaited with the result so far.

        Raises CannotBeDone for an image that no decoder can read, and Unavailable when no provider has answered and
        one that could is suspended.
        """

        def finish(replies: ProviderReplies) -> Tagged:
            choices = _choices(subject, replies, instance, maximum_number_of_tags)
            return Tagged(results.tagged(subject, replies, choices), replies, tuple(choices))

        async def report_partial(so_far: ProviderReplies) -> None:
            if on_partial is not None:
                await on_partial(finish(so_far).result, so_far)

        asked_as = instance if lowest_confidence is None else with_low_threshold(instance, lowest_confidence)
        replies = await self._ask_providers(subject, content, asked_as, earlier or {}, report_partial)
        if replies.unasked:
            raise NotAllAsked(replies)
        if last_attempt:  # first: what is down counts as failed then, and does not keep a suspended one from waiting
            replies = replies.final()
        raise_if_suspended(replies, subject.asset_id)
        return finish(replies)

    async def _ask_providers(
        self,
        subject: Subject,
        content: Content,
        instance: InstanceSettings,
        earlier: Mapping[str, Reply],
        report_partial: Callable[[ProviderReplies], Awaitable[None]],
    ) -> ProviderReplies:
        asset = subject.asset_id
        enabled = [provider for provider in self.providers if provider.enabled(instance)]
        mime_type = sniff(content.head) or "application/octet-stream"
        refused = {provider.name: why for provider in enabled if (why := provider.refuses(mime_type, instance))}
        # One that has been switched off since, or that never was a provider of this instance, does not count.
        answered = {provider.name: earlier[provider.name] for provider in enabled if provider.name in earlier}
        known = answered | {name: _refusal(name, why) for name, why in refused.items()}
        asked = [provider for provider in enabled if provider.name not in known]
        if len(refused) == len(enabled) and mime_type.startswith(("image/", "application/pdf")):
            return ProviderReplies(tuple(known.values()))

        recipe = next((found for provider in asked if (found := provider.pixel_recipe())), None)
        with self._metrics.stage("decode"):
            decoded = await self._decoders.decode(content, recipe, asset, subject.turn)
        try:
            image = Image(
                asset_id=asset,
                instance=subject.instance,
                content=content,
                facts=decoded.facts,
                mime_type=mime_type,
                pixels_fd=decoded.pixels_fd,
                shrink=partial(self._shrink, content, asset, subject.turn),
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
            return in_order(replies)
        finally:
            if decoded.pixels_fd is not None:
                os.close(decoded.pixels_fd)

    async def _shrink(self, content: Content, asset: str, turn: Turn, limits: JpegLimits) -> bytes:
        with self._metrics.stage("shrink"):
            return await self._decoders.shrink(content, limits, asset, turn)


def with_low_threshold(instance: InstanceSettings, lowest_confidence: float) -> InstanceSettings:
    """The instance's settings with the local model's threshold lowered to `lowest_confidence`, never raised."""
    local = instance.tensorflow
    lowest = min(local.confidence_threshold, lowest_confidence)
    return instance.model_copy(update={"tensorflow": local.model_copy(update={"confidence_threshold": lowest})})


def _choices(
    subject: Subject, replies: ProviderReplies, instance: InstanceSettings, maximum_number_of_tags: int
) -> list[Choice]:
    """Every suggestion of the replies with its verdict under the instance's settings, best first."""
    return choose(
        {reply.provider: reply.suggestions for reply in replies.replies},
        thresholds={reply.provider: threshold(instance, reply.provider) for reply in replies.replies},
        rules=instance.labels,
        existing_tags=subject.existing_tags,
        maximum=maximum_number_of_tags,
    )


def threshold(instance: InstanceSettings, provider: str) -> float | None:
    """The confidence below which a provider's suggestions are left out; None admits all."""
    table = getattr(instance, provider, None)  # a third party's provider may have no table of its own
    return getattr(table, "confidence_threshold", None)


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
