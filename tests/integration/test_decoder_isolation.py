"""An image that has taken its decoder over meets no image of another instance, and does not outlive its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.support.exploited_decoder import ATTEMPTS, EXPLOIT
from tests.support.pictures import written
from tests.support.polling import eventually
from worker.children.fork_server import MAXIMUM_PROCESSES
from worker.errors import CannotBeDone
from worker.images.content import Content
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool
from worker.supervision.turns import Turn

CHILD = Path(__file__).parents[1] / "support/exploited_decoder.py"
PHOTO = written(Image.new("RGB", (64, 48), "red"), "JPEG")
DENIED = ("EPERM", "EACCES")


@asynccontextmanager
async def exploited(**options: Any) -> AsyncIterator[DecoderPool]:
    chosen = DecoderOptions(**options)
    spec = DecoderPool(chosen)._spec
    async with DecoderPool(chosen, spec=replace(spec, command=(sys.executable, str(CHILD)))) as pool:
        await pool.wait_started()
        yield pool


async def inspect(pool: DecoderPool, data: bytes, instance: str) -> str:
    """The format of an image, or the words of its refusal."""
    with Content.from_bytes(data, "body") as content:
        try:
            return (await pool.inspect(content, "an image", Turn(instance))).format
        except CannotBeDone as refusal:
            return str(refusal).partition("(body): ")[2]


async def take_over(pool: DecoderPool, instance: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await inspect(pool, EXPLOIT, instance))
    return found


def of_server(pool: DecoderPool) -> list[int]:
    """The processes of the decoder's images."""
    (server,) = (state.pid for state in pool.states())
    return [child.pid for child in psutil.Process(server).children(recursive=True)]


async def test_what_an_image_leaves_behind_sees_the_images_of_its_own_instance_and_no_other() -> None:
    async with exploited() as pool:
        await take_over(pool, "a")
        # The same code where it can see: its own instance's images
        assert (await inspect(pool, PHOTO, "a")).startswith(f"seen {PHOTO[:16].hex()}")
        for instance in ("b", "c", "b"):
            assert await inspect(pool, PHOTO, instance) == "JPEG"
        assert (await inspect(pool, PHOTO, "a")).startswith("seen"), "it is still there"


async def test_with_a_process_for_each_image_it_sees_none_and_does_not_outlive_its_own() -> None:
    async with exploited(isolation="image") as pool:
        found = await take_over(pool, "a")
        assert await inspect(pool, PHOTO, "a") == "JPEG"
        assert found["pid"] not in of_server(pool)


async def test_it_can_harm_nobody_in_the_strictest_sandbox_and_can_without_it() -> None:
    async with exploited(sandbox="off") as pool:
        found = await take_over(pool, "a")
        os.kill(found["pid"], signal.SIGKILL)  # it may have left its group, and outlive its server
        assert found.pop("connect") == "ECONNREFUSED"
        undone = {what for what in ATTEMPTS if what in found and found[what] != "done"}
        assert undone <= {"have more memory"}, "otherwise a denial below would prove nothing"
    async with exploited() as pool:
        if pool.states()[0].hello["sandbox"] != "seccomp":
            pytest.skip("this machine lacks Landlock or libseccomp")
        found = await take_over(pool, "a")
        assert {what: found[what] for what in ATTEMPTS if found[what] not in DENIED} == {}
        assert found["descriptors"] == 2, "its socket, and its image"


async def test_a_process_has_only_its_own_images_descriptors_however_many_were_open() -> None:
    async with exploited() as pool:
        for number in range(MAXIMUM_PROCESSES + 4):
            assert await inspect(pool, PHOTO, f"instance-{number}") == "JPEG"
        found = await take_over(pool, "late")
        assert found["descriptors"] == 2
        assert len(of_server(pool)) <= MAXIMUM_PROCESSES


async def test_an_instances_processes_are_stopped_while_it_has_no_image_and_end_with_their_server() -> None:
    async with exploited() as pool:
        await take_over(pool, "a")
        (pid,) = of_server(pool)
        await eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it is stopped")
        (server,) = (state.pid for state in pool.states())
        psutil.Process(server).kill()
        await eventually(lambda: not psutil.pid_exists(pid), "it has ended too")
        assert await inspect(pool, PHOTO, "a") == "JPEG"


async def test_an_instances_process_is_stopped_before_anothers_image_is_begun() -> None:
    async with exploited() as pool:
        found = await take_over(pool, "a")
        assert await inspect(pool, PHOTO, "b") == "JPEG"
        # The signal is there: it runs no more, though on a busy machine the kernel takes a moment to say so.
        process = psutil.Process(found["pid"])
        await eventually(lambda: process.status() == psutil.STATUS_STOPPED, "it is stopped")
        assert (await inspect(pool, PHOTO, "a")).startswith("seen"), "it goes on for its own"


async def test_many_instances_at_once_are_all_served() -> None:
    async with exploited(children=2) as pool:
        answers = await asyncio.gather(*(inspect(pool, PHOTO, f"instance-{number % 40}") for number in range(200)))
        assert set(answers) == {"JPEG"}
