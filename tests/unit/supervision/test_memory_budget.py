"""Memory that images wait for: never more is lent than there is, and the instances take turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from worker.supervision.memory_budget import MemoryBudget, TooLittleMemory
from worker.supervision.turns import Turn

A, B, BULK = Turn("a"), Turn("b"), Turn("a", bulk=True)


class Images:
    """Images that get memory, in the order in which they do, and keep it until `end`."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self.begun: list[str] = []
        self.most_bytes = 0
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, size_bytes: int, turn: Turn = A) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, size_bytes, turn))
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.tasks[name]
        await settle()

    async def _run(self, name: str, size_bytes: int, turn: Turn) -> None:
        async with self.budget.lent(size_bytes, turn):
            self.begun.append(name)
            self.most_bytes = max(self.most_bytes, self.budget.lent_bytes)
            await self._ends[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def images(total_bytes: int) -> AsyncIterator[Images]:
    them = Images(MemoryBudget(lambda: total_bytes))
    yield them
    for task in them.tasks.values():
        task.cancel()
    await asyncio.gather(*them.tasks.values(), return_exceptions=True)
    assert them.budget.lent_bytes == 0
    assert len(them.budget) == 0


async def test_never_more_is_lent_than_there_is_and_a_small_one_does_not_go_past_a_large_one_that_waits() -> None:
    async with images(10) as them:
        await them.begin("first", 6)
        await them.begin("large", 8, B)
        await them.begin("small", 2, B)
        assert them.begun == ["first"]
        await them.end("first")
        assert them.begun == ["first", "large", "small"]
        assert them.most_bytes == 10


async def test_the_instances_take_turns_and_bulk_images_come_last() -> None:
    async with images(10) as them:
        await them.begin("a0", 10)
        await them.begin("bulk", 10, BULK)
        for number in (1, 2, 3):
            await them.begin(f"a{number}", 10)
        await them.begin("b1", 10, B)
        for name in ("a0", "a1", "b1", "a2", "a3"):
            await them.end(name)
        assert them.begun == ["a0", "a1", "b1", "a2", "a3", "bulk"]


async def test_what_takes_more_than_there_is_is_refused_at_once_and_holds_nobody_up() -> None:
    async with images(10) as them:
        await them.begin("first", 6)
        with pytest.raises(TooLittleMemory) as refused:
            await them.budget.lent(11, A).__aenter__()
        assert refused.value.total_bytes == 10
        await them.begin("second", 4)
        assert them.begun == ["first", "second"]


async def test_one_that_is_called_off_takes_nothing() -> None:
    async with images(10) as them:
        await them.begin("first", 6)
        await them.begin("second", 6)
        them.tasks["second"].cancel()
        await settle()
        await them.begin("third", 4, B)
        assert them.begun == ["first", "third"]
        await them.end("first")


async def test_a_limit_that_is_lowered_is_followed() -> None:
    total = 10
    budget = MemoryBudget(lambda: total)
    async with budget.lent(6, A):
        waiting = asyncio.create_task(budget.lent(8, B).__aenter__())
        await settle()
        total = 7
    with pytest.raises(TooLittleMemory):
        await waiting


async def test_nothing_is_asked_for_what_every_decoder_has() -> None:
    async with MemoryBudget(lambda: 0).lent(0, A):
        pass
