"""Thumbnails for the status page, made beside the pipeline: late, few, and never while an image waits for a decoder.

An event does not wait for its thumbnail. A thumbnail task holds a second descriptor of the image, which stays open
after the event has ended. Few are held at a time, because an image that came in a message occupies memory until then.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from worker.errors import AutotagError
from worker.images.content import Content
from worker.images.requests import JpegLimits
from worker.operations.history import History, Thumbnail
from worker.supervision.turns import Turn

if TYPE_CHECKING:
    from worker.supervision.decoder_pool import DecoderPool

_log = structlog.get_logger(__name__)

THUMBNAIL = JpegLimits(maximum_bytes=24 << 10, maximum_width=192, maximum_height=192)
"""Sharp at 96 CSS pixels on a high-density screen, and a few kilobytes in size."""

_CHECKS = 10
_CHECK_INTERVAL_S = 0.2
"""Checks whether any image waits for a decoder; if so at the last one too, no thumbnail is made."""

_LONGEST_S = 10.0
"""For the decoder's turn and its work: less than what would let bulk work go before live images (`OVERDUE_S`)."""

_MAXIMUM_PENDING = 12
_MAXIMUM_PENDING_BYTES = 32 << 20


class Thumbnails:
    """Admits images to the list of recent results and, if `enabled`, has a thumbnail made for each."""

    def __init__(self, history: History, *, enabled: bool) -> None:
        self._history = history
        self._enabled = enabled
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_bytes = 0

    def request(self, content: Content, decoders: DecoderPool, asset: str, instance: str) -> Thumbnail | None:
        """The thumbnail of an image that has been tagged; None if results come too fast for people to follow.

        For the decoders it is bulk work of the event's instance, whether the image was live or not.
        """
        thumbnail = self._history.results.admit(time.monotonic())
        if thumbnail is None or not self._enabled:
            return thumbnail
        if len(self._tasks) >= _MAXIMUM_PENDING or self._pending_bytes + content.size_bytes > _MAXIMUM_PENDING_BYTES:
            return thumbnail
        try:
            copy = replace(content, fd=os.dup(content.fd))
        except OSError:  # no descriptor left; the event that has just been tagged must not suffer for its thumbnail
            return thumbnail
        turn = Turn(instance, bulk=True)
        task = asyncio.create_task(self._make(thumbnail, copy, decoders, asset, turn), name="thumbnail")
        self._tasks.add(task)
        self._pending_bytes += copy.size_bytes

        def on_done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._pending_bytes -= copy.size_bytes
            copy.close()

        task.add_done_callback(on_done)
        return thumbnail

    async def close(self) -> None:
        """Cancel the pending thumbnails."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _make(
        self, thumbnail: Thumbnail, content: Content, decoders: DecoderPool, asset: str, turn: Turn
    ) -> None:
        async with self._lock:
            for _ in range(_CHECKS):
                if not decoders.waiting:
                    break
                await asyncio.sleep(_CHECK_INTERVAL_S)
            else:
                return
            try:
                async with asyncio.timeout(_LONGEST_S):
                    thumbnail.jpeg = await decoders.shrink(content, THUMBNAIL, asset, turn)
            except (AutotagError, OSError) as error:  # a TimeoutError is an OSError
                _log.debug("no thumbnail", asset_id=asset, error=str(error))
