"""Which providers there are: those of Autotag in a table, those of others in an entry-point group.

A provider from elsewhere is a package with an entry point in the group `autotag.providers`; its name is the provider's,
its object is called with `ProviderContext` and gives a Provider. docs/providers.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import structlog

from worker.errors import Misconfigured
from worker.providers.base import BUILT_IN_PROVIDERS, GOOGLE_CLOUD_VISION, MICROSOFT_VISION, Provider
from worker.providers.cloud.observer import NO_OBSERVER, CallObserver
from worker.providers.third_party import ThirdPartyProvider
from worker.settings import Settings

_log = structlog.get_logger(__name__)

ENTRY_POINT_GROUP = "autotag.providers"

BUILT_IN: dict[str, str] = {
    GOOGLE_CLOUD_VISION: "worker.providers.google_cloud_vision:GoogleCloudVision",
    MICROSOFT_VISION: "worker.providers.microsoft_vision:MicrosoftVision",
}
"""Import strings, so that a provider is imported only where it is used. `tensorflow` is not here: it is made from the
model child's pool, which the composition root owns."""


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider is given when it is made: the settings of the whole service, and places for its files.

    `calls` is told of every call to a service, for the metrics.
    """

    settings: Settings
    calls: CallObserver = NO_OBSERVER

    @property
    def cache_dir(self) -> Path:
        """Where to keep what can be made again."""
        return self.settings.cache_dir

    @property
    def state_dir(self) -> Path:
        """Where to keep what must outlive a restart."""
        return self.settings.state_dir


Factory = Callable[[ProviderContext], Provider]


def installed() -> dict[str, EntryPoint]:
    """Providers of other packages, by name. A name of Autotag's own can't be taken by another package."""
    points = entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point for point in points if point.name not in BUILT_IN_PROVIDERS}


def names() -> list[str]:
    """All providers that `make` can make."""
    return sorted({*BUILT_IN, *installed()})


def make(name: str, context: ProviderContext) -> Provider:
    """The provider of this name, not started yet. Raises Misconfigured when there is none or it can't be made."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: Factory = getattr(import_module(module), attribute)
        return built_in(context)
    point = installed().get(name)
    if point is None:
        raise Misconfigured(f"there is no provider {name!r}; there are {', '.join(names())}", reason="provider_unknown")
    try:
        provider: Provider = point.load()(context)
    except Exception as error:
        # Somebody else's code: whatever it raises, it is that package which does not work here.
        package = point.dist.name if point.dist else "an unknown package"
        raise Misconfigured(
            f"the provider {name!r} of {package} can't be made: {type(error).__name__}: {error}",
            reason="provider_broken",
        ) from error
    _check(provider, name)
    return ThirdPartyProvider(provider)


def wanted(settings: Settings) -> list[str]:
    """The built-in providers that at least one instance has switched on; the others are not even imported."""
    instances = (settings.defaults, *settings.instances.values())
    return [name for name in BUILT_IN if any(each.enabled and getattr(each, name).enabled for each in instances)]


def make_wanted(settings: Settings, calls: CallObserver = NO_OBSERVER) -> list[Provider]:
    """What this service needs: the wanted ones of Autotag's own, and those of other packages.

    One of theirs that can't be made is logged and left out.
    """
    context = ProviderContext(settings, calls)
    providers = [make(name, context) for name in wanted(settings)]
    for name in sorted(installed()):
        try:
            providers.append(make(name, context))
        except Misconfigured as error:
            _log.error("provider left out", provider=name, reason=error.reason, error=str(error))
    return providers


def _check(provider: Provider, name: str) -> None:
    needed = ("enabled", "pixel_recipe", "refuses", "unusable", "tag", "start", "close")
    missing = [each for each in needed if not callable(getattr(provider, each, None))]
    if missing:
        raise Misconfigured(f"the provider {name!r} lacks {', '.join(missing)}", reason="provider_broken")
    if getattr(provider, "name", None) != name:
        raise Misconfigured(
            f"the provider {name!r} calls itself {getattr(provider, 'name', None)!r}; both names must be the same",
            reason="provider_broken",
        )
