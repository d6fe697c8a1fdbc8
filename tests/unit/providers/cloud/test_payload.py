"""A payload is read by a call that may outlast its owner."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.support.cloud import image_of, picture
from tests.support.polling import eventually
from tests.support.processes import open_descriptors
from worker.images.content import Content
from worker.providers.cloud.payload import Payload


@pytest.mark.parametrize("cancelled", [False, True])
async def test_one_that_is_closed_while_it_is_read_is_read_to_its_end(
    cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, go_on, began = picture(1), threading.Event(), threading.Event()
    original, read = Content.read, []

    def slowly(content: Content) -> bytes:
        began.set()
        go_on.wait(20)
        read.append(original(content))
        return read[-1]

    monkeypatch.setattr(Content, "read", slowly)
    image = image_of(data)
    await asyncio.to_thread(int)  # the threads' own descriptors are there
    before = open_descriptors()
    owned = Payload(image, None).owned()
    reading = asyncio.create_task(owned.read())
    await eventually(began.is_set, "it is being read")
    if cancelled:
        reading.cancel()
        await asyncio.wait({reading})
    owned.close()
    # Given that its number is another file's meanwhile
    others = [Content.from_bytes(b"another tenant's image", "test") for _ in range(4)]
    go_on.set()
    await eventually(lambda: read, "it has been read")
    assert read == [data]
    if not cancelled:
        assert await reading == data
    for other in others:
        other.close()
    await eventually(lambda: open_descriptors() == before, "every descriptor is closed")
