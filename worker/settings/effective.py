"""Values derived from several settings: the limit on tags, and the digest that distinguishes results."""

from __future__ import annotations

import hashlib
import json

from worker.models.catalogue import OTHER_NAMES
from worker.settings.instance import InstanceSettings
from worker.settings.root import Settings

WITHOUT_INFLUENCE = frozenset(
    {
        "api_key",
        "provider_secrets",
        "provider_wait_s",
        "remember",
        "timeout_s",
        "maximum_number_of_attempts",
        "retry_total_s",
        "calls_per_second",
        "calls_per_month",
        "rules_file",
    }
)
"""Fields of an instance that no result depends on: secrets, how a provider is called, how much is remembered, and the
path of its rules file, whose rules are in the other fields."""


TABLES_WITHOUT_INFLUENCE = frozenset({"publishers", "sources"})
"""Tables of an instance that say which events and images are taken, and nothing of what becomes of them."""


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
        "models": settings.tensorflow.names,
        "instance": _without(
            instance.model_dump(mode="json", exclude={"maximum_number_of_tags_per_asset", *TABLES_WITHOUT_INFLUENCE})
        ),
    }
    used = {OTHER_NAMES.get(name, name) for name in settings.tensorflow.names}
    curves = {
        name: curve for name, curve in settings.tensorflow.calibration.items() if OTHER_NAMES.get(name, name) in used
    }
    if curves:
        influential["calibration"] = {name: curve.model_dump(mode="json") for name, curve in curves.items()}
    text = json.dumps(influential, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without(tree: dict[str, object]) -> dict[str, object]:
    return {
        key: _without(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if key not in WITHOUT_INFLUENCE
    }
