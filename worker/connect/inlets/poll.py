"""The poller: publishes what a listing finds, and remembers how far it has come.

The cursor moves on only when everything of a page is published. What fails is tried again, later each time; an item
that can't be read is logged, counted and passed over, as it would stop all that come after it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from worker.amqp.errors import NotPublished, Unpublishable
from worker.connect.inlets.listing import Listing, NoListing, Page
from worker.connect.intake import UploadIntake, UploadOutcome
from worker.connect.metrics import InMetrics
from worker.connect.seen import SeenImages
from worker.connect.targets.base import TargetBusy
from worker.connect.uploads import Upload
from worker.errors import AutotagError
from worker.settings.cursors import Cursor

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 50
_CONFIRM_WITHIN_S: Final = 30.0
_BROKER_PAUSE_S: Final = 1.0
_LONGEST_PAUSE: Final = 10
"""As a multiple of `every_s`."""


@dataclass(frozen=True, slots=True)
class PollTrouble:
    """Why a poller does not get on: a fixed word, a sentence, since when (wall clock, seconds)."""

    reason: str
    message: str
    since_s: float


class Poller:
    """One connection's poller."""

    def __init__(
        self, listing: Listing, every_s: float, intake: UploadIntake, seen: SeenImages, metrics: InMetrics
    ) -> None:
        self._listing = listing
        self._every_s = every_s
        self._intake = intake
        self._seen = seen
        self._metrics = metrics
        self._asked_s = 0.0
        self._cursor: str | None = None
        self.trouble: PollTrouble | None = None
        self.last_complete_s: float | None = None

    async def run(self) -> None:
        """List again and again, until cancelled."""
        try:
            await self._run()
        finally:
            self._show(None)

    async def _run(self) -> None:
        name, failures = self._intake.connection, 0
        while True:
            try:
                await self.list_once()
            except AutotagError as error:
                failures += 1
                self._note(error)
            except Exception as error:  # noqa: BLE001 - a bug of ours must not leave a poller that does nothing
                failures += 1
                _log.exception("unexpected error while listing", connection=name)
                self._note(NoListing(f"unexpected {type(error).__name__}: {error}", reason="internal_error"))
            else:
                failures = 0
                self._done()
            asked_s = 0.0 if self.trouble is None else self._asked_s
            pause = self._every_s * min(2.0 ** max(0, failures - 1), _LONGEST_PAUSE)
            await asyncio.sleep(max(pause, asked_s))

    async def list_once(self) -> None:
        """List everything that is new, and publish it. Raises as `Listing`."""
        name = self._intake.connection
        begun = self._begin()
        async with aclosing(self._listing.pages(begun)) as pages:
            async for page in pages:
                await self._publish(page)
                self._require_memory()
                if self._seen.cursor(name) != begun:
                    _log.info("the listing ends here and begins where its cursor was set", connection=name)
                    return
                if page.cursor is not None and (begun is None or _is_later(page.cursor, begun)):
                    begun = self._keep(page.cursor)

    def _begin(self) -> str | None:
        """Where to begin; None only if nothing was ever kept: what is not read for a fault is no first listing."""
        self._require_memory()
        found = self._seen.cursor(self._intake.connection)
        self._require_memory()
        if found is None and self._cursor is not None:  # the file was lost while we ran
            return self._keep(self._cursor)
        self._cursor = found
        return found

    def _keep(self, cursor: str) -> str:
        self._seen.set_cursor(self._intake.connection, cursor)
        self._cursor = cursor
        return cursor

    def _require_memory(self) -> None:
        """Raise while nothing can be noted: each listing would publish everything once more."""
        if self._seen.fault is not None or not self._seen.can_keep():
            self._seen.can_keep()  # which opens it again, for the next listing
            raise NoListing(
                f"nothing is listed while what was seen can't be kept: {self._seen.fault or 'it could not be read'}",
                reason="seen_not_writable",
            )

    async def _publish(self, page: Page) -> None:
        for problem in page.problems:
            self._intake.count(UploadOutcome.REFUSED)
            _log.warning("an item of a listing is no upload", connection=self._intake.connection, why=str(problem))
        for _ in range(page.passed_over):
            self._intake.count(UploadOutcome.PASSED_OVER)
        for first in range(0, len(page.uploads), _AT_ONCE):
            await asyncio.gather(*map(self._take, page.uploads[first : first + _AT_ONCE]))

    async def _take(self, upload: Upload) -> None:
        """Until it is published, however long RabbitMQ takes."""
        while True:
            try:
                await self._intake.take(upload, within_s=_CONFIRM_WITHIN_S)
            except Unpublishable as error:
                self._intake.count(UploadOutcome.REFUSED)
                _log.warning("an item of a listing can't be published", asset=upload.asset_id, why=str(error))
                return
            except NotPublished:
                await asyncio.sleep(_BROKER_PAUSE_S)
            else:
                return

    def _note(self, error: AutotagError) -> None:
        self._asked_s = error.after_s if isinstance(error, TargetBusy) else 0.0
        reason = error.reason or "listing_failed"
        self._metrics.polls.labels(self._intake.connection, reason).inc()
        if self.trouble is None or self.trouble.reason != reason:
            self._show(PollTrouble(reason, str(error), time.time()))
            _log.error("a listing failed", connection=self._intake.connection, reason=reason, why=str(error))

    def _show(self, trouble: PollTrouble | None) -> None:
        gauge, name = self._metrics.poll_trouble, self._intake.connection
        if self.trouble is not None:
            gauge.remove(name, self.trouble.reason)
        self.trouble = trouble
        if trouble is not None:
            gauge.labels(name, trouble.reason).set(1)

    def _done(self) -> None:
        if self.trouble is not None:
            _log.info("listing works again", connection=self._intake.connection)
        self._show(None)
        self.last_complete_s = time.time()
        self._metrics.polls.labels(self._intake.connection, "complete").inc()
        self._metrics.last_poll_s.labels(self._intake.connection).set(self.last_complete_s)


def _is_later(cursor: str, known: str) -> bool:
    """Whether a cursor is behind a known one; also where both are of different kinds, or the known one is none."""
    try:
        before = Cursor.of(known)
    except ValueError:
        return True
    after = Cursor.of(cursor)
    return after.is_time is not before.is_time or after > before
