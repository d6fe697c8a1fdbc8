"""Gives answers again: which providers need not be asked about an image, as they were about one that looks like it.

An event that is handled again finds its own image: it then gets its own answer, with nothing said of a near-duplicate,
so that its second result is equal to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import structlog

from worker.operations.metrics import EventMetrics
from worker.providers.base import Answer, Provider, Repeatable
from worker.providers.replies import Reply
from worker.settings import InstanceSettings
from worker.supervision.decoder_pool import Decoded
from worker.tagging.near_duplicates import Looks, NearDuplicates

if TYPE_CHECKING:
    from worker.tagging.results import Subject

_log = structlog.get_logger(__name__)


@lru_cache(maxsize=64)
def _is_repeatable(kind: type[Provider]) -> bool:
    """Whether providers of this class fulfil `Repeatable`. Kept, as the question costs more than an event can spare."""
    return issubclass(kind, Repeatable)


class Repetition:
    """Over one memory of near-duplicates; without one, no answer is given again."""

    def __init__(self, memory: NearDuplicates | None, metrics: EventMetrics) -> None:
        self._memory = memory
        self._metrics = metrics

    def repeatable(self, providers: Sequence[Provider], instance: InstanceSettings) -> dict[str, Repeatable]:
        """Those of `providers` whose answers an instance wants to be given again, by name."""
        rule = instance.near_duplicates
        if self._memory is None or not rule.enabled:
            return {}
        named = [each for each in providers if each.name in rule.providers]
        return {each.name: cast("Repeatable", each) for each in named if _is_repeatable(type(each))}

    def replies(
        self, subject: Subject, decoded: Decoded, providers: Sequence[Provider], instance: InstanceSettings
    ) -> dict[str, Reply]:
        """The replies of those of `providers` that need not be asked, by name."""
        if self._memory is None or decoded.hash is None:
            return {}
        looks = Looks.of(decoded.hash, decoded.facts)
        found: dict[str, Reply] = {}
        for name, provider in self.repeatable(providers, instance).items():
            recalled = self._memory.recall(
                subject.instance,
                name,
                provider.answer_depends_on(instance),
                looks,
                instance.near_duplicates.maximum_distance,
            )
            if recalled is None:
                continue
            answer = recalled.answer
            own = (recalled.asset_id, recalled.event_id) == (subject.asset_id, subject.event_id)
            found[name] = Reply(
                name,
                "ok",
                answer.suggestions,
                answer.model,
                near_duplicate_of=None if own else recalled.asset_id,
                distance=None if own else recalled.distance,
            )
            self._metrics.given_again(name, subject.instance, provider.cpu_s_per_answer())
            _log.debug(
                "near-duplicate; the provider is not asked",
                provider=name,
                asset_id=subject.asset_id,
                instance=subject.instance,
                near_duplicate_of=recalled.asset_id,
                distance=recalled.distance,
            )
        return found

    def remember(
        self,
        subject: Subject,
        decoded: Decoded,
        asked: Sequence[Provider],
        replies: Sequence[Reply],
        instance: InstanceSettings,
    ) -> None:
        """Keep the complete answers of those that were `asked`."""
        if self._memory is None or decoded.hash is None:
            return
        wanted = self.repeatable(asked, instance)
        answers = {
            reply.provider: (
                wanted[reply.provider].answer_depends_on(instance),
                Answer(reply.suggestions, reply.model or ""),
            )
            for reply in replies
            if reply.provider in wanted and reply.status == "ok" and reply.message is None
        }
        self._memory.remember(
            subject.instance,
            subject.asset_id,
            subject.event_id,
            Looks.of(decoded.hash, decoded.facts),
            answers,
            instance.near_duplicates.remember,
        )
