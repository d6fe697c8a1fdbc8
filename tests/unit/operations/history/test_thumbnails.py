"""Thumbnails are bulk work: they hold up no image, and the images of a backlog do not wait for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest

from tests.support.polling import eventually
from worker.images.content import Content, MemoryFile
from worker.images.requests import JpegLimits
from worker.operations.history import History, Thumbnail
from worker.operations.history.thumbnails import Thumbnails
from worker.supervision.decoder_pool import DecoderPool
from worker.supervision.turns import FairQueue, Precedence, Turn


@dataclass(eq=False)
class Image:
    turn: Turn
    queued_at_s: float = 0.0
    wanted: bool = True


class Decoders:
    """One decoder that is busy for as long as the test wants, behind the pool's own queue and precedence."""

    def __init__(self) -> None:
        self.precedence = Precedence()
        self.queue: FairQueue[Image] = FairQueue(self.precedence, lambda: None)
        self.turns: list[Turn] = []
        self.go_on = asyncio.Event()
        self.waiting = self.at_work = 0

    async def shrink(self, _content: Content, _limits: JpegLimits, _asset: str, turn: Turn) -> bytes:
        self.turns.append(turn)
        self.at_work += 1
        try:
            with self.precedence.present(Image(turn)):
                await self.go_on.wait()
        finally:
            self.at_work -= 1
        return b"jpeg"


@asynccontextmanager
async def thumbnail(decoders: Decoders) -> AsyncIterator[Thumbnail]:
    """A thumbnail that a decoder has begun."""
    thumbnails = Thumbnails(History(1.0), enabled=True)
    with MemoryFile() as memory:
        memory.write(b"image")
        with memory.seal("a test") as content:
            made = thumbnails.request(content, cast(DecoderPool, decoders), "asset-1", "acme")
    assert made is not None
    await eventually(lambda: decoders.turns, "it was begun")
    try:
        yield made
    finally:
        await thumbnails.close()


async def test_a_bulk_backlog_goes_on_as_fast_beside_and_after_a_thumbnail() -> None:
    decoders = Decoders()
    for _ in range(20):
        decoders.queue.append(Image(Turn("acme", bulk=True), math.inf))
    async with thumbnail(decoders) as made:
        assert decoders.queue.next_lane()[1] == 20, "beside it"
        decoders.go_on.set()
        await eventually(lambda: made.jpeg, "it was made")
        assert decoders.queue.next_lane()[1] == 20, "after it"
    assert decoders.turns == [Turn("acme", bulk=True)]


async def test_a_thumbnail_gives_up_before_it_would_go_ahead_of_live_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.operations.history.thumbnails._LONGEST_S", 0.05)
    decoders = Decoders()
    async with thumbnail(decoders) as made:
        await eventually(lambda: not decoders.at_work, "it does not wait for ever")
        assert made.jpeg is None
