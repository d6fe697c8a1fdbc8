"""What the photographs of a chaos run are tagged with when nothing disturbs it: the measure for every later answer.

The engine is asked in this process, without a queue and without the workers that are about to be killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.diagnostics.chaos.workload import Labels, Tenant
from worker.engine import Engine, open_engine
from worker.errors import CannotBeDone, Misconfigured, Unavailable
from worker.operations.metrics import Metrics
from worker.providers.base import TENSORFLOW
from worker.settings import Settings, tag_limit
from worker.sources.path import open_path
from worker.tagging.results import Subject

MAXIMUM_PHOTOGRAPHS = 40
"""More make no run harder, and take time before it begins."""


async def known_labels(
    settings: Settings, tenants: Sequence[Tenant], photographs: Sequence[Path], constants: Mapping[str, str]
) -> Labels:
    """The best label of each provider, for each tenant and photograph that all of its providers have a label for.

    `constants`: labels of the local model that are known already, by the name of the photograph's file.

    Raises Misconfigured where a tenant can tag no photograph, or the model contradicts a constant.
    """
    engine = await open_engine(settings, Metrics())
    try:
        asked = [(each, file) for each in tenants if each.providers for file in photographs[:MAXIMUM_PHOTOGRAPHS]]
        answers = await asyncio.gather(*(_labels(engine, settings, tenant, file) for tenant, file in asked))
    finally:
        await engine.close()
    found = {}
    for (tenant, file), labels in zip(asked, answers, strict=True):
        constant = constants.get(file.name)
        if constant is not None and labels.get(TENSORFLOW, constant) != constant:
            raise Misconfigured(f"{file.name} should be {constant!r}, and undisturbed it is {labels[TENSORFLOW]!r}")
        if tenant.providers == set(labels):
            found[tenant.name, file] = labels
    for tenant in tenants:
        if tenant.providers and not any(name == tenant.name for name, _ in found):
            asked_of = " and ".join(sorted(tenant.providers))
            raise Misconfigured(f"none of the photographs gets a tag of {asked_of}, undisturbed; name others")
    return found


async def _labels(engine: Engine, settings: Settings, tenant: Tenant, file: Path) -> dict[str, str]:
    instance = settings.instance(tenant.name)
    assert instance is not None  # noqa: S101 - the settings were made from the tenants
    try:
        with await asyncio.to_thread(open_path, str(file), settings.sources) as content:
            tagged = await engine.tagger.tag(
                Subject(file.name, tenant.name, "undisturbed"),
                content,
                instance,
                maximum_number_of_tags=tag_limit(settings, instance),
            )
    except (CannotBeDone, Unavailable):
        return {}
    labels: dict[str, str] = {}
    for tag in tagged.result.tags:  # best first
        labels.setdefault(tag.provider, tag.name)
    return labels
