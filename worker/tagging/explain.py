"""An image tried by hand: looked at by the real decoders and providers, with every label's way to a tag.

Nothing is published and nothing is kept. The local model is asked for labels far below the instance's threshold too,
which the verdicts are then passed under: why a tag is missing is what people mostly want to know.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from worker.tagging import tagger
from worker.operations.history.thumbnails import THUMBNAIL
from worker.images.content import Content
from worker.errors import AutotagError, CannotBeDone, Unavailable
from worker.tagging.merge import Choice
from worker.messages import EVENT_TYPE, IN_THE_BODY, Event, EventData, Result
from worker.providers.base import Provider
from worker.settings import Settings
from worker.tagging.tagger import Findings
from worker.engine import Workshop


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one image. `choices`: every suggestion with its verdict; `thresholds` by provider."""

    instance: str
    result: Result
    choices: tuple[Choice, ...]
    thresholds: dict[str, float | None]
    took_s: float
    thumbnail: bytes | None
    left_out: tuple[str, ...] = ()
    """Providers that the instance has on and that were not asked, because their calls cost money."""


async def try_image(
    workshop: Workshop | None,
    settings: Settings,
    content: Content,
    *,
    name: str,
    instance_name: str,
    local_only: bool,
) -> Trial:
    """Look at an image as an instance's events are looked at. `local_only`: no provider that takes money is asked.

    Raises CannotBeDone when the image, or Unavailable when the service, is not fit for it.
    """
    if workshop is None:
        raise Unavailable("the service is still starting; try again in a moment", reason="starting")
    instance = settings.instance(instance_name)
    if instance is None:
        raise CannotBeDone(f"the settings know no instance {instance_name}", reason="instance_unknown")
    enabled = [provider for provider in workshop.providers if provider.enabled(instance)]
    asked = [each for each in enabled if each.name == "tensorflow" or not local_only]
    if not asked:
        raise Unavailable(_nobody(instance_name, enabled), reason="no_provider")
    event = Event(
        specversion="1.0",
        id=str(uuid.uuid4()),
        source="autotag status page",
        type=EVENT_TYPE,
        data=EventData.model_construct(
            asset_id=name, instance=instance_name, content=IN_THE_BODY, file_name=name, existing_tags=()
        ),
    )
    started_s = time.monotonic()
    tagger = workshop.tagger.among(tuple(asked))
    curious = tagger.curious(instance)
    findings = (await tagger.look(event, content, curious, earlier={}, tell=_nobody_waits)).without_hope()
    took_s = time.monotonic() - started_s
    return Trial(
        instance=instance_name,
        result=tagger.tagged(event, findings, instance, settings),
        choices=tuple(tagger.judge(event, findings, instance, settings)),
        thresholds={provider.name: tagger.threshold(instance, provider.name) for provider in asked},
        took_s=took_s,
        thumbnail=await _thumbnail(workshop, content, name),
        left_out=tuple(each.name for each in enabled if each not in asked),
    )


def _nobody(instance_name: str, enabled: list[Provider]) -> str:
    if not enabled:
        return f"no provider is on for {instance_name}; for instance set defaults.tensorflow.enabled"
    names = ", ".join(provider.name for provider in enabled)
    return f"{instance_name} has only {names} on, whose calls may cost money; set `http.token` and sign in to ask there"


async def _thumbnail(workshop: Workshop, content: Content, name: str) -> bytes | None:
    try:
        return await workshop.decoders.shrink(content, THUMBNAIL, name)
    except AutotagError:
        return None


async def _nobody_waits(_so_far: Findings) -> None:
    """A person who waits wants the whole answer."""
