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
    """Tag the photographs, at most `MAXIMUM_PHOTOGRAPHS` of them, for each tenant; see `usable`."""
    asked = [(each, file) for each in tenants if each.providers for file in photographs[:MAXIMUM_PHOTOGRAPHS]]
    refused: dict[Path, str] = {}
    engine = await open_engine(settings, Metrics())
    try:
        answers = await asyncio.gather(*(_labels(engine, settings, tenant, file, refused) for tenant, file in asked))
    finally:
        await engine.close()
    try:
        return usable(
            {(tenant, file): labels for (tenant, file), labels in zip(asked, answers, strict=True)}, constants
        )
    except Misconfigured as error:
        if not refused:
            raise
        file, why = min(refused.items())
        raise Misconfigured(f"{error}. {len(refused)} could not be tagged at all, such as {file.name}: {why}") from None


def usable(
    answers: Mapping[tuple[Tenant, Path], Mapping[str, str]], constants: Mapping[str, str]
) -> dict[tuple[str, Path], Mapping[str, str]]:
    """Those answers in which all providers of the tenant have a label.

    `constants`: labels of the local model that are known already, by the name of the photograph's file.

    Raises Misconfigured where a tenant can tag no photograph, or the model contradicts a constant.
    """
    for (_, file), labels in answers.items():
        constant = constants.get(file.name)
        if constant is not None and labels.get(TENSORFLOW, constant) != constant:
            raise Misconfigured(f"{file.name} should be {constant!r}, and undisturbed it is {labels[TENSORFLOW]!r}")
    found = {
        (tenant.name, file): labels for (tenant, file), labels in answers.items() if tenant.providers == set(labels)
    }
    for tenant, _ in answers:
        if not any(name == tenant.name for name, _ in found):
            providers = " and ".join(sorted(tenant.providers))
            raise Misconfigured(f"none of the photographs gets a tag of {providers}, undisturbed; name others")
    return found


async def _labels(
    engine: Engine, settings: Settings, tenant: Tenant, file: Path, refused: dict[Path, str]
) -> dict[str, str]:
    """The best label of each provider; none, and why in `refused`, where the photograph cannot be tagged."""
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
    except (CannotBeDone, Unavailable) as error:
        refused[file] = str(error)
        return {}
    labels: dict[str, str] = {}
    for tag in tagged.result.tags:  # best first
        labels.setdefault(tag.provider, tag.name)
    return labels
