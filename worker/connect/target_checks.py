"""Whether the targets would take tags: something harmless is asked, and one known asset is read. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.connect.deliver import make_target
from worker.connect.ledger import TagLedger
from worker.connect.targets.base import AssetGone, TargetAsset
from worker.errors import AutotagError
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """The outcome for one part of a connection; the message says what to do."""

    connection: str
    part: Literal["inlet", "poll", "target"]
    is_fine: bool
    message: str


async def check_targets(settings: Settings, ledger: TagLedger | None, only: str | None = None) -> list[ConnectionCheck]:
    """Check each connection whose target is on."""
    return [
        await _check(settings, ledger, name)
        for name, connection in settings.connect.items()
        if connection.enabled and connection.target.enabled and only in (None, name)
    ]


async def _check(settings: Settings, ledger: TagLedger | None, name: str) -> ConnectionCheck:
    try:
        target = make_target(name, settings)
    except AutotagError as error:
        return ConnectionCheck(name, "target", False, str(error))
    try:
        await target.probe()
        asset_id = ledger.any_asset(name) if ledger is not None else None
        if asset_id is None:
            return ConnectionCheck(
                name, "target", True, f"{target.origin} lets us in; no asset is known yet that could be read"
            )
        standing = await target.read(TargetAsset(asset_id))
    except AssetGone:
        return ConnectionCheck(name, "target", True, f"{target.origin} lets us in; the asset {asset_id} is gone")
    except AutotagError as error:
        return ConnectionCheck(name, "target", False, f"{target.origin} would take no tags: {error}")
    finally:
        await target.close()
    return ConnectionCheck(
        name, "target", True, f"{target.origin} lets us in; asset {asset_id} has {len(standing.tags)} tags"
    )
