"""Values derived from several settings: the limit on tags, and the digest that distinguishes results."""

from __future__ import annotations

import hashlib
import json

from worker.settings.instance import InstanceSettings
from worker.settings.root import Settings

WITHOUT_INFLUENCE = frozenset(
    {
        "api_key",
        "provider_secrets",
        "provider_wait_s",
        "timeout_s",
        "maximum_number_of_attempts",
        "retry_total_s",
        "calls_per_second",
        "calls_per_month",
    }
)
"""Fields of an instance that no result depends on: secrets, and those that say how a provider is called."""


def effective_maximum_number_of_tags(system: int, instance: int) -> int:
    """The limit on an asset's tags from the system's and the instance's; 0 means no limit, as argument and as result.

    The rule is Liferay's: the system's limit applies unless the instance has a lower one of its own.
    """
    if system > 0 and (instance == 0 or system < instance):
        return system
    return instance


def tag_limit(settings: Settings, instance: InstanceSettings) -> int:
    """The maximum number of tags for an asset of an instance; 0 means no limit."""
    return effective_maximum_number_of_tags(
        settings.maximum_number_of_tags_per_asset, instance.maximum_number_of_tags_per_asset
    )


def settings_digest(settings: Settings, instance: InstanceSettings) -> str:
    """Sixteen hexadecimal digits that change whenever the result of an event could; no secret goes into them."""
    influential = {
        "enabled": settings.enabled,
        "maximum_number_of_tags_per_asset": tag_limit(settings, instance),
        "model": settings.tensorflow.model,
        "instance": _without(instance.model_dump(mode="json", exclude={"maximum_number_of_tags_per_asset"})),
    }
    text = json.dumps(influential, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without(tree: dict[str, object]) -> dict[str, object]:
    return {
        key: _without(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if key not in WITHOUT_INFLUENCE
    }
