"""What `autotag tag` says where the settings leave events untagged that it tags all the same, and what to set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.operations.printable import printable
from worker.settings.schema import dotted

if TYPE_CHECKING:
    from worker.settings import InstanceSettings, Settings


def switched_off(settings: Settings, instance: str, *, model: str | None, threshold: float | None) -> Iterator[str]:
    """A line for each switch that is off for events of the instance; none when they are tagged as here.

    `settings` are those that were loaded, `model` and `threshold` the options of the command.
    """
    name = printable(instance)
    if not settings.enabled:
        yield "tagging is switched off: events are answered `skipped`, until you set `enabled = true`"
    found = settings.instance(instance)
    if found is None:
        what = "refused" if settings.unknown_instances == "refuse" else "answered `skipped`"
        yield f"no settings name the instance {name}: its events are {what} (`unknown_instances`); here defaults hold"
        found = settings.defaults
    scope = ("instances", instance) if instance in settings.instances else ("defaults",)
    if not found.enabled:
        switch = _on(*scope, "enabled")
        yield f"{name} is switched off: its events are answered `skipped`, until you set {switch}"
    if found.tensorflow.enabled:
        return
    switch = _on(*scope, "tensorflow", "enabled")
    is_off = f"the local model is switched off for {name}"
    if not _others_are_on(settings, found):
        yield (
            f"{is_off}, and so is every other provider: its events {_end_of_events(settings)}, until you set {switch}; "
            "here it is asked all the same"
        )
    elif model is not None:
        yield f"{is_off}, and only asked here, by --model; to switch it on, set {switch}"
    else:
        no_effect = "; --threshold has no effect" if threshold is not None else ""
        yield f"{is_off}, and not asked{no_effect}; to switch it on, set {switch}"


def _on(*key: str) -> str:
    return f"`{dotted(key)} = true`"


def _end_of_events(settings: Settings) -> str:
    """What becomes of the events of an instance that has no provider."""
    from worker.providers.registry import make_enabled, nothing_is_switched_on

    waits = settings.while_nothing_is_switched_on == "wait" and nothing_is_switched_on(settings, make_enabled(settings))
    return "wait in their queue" if waits else "are answered `skipped`"


def _others_are_on(settings: Settings, instance: InstanceSettings) -> bool:
    from worker.providers.base import BUILT_IN_PROVIDERS, TENSORFLOW
    from worker.providers.registry import make_enabled

    if any(getattr(instance, name).enabled for name in BUILT_IN_PROVIDERS if name != TENSORFLOW):
        return True
    return any(each.enabled(instance) for each in make_enabled(settings))
