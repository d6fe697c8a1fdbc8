"""Thumbnails for the status page, made beside the pipeline: late, few, and never when an image waits for a decoder.

An event does not wait for its thumbnail. What a thumbnail needs is a second descriptor for the image, which lives on
when the event has ended; few are held at a time, since an image that came in a message takes memory for as long.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace

import structlog

from worker.images.content import Content
from worker.supervision.decoder_pool import DecoderCrew
from worker.errors import AutotagError
from worker.operations.history import History, Picture
from worker.images.requests import JpegLimits

_log = structlog.get_logger(__name__)

THUMBNAIL = JpegLimits(maximum_bytes=24 << 10, maximum_width=192, maximum_height=192)
"""Sharp at 96 points on a dense screen, and a few kilobytes."""

_TRIES = 10
_PAUSE_S = 0.2
"""Between two looks whether a decoder is free; then it is left at that."""

_MOST_HELD = 12
_MOST_HELD_BYTES = 32 << 20


class Album:
    """Gives a place in the record's list of answers and, if `thumbnails`, has its picture made."""

    def __init__(self, history: History, *, thumbnails: bool) -> None:
        self._history = history
        self._thumbnails = thumbnails
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_bytes = 0

    def picture(self, content: Content, decoders: DecoderCrew, asset: str) -> Picture | None:
        """The place of an image that has been looked at; None when too many come for people to follow."""
        picture = self._history.answers.admit(time.monotonic())
        if picture is None or not self._thumbnails:
            return picture
        if len(self._tasks) >= _MOST_HELD or self._held_bytes + content.size_bytes > _MOST_HELD_BYTES:
            return picture
        own = replace(content, fd=os.dup(content.fd))
        task = asyncio.create_task(self._make(picture, own, decoders, asset), name="thumbnail")
        self._tasks.add(task)
        self._held_bytes += own.size_bytes

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._held_bytes -= own.size_bytes
            own.close()

        task.add_done_callback(done)
        return picture

    async def close(self) -> None:
        """Make no more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _make(self, picture: Picture, content: Content, decoders: DecoderCrew, asset: str) -> None:
        async with self._one_at_a_time:
            for _ in range(_TRIES):
                if not decoders.waiting:
                    break
                await asyncio.sleep(_PAUSE_S)
            else:
                return
            try:
                picture.jpeg = await decoders.shrink(content, THUMBNAIL, asset)
            except AutotagError as error:
                _log.debug("no thumbnail", asset_id=asset, reason=error.reason)
