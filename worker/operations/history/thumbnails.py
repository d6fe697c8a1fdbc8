"""Thumbnails for the status page, made beside the pipeline: late, few, and never when an image waits for a decoder.

An event does not wait for its thumbnail. What a thumbnail needs is a second descriptor for the image, which lives on
when the event has ended; few are held at a time, since an image that came in a message takes memory for as long.
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

if TYPE_CHECKING:
    from worker.supervision.decoder_pool import DecoderPool

_log = structlog.get_logger(__name__)

THUMBNAIL = JpegLimits(maximum_bytes=24 << 10, maximum_width=192, maximum_height=192)
"""Sharp at 96 points on a dense screen, and a few kilobytes."""

_TRIES = 10
_PAUSE_S = 0.2
"""Between two checks whether a decoder is free; after the last one no thumbnail is made."""

_MOST_HELD = 12
_MOST_HELD_BYTES = 32 << 20


class Thumbnails:
    """Reserves a place in the list of recent results and, if `enabled`, has a thumbnail made for it."""

    def __init__(self, history: History, *, enabled: bool) -> None:
        self._history = history
        self._enabled = enabled
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_bytes = 0

    def request(self, content: Content, decoders: DecoderPool, asset: str) -> Thumbnail | None:
        """The place of an image that has been tagged; None when too many come for people to follow."""
        thumbnail = self._history.results.admit(time.monotonic())
        if thumbnail is None or not self._enabled:
            return thumbnail
        if len(self._tasks) >= _MOST_HELD or self._held_bytes + content.size_bytes > _MOST_HELD_BYTES:
            return thumbnail
        own = replace(content, fd=os.dup(content.fd))
        task = asyncio.create_task(self._make(thumbnail, own, decoders, asset), name="thumbnail")
        self._tasks.add(task)
        self._held_bytes += own.size_bytes

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._held_bytes -= own.size_bytes
            own.close()

        task.add_done_callback(done)
        return thumbnail

    async def close(self) -> None:
        """Make no more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _make(self, thumbnail: Thumbnail, content: Content, decoders: DecoderPool, asset: str) -> None:
        async with self._one_at_a_time:
            for _ in range(_TRIES):
                if not decoders.waiting:
                    break
                await asyncio.sleep(_PAUSE_S)
            else:
                return
            try:
                thumbnail.jpeg = await decoders.shrink(content, THUMBNAIL, asset)
            except AutotagError as error:
                _log.debug("no thumbnail", asset_id=asset, reason=error.reason)
