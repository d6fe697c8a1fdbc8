"""Whether uploads would come in: what inlets need, and one page of what pollers list. Nothing is published or kept."""

from __future__ import annotations

from contextlib import aclosing

from worker.connect.connection import listing_of
from worker.connect.inlets.http import token_form
from worker.connect.inlets.listing import Page
from worker.connect.target_checks import ConnectionCheck
from worker.errors import AutotagError
from worker.settings import Settings
from worker.settings.cursors import NOW, moment_text


async def check_inlets(settings: Settings, only: str | None = None) -> list[ConnectionCheck]:
    """Check each connection whose inlet or poller is on."""
    found = []
    for name, connection in settings.connect.items():
        if not connection.enabled or only not in (None, name):
            continue
        if connection.inlet.enabled:
            message = (
                f"POST to /in/{name} of port {settings.connector.http.port}, with {token_form(connection.inlet)}; "
                f"its events are the instance {connection.instance}'s"
            )
            found.append(ConnectionCheck(name, "inlet", True, message))
        if connection.poll.enabled:
            found.append(await _check_poll(settings, name))
    return found


async def _check_poll(settings: Settings, name: str) -> ConnectionCheck:
    poll = settings.connect[name].poll
    try:
        client, listing = listing_of(name, settings.connect[name], settings.sources)
    except AutotagError as error:
        return ConnectionCheck(name, "poll", False, str(error))
    begin = moment_text(0) if poll.begin == NOW else poll.begin  # so that there is something to read
    try:
        async with aclosing(listing.pages(begin)) as pages:
            page = await anext(pages, None)
    except AutotagError as error:
        return ConnectionCheck(name, "poll", False, f"nothing can be listed: {error}")
    finally:
        await client.close()
    return ConnectionCheck(name, "poll", *_verdict(page))


def _verdict(page: Page | None) -> tuple[bool, str]:
    if page is None:
        return True, "it can be listed, and has no item yet by which to see whether one can be read"
    items = len(page.uploads) + page.passed_over + len(page.problems)
    said = f"of {items} items on its first page {len(page.uploads)} are images to tag, {page.passed_over} passed over"
    if not page.problems:
        return True, said
    is_fine = bool(page.uploads)
    return is_fine, f"{said}, {len(page.problems)} can't be read, as: {page.problems[0]}"
