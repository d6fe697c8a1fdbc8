"""One image tagged: decoded once, shown to the providers, and what they say made into a result.

This is all of Autotag but the queues: `autotag tag` and the status page use it just as the pipeline does.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from worker.images.content import Content
from worker.errors import AutotagError, Unavailable
from worker.images.format import sniff
from worker.tagging.merge import Choice, choose, tags_of
from worker.messages import Event, ImageFacts, Result, Status
from worker.operations.metrics import EventMetrics
from worker.images.requests import PixelRecipe
from worker.tagging.gates import Skip
from worker.providers.base import Image, Provider
from worker.images.requests import JpegLimits
from worker.providers.replies import Again, Asking, Reply, ask, late
from worker.settings import InstanceSettings, Settings, effective_maximum_number_of_tags

_LOWEST_CONFIDENCE = 0.005
"""Labels of the local model below this are not explained: there is always a long tail of them."""


class Decoded(Protocol):
    """What a decoder found: the facts, and the model's input where a recipe was given (the caller closes it)."""

    @property
    def facts(self) -> ImageFacts:
        """Format, size and digest."""
        ...

    @property
    def pixels_fd(self) -> int | None:
        """Rows of RGB bytes, as the recipe says."""
        ...


class Decoders(Protocol):
    """The decoder children, as tagging sees them."""

    async def decode(self, content: Content, recipe: PixelRecipe | None, asset: str) -> Decoded:
        """Facts and pixels of an image. Raises CannotBeDone with a reason `image_…`."""
        ...

    async def shrink(self, content: Content, limits: JpegLimits, asset: str) -> bytes:
        """The image as a JPEG within limits. Raises CannotBeDone."""
        ...


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of one image so far: a reply for each provider, in the providers' order."""

    replies: tuple[Reply, ...]
    facts: ImageFacts | None = None

    @property
    def answered(self) -> bool:
        """Whether any provider answered."""
        return any(reply.status == "ok" for reply in self.replies)

    @property
    def down(self) -> tuple[Reply, ...]:
        """The providers to ask again after a delay, or still being asked."""
        return tuple(reply for reply in self.replies if reply.again is Again.LATER)

    @property
    def settled(self) -> frozenset[str]:
        """The providers that are not to be asked again."""
        return frozenset(reply.provider for reply in self.replies if reply.again is Again.NO)

    def without_hope(self) -> Findings:
        """The same when nobody is to be asked again any more: who is down now counts as failed."""
        return replace(
            self,
            replies=tuple(
                replace(r, status="failed", again=Again.NO) if r.again is Again.LATER else r for r in self.replies
            ),
        )


class Tagger:
    """Looks at images with the decoder children and every provider that an instance has switched on."""

    def __init__(self, decoders: Decoders, providers: tuple[Provider, ...], metrics: EventMetrics) -> None:
        self._decoders = decoders
        self._metrics = metrics
        self.providers = providers

    def among(self, providers: tuple[Provider, ...]) -> Tagger:
        """The same, asking only some of the providers."""
        return Tagger(self._decoders, providers, self._metrics)

    async def look(
        self,
        event: Event,
        content: Content,
        instance: InstanceSettings,
        *,
        earlier: Mapping[str, Reply],
        tell: Callable[[Findings], Awaitable[None]],
    ) -> Findings:
        """Everything the providers say of one image.

        `earlier` holds replies of an attempt before this one; those providers are not asked again. Where some have
        answered and others are late by more than `provider_wait_s`, `tell` hears of what is there meanwhile.
        Raises CannotBeDone for an image that no decoder can read, Unavailable when nothing but a provider that is
        switched off by a fault could answer.
        """
        asset = event.data.asset_id
        enabled = [provider for provider in self.providers if provider.enabled(instance)]
        mime_type = sniff(content.head) or "application/octet-stream"
        refused = {provider.name: why for provider in enabled if (why := provider.refuses(mime_type, instance))}
        known = dict(earlier) | {name: _refusal(name, why) for name, why in refused.items()}
        asked = [provider for provider in enabled if provider.name not in known]
        if len(refused) == len(enabled) and mime_type.startswith(("image/", "application/pdf")):
            return Findings(tuple(known.values()))

        recipe = next((found for provider in asked if (found := provider.pixel_recipe())), None)
        with self._metrics.stage("decode"):
            decoded = await self._decoders.decode(content, recipe, asset)
        try:
            image = Image(
                asset_id=asset,
                instance=event.data.instance,
                content=content,
                facts=decoded.facts,
                mime_type=mime_type,
                pixels_fd=decoded.pixels_fd,
                shrink=partial(self._shrink, content, asset),
            )

            def findings(replies: list[Reply]) -> Findings:
                found = known | {reply.provider: reply for reply in replies}
                in_order = (found.get(provider.name) or late(provider.name) for provider in enabled)
                return Findings(tuple(in_order), decoded.facts)

            if len(asked) == 1:  # nobody is kept waiting
                replies = [await ask(asked[0], image, instance)]
            else:
                async with Asking(asked, image, instance) as asking:
                    so_far = findings(await asking.within(instance.provider_wait_s))
                    if asking.late and so_far.answered:
                        await tell(so_far)
                    replies = await asking.all()
            for reply in replies:
                self._metrics.replied(reply)
            final = findings(replies)
        finally:
            if decoded.pixels_fd is not None:
                os.close(decoded.pixels_fd)
        raise_if_it_must_wait(final, asset)
        return final

    async def _shrink(self, content: Content, asset: str, limits: JpegLimits) -> bytes:
        with self._metrics.stage("shrink"):
            return await self._decoders.shrink(content, limits, asset)


