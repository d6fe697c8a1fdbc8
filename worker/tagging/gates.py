"""The gates: whether an event's image is tagged at all, decided before a byte of it is fetched. Pure.

The gates are those of Liferay's auto tagging, in its order. A closed gate gives the result `skipped` with its reason;
Liferay gives no answer at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from worker.messages import Event
from worker.providers.base import Provider
from worker.settings import InstanceSettings, Settings

NO_PROVIDER_ENABLED: Final = "no_provider_enabled"


@dataclass(frozen=True, slots=True)
class Skip:
    """Why an image is not tagged: `reason` for programs, `message` for people."""

    reason: str
    message: str


def gate(
    event: Event, settings: Settings, instance: InstanceSettings | None, providers: Iterable[Provider]
) -> Skip | None:
    """The first gate that is closed for this event, or None when all are open.

    `instance` is None for an instance that the settings do not know and that `unknown_instances` has skipped.
    """
    data = event.data
    if not settings.enabled:
        return Skip("system_disabled", "tagging is switched off for the whole system (`enabled`)")
    if instance is None:
        why = f"the instance {data.instance!r} has no settings (`unknown_instances` is {settings.unknown_instances})"
        return Skip("unknown_instance", why)
    if not instance.enabled:
        return Skip("instance_disabled", f"tagging is switched off for the instance {data.instance!r}")
    if data.site is not None and not instance.sites.get(data.site, True):
        return Skip("site_disabled", f"tagging is switched off for the site {data.site!r} of {data.instance!r}")
    if not any(provider.enabled(instance) for provider in providers):
        return Skip(NO_PROVIDER_ENABLED, f"no provider is switched on for the instance {data.instance!r}")
    if data.temporary:
        return Skip("temporary", "the asset is a temporary file")
    if data.existing_tags and not instance.tag_assets_that_have_tags:
        return Skip("has_tags", "the asset already has tags of its own (`tag_assets_that_have_tags` is off)")
    return None
