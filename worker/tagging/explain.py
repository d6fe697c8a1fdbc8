"""One image tagged by hand, with every label's way to a tag: behind `autotag tag`, the status page and `autotag bench`.

Nothing is published and nothing is kept. The local model can be asked for labels far below the instance's threshold
too, which the verdicts then explain: why a tag is missing is what people mostly want to know.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from worker.errors import AutotagError, CannotBeDone, Unavailable
from worker.images.content import Content
from worker.messages import DEFAULT_INSTANCE, Result
from worker.providers.base import TENSORFLOW, Provider
from worker.settings import InstanceSettings, Settings, tag_limit
from worker.tagging import results
from worker.tagging.merge import Choice
from worker.tagging.results import Subject
from worker.tagging.tagger import Tagger, thresholds

LOWEST_CONFIDENCE = 0.005
"""Labels of the local model below this are not explained: there is always a long tail of them."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of one image. `choices`: every suggestion with its verdict; `thresholds` by provider."""

    instance: str
    result: Result
    choices: tuple[Choice, ...]
    thresholds: dict[str, float | None]
    took_s: float
    not_asked: tuple[str, ...] = ()
    """Providers that the instance has on and that were not asked, because their calls cost money."""

    def choices_as_json(self) -> list[dict[str, object]]:
        """Every suggestion with its verdict as JSON values."""
        return [
            {
                "label": each.label,
                "tag": each.name,
                "confidence": each.confidence,
                "provider": each.provider,
                "verdict": each.verdict,
                "concept": each.concept,
                "kind": each.kind,
                "threshold": each.threshold,
                "threshold_of": _threshold_of(each),
                "term": each.term,
                "because_of": each.because_of,
                "agreeing": list(each.agreeing),
                "models": list(each.models),
            }
            for each in self.choices
        ]


def _threshold_of(choice: Choice) -> str | None:
    if choice.threshold is None:
        return None
    return "rule" if choice.threshold_of_rule else choice.provider


async def explain(
    tagger: Tagger,
    settings: Settings,
    content: Content,
    *,
    asset_id: str,
    instance: str = DEFAULT_INSTANCE,
    event_id: str | None = None,
    local_only: bool = False,
    all_labels: bool = True,
    remembering: bool = False,
) -> Explanation:
    """Tag an image as an instance's events are tagged, and say what became of every label.

    `local_only`: no provider that takes money is asked. `all_labels`: the local model also names what it is hardly
    sure of, down to `LOWEST_CONFIDENCE`. `remembering`: as for events, an answer is given again for near-duplicates.
    An instance that has no provider on gives a result that is `skipped`. Raises CannotBeDone when the image, or
    Unavailable when no provider, is fit for it.
    """
    found = _instance(settings, instance)
    enabled, asked = _providers(tagger, found, local_only=local_only)
    started_s = time.monotonic()
    tagged = await tagger.restricted_to(tuple(asked), remembering=remembering).tag(
        Subject(asset_id, instance, event_id or str(uuid.uuid4())),
        content,
        found,
        maximum_number_of_tags=tag_limit(settings, found),
        lowest_confidence=LOWEST_CONFIDENCE if all_labels else None,
    )
    return Explanation(
        instance=instance,
        result=tagged.result,
        choices=tagged.choices,
        thresholds={provider.name: thresholds(found, provider.name).least for provider in asked},
        took_s=time.monotonic() - started_s,
        not_asked=tuple(each.name for each in enabled if each not in asked),
    )


def failure(error: AutotagError, *, asset_id: str, instance: str, event_id: str, took_s: float) -> Explanation:
    """What stands for an image that could not be tagged at all."""
    result = results.failed(Subject(asset_id, instance, event_id), error)
    return Explanation(instance, result, (), {}, took_s)


def raise_if_no_provider(tagger: Tagger, settings: Settings, instance: str, *, local_only: bool) -> None:
    """Raise Unavailable where an explanation would ask no provider, with what to switch on or where to sign in.

    Raises CannotBeDone for an instance that the settings do not know.
    """
    enabled, asked = _providers(tagger, _instance(settings, instance), local_only=local_only)
    if asked:
        return
    names = ", ".join(provider.name for provider in enabled)
    message = (
        f"{instance} has only {names} on, whose calls may cost money; set `http.token` and sign in to ask there"
        if enabled
        else f"no provider is on for {instance}; for instance set defaults.tensorflow.enabled"
    )
    raise Unavailable(message, reason="no_provider")


def _instance(settings: Settings, name: str) -> InstanceSettings:
    found = settings.instance(name)
    if found is None:
        raise CannotBeDone(f"the settings know no instance {name}", reason="instance_unknown")
    return found


def _providers(
    tagger: Tagger, instance: InstanceSettings, *, local_only: bool
) -> tuple[list[Provider], list[Provider]]:
    """The providers that an instance has on, and those of them that are asked."""
    enabled = [provider for provider in tagger.providers if provider.enabled(instance)]
    return enabled, [each for each in enabled if each.name == TENSORFLOW or not local_only]
