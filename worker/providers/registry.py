"""Finds and creates providers: the built-in ones from a table, third-party ones from an entry-point group.

A third-party provider is a package with an entry point in the group `autotag.providers`. The entry point's name is the
provider's; its object is called with a `ProviderContext` and returns a Provider. docs/providers.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
"""Import strings by name, so that a provider is imported only where it is used. `tensorflow` is not listed: it is
created from the model pool, which the engine owns."""


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider is created with: the settings of the whole service, and directories for its files.

    `call_observer` is notified of every call to a service, for the metrics.
    """

    settings: Settings
    call_observer: CallObserver = NO_OBSERVER

    @property
    def cache_dir(self) -> Path:
        """Directory for files that can be recreated."""
        return self.settings.cache_dir

    @property
    def state_dir(self) -> Path:
        """Directory for files that must survive a restart."""
        return self.settings.state_dir


ProviderFactory = Callable[[ProviderContext], Provider]


def installed() -> dict[str, EntryPoint]:
    """Entry points of third-party providers, by name. Names of built-in providers are reserved and left out."""
    points = entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point for point in points if point.name not in BUILT_IN_PROVIDERS}


def names() -> list[str]:
    """Names of all providers that `make` can create, sorted."""
    return sorted({*BUILT_IN, *installed()})


def make(name: str, context: ProviderContext) -> Provider:
    """Create a provider by name; it is not started yet. Raises Misconfigured if it does not exist or fails."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: ProviderFactory = getattr(import_module(module), attribute)
        return built_in(context)
    point = installed().get(name)
    if point is None:
        raise Misconfigured(f"there is no provider {name!r}; there are {', '.join(names())}", reason="provider_unknown")
    try:
        provider: Provider = point.load()(context)
    except Exception as error:
        # Third-party code may raise anything; every failure here means that the package does not work.
        package = point.dist.name if point.dist else "an unknown package"
        raise Misconfigured(
            f"the provider {name!r} of {package} can't be made: {type(error).__name__}: {error}",
            reason="provider_broken",
        ) from error
    _validate(provider, name)
    return ThirdPartyProvider(provider)


def enabled_names(settings: Settings) -> list[str]:
    """Names of the built-in providers that at least one instance has enabled; the others are not even imported."""
    instances = settings.reachable().values()
    return [name for name in BUILT_IN if any(getattr(each, name).enabled for each in instances)]


def nothing_is_switched_on(settings: Settings, providers: Iterable[Provider]) -> bool:
    """Whether events are to be tagged, and no table of the settings switches a provider on to do it.

    Tables that are themselves switched off count: what is switched on there was meant to be answered `skipped`.
    """
    if not settings.reachable():
        return False
    tables = settings.by_instance().values()
    if any(getattr(each, name).enabled for each in tables for name in BUILT_IN_PROVIDERS):
        return False
    return not any(provider.enabled(each) for each in tables for provider in providers)


def make_enabled(
    settings: Settings, call_observer: CallObserver = NO_OBSERVER, reuse: Iterable[Provider] = ()
) -> list[Provider]:
    """Create the enabled built-in providers and all installed third-party ones, but for those in `reuse`.

    A third-party provider that can't be created is logged and left out; only its own `enabled` could say whether any
    instance uses it. Raises Misconfigured for a built-in one.
    """
    context = ProviderContext(settings, call_observer)
    there = {provider.name: provider for provider in reuse}
    providers = [there.get(name) or make(name, context) for name in enabled_names(settings)]
    for name in sorted(installed()):
        try:
            providers.append(there.get(name) or make(name, context))
        except Misconfigured as error:
            _log.error("provider left out", provider=name, reason=error.reason, error=str(error))
    return providers


def _validate(provider: Provider, name: str) -> None:
    required = ("enabled", "pixel_recipe", "refuses", "unusable", "tag", "start", "close")
    missing = [each for each in required if not callable(getattr(provider, each, None))]
    if missing:
        raise Misconfigured(f"the provider {name!r} lacks {', '.join(missing)}", reason="provider_broken")
    if getattr(provider, "name", None) != name:
        raise Misconfigured(
            f"the provider {name!r} calls itself {getattr(provider, 'name', None)!r}; both names must be the same",
            reason="provider_broken",
        )
