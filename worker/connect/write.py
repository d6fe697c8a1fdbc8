"""One result, written to its asset: read what stands, merge, enter it into the ledger, change, and enter that.

The order matters: a process that is killed between two of these steps finds in the ledger what it had begun, and so
neither takes its own tags for people's nor what it had not come to write for something that people removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from worker.connect.ledger import AssetRecord, Ledger, OwnTag
from worker.connect.merge import Merge, folded, merge
from worker.connect.targets.base import Asset, Rejected, Standing, Target, TargetBusy
from worker.errors import AutotagError
from worker.messages.results import Result

WRITTEN_STATUSES: Final = ("tagged", "no_tags")
"""Of results that say which tags an image has. One that was skipped or failed says nothing about earlier tags."""


@dataclass(frozen=True, slots=True)
class ResultTimes:
    """When the event happened, as far as its publisher said so, and when its result was written; since the epoch."""

    event_s: float | None
    result_s: float

    @classmethod
    def of(cls, result: Result, written_at: datetime) -> ResultTimes:
        """The event's time is `time` in its context, as our inlets put it there."""
        text = (result.context or {}).get("time")
        try:
            moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        except ValueError:
            moment = None
        event_s = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() if moment is not None else None
        return cls(event_s, written_at.timestamp())


@dataclass(frozen=True, slots=True)
class WritePlan:
    """What is to be done to an asset."""

    asset: Asset
    standing: Standing
    merged: Merge
    before: AssetRecord | None
    after: AssetRecord
    """To be kept once it is done."""
    newly_removed: tuple[OwnTag, ...]
    """By people, since we last looked."""


class WriteObserver(Protocol):
    """Counts."""

    def on_removed_by_people(self, tags: Sequence[OwnTag]) -> None:
        """People have removed tags of ours."""

    def on_change(self, added: int, removed: int) -> None:
        """A target was changed."""


class AssetWriter:
    """Writes results of one connection. One asset's results must come one after the other."""

    def __init__(
        self, name: str, target: Target, ledger: Ledger, most_tags: int, observer: WriteObserver | None
    ) -> None:
        self.target = target
        self._name = name
        self._ledger = ledger
        self._most_tags = most_tags or None
        self._observer = observer

    def is_older(self, result: Result, times: ResultTimes) -> bool:
        """Whether a newer result of the asset was taken before."""
        record = self._ledger.get(self._name, result.asset_id)
        return record is not None and record.is_newer_than(times.event_s, times.result_s)

    async def plan(self, result: Result, times: ResultTimes) -> WritePlan:
        """Read the asset's tags, and what is to be done to them. Raises what `Target.read` raises."""
        asset = Asset(result.asset_id, result.context or {})
        before = self._ledger.get(self._name, result.asset_id)
        standing = await self.target.read(asset)
        theirs = _texts(asset.context, "existing_tags")
        mine = self._mine_before(before, standing, theirs)
        wanted = self._wanted(result)
        # What an event says was there before is theirs: it is not suggested again, which is no reason to remove it.
        kept = {folded(name) for name in theirs}
        stays = [tag.name for tag in mine if folded(tag.name) in kept]
        merged = merge(
            standing.tags,
            [tag.name for tag in mine],
            [*(tag.name for tag in wanted), *stays],
            [tag.name for tag in before.removed] if before is not None else (),
            complete=result.complete and self._ledger.fault is None,
        )
        known = _by_fold((*(before.removed if before else ()), *mine, *wanted))
        removed = _own_tags(merged.removed_by_people, known)
        remembered = {folded(tag.name) for tag in before.removed} if before is not None else set()
        return WritePlan(
            asset,
            standing,
            merged,
            before,
            AssetRecord(
                mine=_own_tags(merged.mine_after, known),
                removed=removed,
                event_time_s=times.event_s if times.event_s is not None else (before.event_time_s if before else None),
                result_time_s=times.result_s,
            ),
            tuple(tag for tag in removed if folded(tag.name) not in remembered),
        )

    async def write(self, plan: WritePlan, *, is_final: bool = True) -> None:
        """Do what is planned. Raises what `Target.change` raises.

        Not `is_final`: the asset is looked at once more later, and what then lacks was dropped by the target.
        """
        merged, after = plan.merged, plan.after
        if plan.newly_removed and self._observer is not None:
            self._observer.on_removed_by_people(plan.newly_removed)
        if not merged.is_write:
            if after != plan.before:
                self._ledger.put(self._name, plan.asset.asset_id, after)
            return
        added_folds = {folded(name) for name in merged.add}
        adding = tuple(tag for tag in after.mine if folded(tag.name) in added_folds)
        before = plan.before or AssetRecord()
        mine = _own_tags(
            [*(tag.name for tag in after.mine if folded(tag.name) not in added_folds), *merged.remove],
            _by_fold((*after.mine, *before.mine, *before.adding)),
        )
        begun = replace(after, mine=mine, adding=adding, removing=merged.remove)
        self._ledger.put(self._name, plan.asset.asset_id, begun)
        try:
            added = await self.target.change(plan.asset, merged.add, merged.remove, plan.standing)
        except AutotagError as error:
            if isinstance(error, Rejected) or (isinstance(error, TargetBusy) and error.is_answer):
                await self._enter_what_stands(plan, begun)
            raise
        if self._observer is not None:
            self._observer.on_change(len(added), len(merged.remove))
        stands = {folded(name) for name in added}
        kept = tuple(tag for tag in after.mine if folded(tag.name) not in added_folds)
        new = tuple(tag for tag in adding if folded(tag.name) in stands)
        done = replace(after, mine=(*kept, *new)) if is_final else replace(after, mine=kept, adding=new)
        self._ledger.put(self._name, plan.asset.asset_id, done)

    async def _enter_what_stands(self, plan: WritePlan, begun: AssetRecord) -> None:
        """The target has said no: look at once what it did all the same, before people add the same tags."""
        with suppress(AutotagError):
            standing = await self.target.read(plan.asset)
            stands = {folded(name) for name in standing.tags}
            mine = tuple(tag for tag in begun.mine_before(standing.tags) if folded(tag.name) in stands)
            self._ledger.put(self._name, plan.asset.asset_id, replace(begun, mine=mine, adding=(), removing=()))

    def _mine_before(self, before: AssetRecord | None, standing: Standing, theirs: Sequence[str]) -> tuple[OwnTag, ...]:
        """Our tags by the ledger; where it has nothing on the asset, those that the target itself knows as ours."""
        if before is None:
            return tuple(OwnTag(name, name, "") for name in standing.mine or ())
        return before.mine_before(standing.tags, theirs)

    def _wanted(self, result: Result) -> list[OwnTag]:
        found: dict[str, OwnTag] = {}
        for tag in result.tags:
            name = self.target.names.name_of(tag.name)
            if name is not None:
                found.setdefault(folded(name), OwnTag(name, tag.name, tag.provider))
        return list(found.values())[: self._most_tags]


def _by_fold(tags: Sequence[OwnTag]) -> dict[str, OwnTag]:
    found: dict[str, OwnTag] = {}
    for tag in tags:
        found.setdefault(folded(tag.name), tag)
    return found


def _own_tags(names: Sequence[str], known: Mapping[str, OwnTag]) -> tuple[OwnTag, ...]:
    """Names as the target spells them, with what is known of each."""
    return tuple(
        replace(known[fold], name=name) if (fold := folded(name)) in known else OwnTag(name, name, "") for name in names
    )


def _texts(context: Mapping[str, Any], name: str) -> list[str]:
    found = context.get(name)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
