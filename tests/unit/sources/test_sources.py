"""Content inside a message, and calls that hang."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import threading
from pathlib import Path

import pytest

from tests.support.polling import eventually
from tests.support.processes import open_descriptors
from worker import sources
from worker.errors import CannotBeDone, TryLater
from worker.images.content import Content
from worker.messages import read_event
from worker.settings import SourcesSettings
from worker.sources import Sources
from worker.sources.blocking import BlockingCalls
from worker.sources.path import open_path


def descriptors() -> int:
    gc.collect()
    return open_descriptors()


async def open_message(body: bytes, content_type: str, **settings: object) -> Content:
    read = read_event(body, content_type, {"asset_id": "1"}, None)
    async with Sources(4) as opened:
        return await opened.open_content(read.event, read.image_bytes, SourcesSettings(**settings))


def in_json(content: dict[str, str]) -> bytes:
    return json.dumps({"asset_id": "1", "content": content}).encode()


async def test_an_image_inside_the_message_is_sealed_in_memory() -> None:
    as_body = await open_message(b"GIF89a...", "image/gif")
    as_base64 = await open_message(in_json({"base64": base64.b64encode(b"GIF89a...").decode()}), "application/json")

    with as_body, as_base64:
        assert as_body.read() == as_base64.read() == b"GIF89a..."
        assert (as_body.origin, as_base64.origin) == ("message body", "base64 in the message")
        with pytest.raises(PermissionError):
            os.write(as_body.fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(as_body.fd, 0)


@pytest.mark.parametrize("settings", [{"inline_maximum_bytes": 8}, {"maximum_bytes": 8}])
async def test_a_message_holds_no_larger_image_than_is_allowed(settings: dict[str, int]) -> None:
    with pytest.raises(CannotBeDone, match="at most 8 are taken") as caught:
        await open_message(b"GIF89a...", "image/gif", **settings)
    assert caught.value.reason == "content_too_large"


async def test_an_empty_body_holds_no_image() -> None:
    with pytest.raises(CannotBeDone) as caught:
        await open_message(b"", "image/gif")
    assert caught.value.reason == "content_empty"


async def test_a_path_is_opened_through_a_thread(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"image")

    with await open_message(in_json({"path": "a"}), "application/json", path_roots=[tmp_path]) as content:
        assert content.read() == b"image"


async def test_a_file_server_that_hangs_delays_one_event_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file whose opening blocks
    released = threading.Event()
    (tmp_path / "a").write_bytes(b"image")

    def open_slowly(path: str, settings: SourcesSettings) -> Content:
        released.wait(20)
        return open_path(path, settings)

    monkeypatch.setattr(sources, "open_path", open_slowly)
    before = descriptors()
    # When it is opened, then the call ends with the timeout
    with pytest.raises(TryLater, match="does the file server answer") as caught:
        await open_message(in_json({"path": "a"}), "application/json", path_roots=[tmp_path], total_timeout_s=0.05)
    assert caught.value.reason == "content_unreachable"
    # And the file that is opened too late is closed
    released.set()
    await eventually(lambda: descriptors() <= before, "the descriptor is closed")


async def test_calls_that_never_come_back_are_bounded() -> None:
    # Given as many hung calls as are allowed
    released = threading.Event()
    calls = BlockingCalls(2)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await calls.call(released.wait, timeout_s=0.01, discard=lambda _: None)
    # Then another one is refused at once
    with pytest.raises(TimeoutError, match="every thread is taken"):
        await calls.call(lambda: True, timeout_s=60, discard=lambda _: None)
    # Until they come back
    released.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await calls.call(lambda: True, timeout_s=5, discard=lambda _: None)
                break
            except TimeoutError:
                await asyncio.sleep(0.01)


async def test_an_error_in_a_thread_reaches_the_waiting_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        await BlockingCalls(1).call(lambda: 1 / 0, timeout_s=5, discard=lambda _: None)
