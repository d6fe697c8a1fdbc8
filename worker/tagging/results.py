"""Results: the `Result` of every event that can be read is made here. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worker.errors import AutotagError
from worker.messages import Event, Result, ResultStatus
from worker.providers.replies import ProviderReplies, Reply
from worker.supervision.turns import Turn
from worker.tagging.gates import Skip
from worker.tagging.merge import Choice, tags_of


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tagged and for whom. `existing_tags` are on the asset already and are not suggested again.

    `bulk`: nobody waits for it, so that live images go before it. `locale`: the asset's, for the language of its tags.
    `context`: the publisher's, for the result.
    """

    asset_id: str
    instance: str
    event_id: str
    existing_tags: tuple[str, ...] = ()
    bulk: bool = False
    locale: str | None = None
    context: dict[str, Any] | None = field(default=None, repr=False, hash=False)

    @classmethod
    def of(cls, event: Event, *, bulk: bool = False) -> Subject:
        """The subject of an upload event."""
        data = event.data
        return cls(data.asset_id, data.instance, event.id, tuple(data.existing_tags), bulk, data.locale, data.context)

    @property
    def turn(self) -> Turn:
        """On whose behalf its image waits for the children."""
        return Turn(self.instance, self.bulk)


def tagged(subject: Subject, replies: ProviderReplies, choices: list[Choice]) -> Result:
    """The result for an image that the providers were asked about; `choices` are their suggestions with verdicts.

    `complete` is false while a provider is pending: another result follows, with the tags of all of them.
    """
    tags = tags_of(choices)
    failures = [reply for reply in replies.replies if reply.status == "failed"]
    skips = [reply for reply in replies.replies if reply.status == "skipped"]
    status: ResultStatus
    first: Reply | None = None
    if replies.answered:
        status = "tagged" if tags else "no_tags"
    elif failures:
        status, first = "failed", failures[0]
    else:
        status, first = "skipped", skips[0] if skips else None
    return Result(
        asset_id=subject.asset_id,
        instance=subject.instance,
        event_id=subject.event_id,
        status=status,
        reason=first.reason if first else None,
        message=first.message if first else None,
        tags=tags,
        providers=tuple(reply.report() for reply in replies.replies),
        complete=not replies.pending,
        image=replies.facts,
        context=subject.context,
    )


def skipped(subject: Subject, skip: Skip) -> Result:
    """The result for an image that a gate excluded before it was fetched."""
    return _without_providers(subject, "skipped", skip.reason, skip.message)


def failed(subject: Subject, error: AutotagError) -> Result:
    """The result for an image that cannot be tagged, ever or after the last attempt."""
    return _without_providers(subject, "failed", error.reason, str(error))


def _without_providers(subject: Subject, status: ResultStatus, reason: str, message: str) -> Result:
    return Result(
        asset_id=subject.asset_id,
        instance=subject.instance,
        event_id=subject.event_id,
        status=status,
        reason=reason,
        message=message,
        context=subject.context,
    )
