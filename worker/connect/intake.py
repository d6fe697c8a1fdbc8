"""What every inlet and poller does with an upload: seen before, or published and then noted."""

from __future__ import annotations

from enum import StrEnum

from worker.amqp.topology import Lane
from worker.connect.metrics import InMetrics
from worker.connect.outlet import Outlet
from worker.connect.seen import SeenImages
from worker.connect.uploads import Upload


class UploadOutcome(StrEnum):
    """What became of what was said about an image."""

    PUBLISHED = "published"
    SEEN = "seen"
    """The same image with the same content mark was published before."""
    PASSED_OVER = "passed_over"
    """`accept` is not true of it."""
    REFUSED = "refused"
    """It can't be read as an upload."""


class UploadIntake:
    """Takes the uploads of one connection."""

    def __init__(self, connection: str, lane: Lane, outlet: Outlet, seen: SeenImages, metrics: InMetrics) -> None:
        self.connection = connection
        self._lane = lane
        self._outlet = outlet
        self._seen = seen
        self._metrics = metrics

    async def take(self, upload: Upload, *, within_s: float) -> UploadOutcome:
        """Publish an upload, unless it was seen. Raises NotPublished; then nothing is noted."""
        if upload.mark is not None and self._seen.has(self.connection, upload.asset_id, upload.mark):
            self.count(UploadOutcome.SEEN)
            return UploadOutcome.SEEN
        await self._outlet.publish(upload, self._lane, within_s=within_s)
        if upload.mark is not None:
            self._seen.note(self.connection, upload.asset_id, upload.mark)
        self.count(UploadOutcome.PUBLISHED)
        return UploadOutcome.PUBLISHED

    def count(self, outcome: UploadOutcome) -> None:
        """Count what became of one message or item."""
        self._metrics.uploads.labels(self.connection, outcome.value).inc()