def curious(instance: InstanceSettings) -> InstanceSettings:
    """The instance as it is, but that the local model also names what it is hardly sure of: for `judge` to explain."""
    local = instance.tensorflow
    lowest = min(local.confidence_threshold, _LOWEST_CONFIDENCE)
    return instance.model_copy(update={"tensorflow": local.model_copy(update={"confidence_threshold": lowest})})


def judge(event: Event, findings: Findings, instance: InstanceSettings, settings: Settings) -> list[Choice]:
    """Every suggestion of the findings with its verdict under the instance's settings, best first."""
    return choose(
        {reply.provider: reply.suggestions for reply in findings.replies},
        thresholds={reply.provider: threshold(instance, reply.provider) for reply in findings.replies},
        rules=instance.labels,
        existing_tags=event.data.existing_tags,
        maximum=effective_maximum_number_of_tags(
            settings.maximum_number_of_tags_per_asset, instance.maximum_number_of_tags_per_asset
        ),
    )


def tagged(event: Event, findings: Findings, instance: InstanceSettings, settings: Settings) -> Result:
    """The result for an image that was looked at.

    `complete` is false while a provider is late or is to be asked again: another result will follow, with the tags of
    all of them.
    """
    tags = tags_of(judge(event, findings, instance, settings))
    failures = [reply for reply in findings.replies if reply.status == "failed"]
    skips = [reply for reply in findings.replies if reply.status == "skipped"]
    status: Status
    first: Reply | None = None
    if findings.answered:
        status = "tagged" if tags else "no_tags"
    elif failures:
        status, first = "failed", failures[0]
    else:
        status, first = "skipped", skips[0] if skips else None
    return Result(
        asset_id=event.data.asset_id,
        instance=event.data.instance,
        event_id=event.id,
        status=status,
        reason=first.reason if first else None,
        message=first.message if first else None,
        tags=tags,
        providers=tuple(reply.report() for reply in findings.replies),
        complete=not findings.down,
        image=findings.facts,
    )


def skipped(event: Event, skip: Skip) -> Result:
    """The result for an image that a gate kept from being looked at."""
    return _unseen(event, "skipped", skip.reason, skip.message)


def failed(event: Event, error: AutotagError) -> Result:
    """The result for an image that can't be tagged, ever or after the last attempt."""
    return _unseen(event, "failed", error.reason, str(error))


def _unseen(event: Event, status: Status, reason: str, message: str) -> Result:
    return Result(
        asset_id=event.data.asset_id,
        instance=event.data.instance,
        event_id=event.id,
        status=status,
        reason=reason,
        message=message,
    )


def threshold(instance: InstanceSettings, provider: str) -> float | None:
    """The confidence below which a provider's suggestions are left out; None admits all."""
    table = getattr(instance, provider, None)  # a provider from elsewhere may have no table of its own
    return getattr(table, "confidence_threshold", None)


def _refusal(provider: str, why: str) -> Reply:
    return Reply(provider, "skipped", reason="format_not_taken", message=why)


def raise_if_it_must_wait(findings: Findings, asset: str) -> None:
    """Raise Unavailable where nobody has answered or will soon, but for somebody who is switched off by a fault."""
    waiting = [reply for reply in findings.replies if reply.again is Again.WAIT]
    if waiting and not findings.answered and not findings.down:
        names = ", ".join(reply.provider for reply in waiting)
        raise Unavailable(
            f"{asset} waits: {names} cannot answer ({waiting[0].message})",
            reason=waiting[0].reason or "",
            after_s=min(reply.after_s for reply in waiting),
        )
