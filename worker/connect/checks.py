"""Whether connections would work: of each listing a page is read, of each target something harmless and one asset.

Nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from worker.connect.connection import listing_of
from worker.connect.deliver import make_target
from worker.connect.inlets.listing import Page
from worker.connect.ledger import TagLedger
from worker.connect.targets.base import AssetGone, TargetAsset
from worker.errors import AutotagError
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """The outcome for one connection; the message says what to do."""

    connection: str
    is_fine: bool
    message: str


async def check_connections(
    settings: Settings, ledger: TagLedger | None, only: str | None = None
) -> list[ConnectionCheck]:
    """Check each connection whose poller or target is on."""
    checks = []
    for name, connection in settings.connect.items():
        if connection.enabled and only in (None, name):
            checks += [await _check_poll(settings, name)] if connection.poll.enabled else []
            checks += [await _check_target(settings, ledger, name)] if connection.target.enabled else []
    return checks


async def _check_poll(settings: Settings, name: str) -> ConnectionCheck:
    """List a page from now on; of a bucket, its first page."""
    try:
        client, listing = listing_of(name, settings.connect[name], settings.sources)
    except AutotagError as error:
        return ConnectionCheck(name, False, str(error))
    try:
        found = await _first(listing.pages(None), 2)  # the first of a request's only says where it begins
    except AutotagError as error:
        return ConnectionCheck(name, False, f"nothing can be listed: {error}")
    finally:
        await client.close()
    uploads = sum(len(page.uploads) for page in found)
    problems = [problem for page in found for problem in page.problems]
    if problems:
        return ConnectionCheck(name, False, f"{len(problems)} items of a page can't be read: {problems[0]}")
    return ConnectionCheck(name, True, f"its listing can be read; a page from now on has {uploads} images")


async def _check_target(settings: Settings, ledger: TagLedger | None, name: str) -> ConnectionCheck:
    try:
        target = make_target(name, settings)
    except AutotagError as error:
        return ConnectionCheck(name, False, str(error))
    try:
        await target.probe()
        asset_id = ledger.any_asset(name) if ledger is not None else None
        if asset_id is None:
            return ConnectionCheck(name, True, f"{target.origin} lets us in; no asset is known yet that could be read")
        standing = await target.read(TargetAsset(asset_id))
    except AssetGone:
        return ConnectionCheck(name, True, f"{target.origin} lets us in; the asset {asset_id} is gone")
    except AutotagError as error:
        return ConnectionCheck(name, False, f"{target.origin} would take no tags: {error}")
    finally:
        await target.close()
    return ConnectionCheck(name, True, f"{target.origin} lets us in; asset {asset_id} has {len(standing.tags)} tags")


async def _first(pages: AsyncIterator[Page], number: int) -> list[Page]:
    found: list[Page] = []
    async for page in pages:
        found.append(page)
        if len(found) == number:
            break
    return found
