"""Content inside a message, and calls that hang."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.polling import eventually
from tests.support.processes import open_descriptors
from worker import sources
from worker.errors import CannotBeDone, TryLater
from worker.images.content import Content
from worker.messages import Event, read_event
from worker.settings import SourcesSettings
from worker.sources import Sources
from worker.sources.blocking import BlockingCalls, NoThreadFree
from worker.sources.network import CheckedNetwork, system_resolver
from worker.sources.path import open_below


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

    def open_slowly(root: str, path: str, settings: SourcesSettings) -> Content | None:
        released.wait(20)
        return open_below(root, path, settings)

    monkeypatch.setattr(sources, "open_below", open_slowly)
    before = open_descriptors()
    # When it is opened, then the call ends with the timeout
    with pytest.raises(TryLater, match="does the file server answer") as caught:
        await open_message(in_json({"path": "a"}), "application/json", path_roots=[tmp_path], total_timeout_s=0.05)
    assert caught.value.reason == "content_unreachable"
    # And the file that is opened too late is closed
    released.set()
    await eventually(lambda: open_descriptors() <= before, "the descriptor is closed")


def event_for(path: Path | str) -> Event:
    return read_event(in_json({"path": str(path)}), "application/json", {"asset_id": "1"}, None).event


class HungServer:
    """What opens files: below the directory `hung` that lasts until the test lets go, and `opened` counts there."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hangs = threading.Event()
        self.opened = 0
        self.hung, self.healthy, self.beside = (tmp_path / name for name in ("hung", "healthy", "hung-archive"))
        for root in (self.hung, self.healthy, self.beside):
            root.mkdir()
            (root / f"in {root.name}").write_bytes(b"image")
        self.sources = Sources(2, failures=3, circuit_open_s=0.01)
        self.settings = SourcesSettings(path_roots=(self.hung, self.healthy, self.beside))
        monkeypatch.setattr(sources, "open_below", self._open)

    def _open(self, root: str, path: str, settings: SourcesSettings) -> Content | None:
        if root == str(self.hung):
            self.opened += 1
            self.hangs.wait(30)
        return open_below(root, path, settings)

    async def read(self, path: Path | str, *, relative_to_hung: bool = True, within_s: float = 10) -> bytes:
        roots = self.settings.path_roots
        if not relative_to_hung:
            roots = (*roots[1:], roots[0])
        settings = self.settings.model_copy(update={"path_roots": roots, "total_timeout_s": within_s})
        with await self.sources.open_content(event_for(path), None, settings) as content:
            return content.read()

    async def may_be_probed(self) -> None:
        circuit = self.sources._breakers.of("default", str(self.hung))
        await eventually(lambda: circuit.half_open, "its circuit is half open")

    async def fail(self, path: Path | str) -> TryLater:
        with pytest.raises(TryLater) as caught:
            await self.read(path, within_s=0.2)
        return caught.value


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HungServer]:
    server = HungServer(tmp_path, monkeypatch)
    yield server
    server.hangs.set()


async def test_a_root_that_hangs_leaves_the_other_roots_of_the_same_instance_alone(server: HungServer) -> None:
    # Given a root that hangs, and far more events for it than there are threads
    errors = [await server.fail(server.hung / "a") for _ in range(15)]
    await server.may_be_probed()
    errors += [await server.fail(server.hung / "a") for _ in range(15)]
    # Then the first ones are counted, and no more: the others are not tried
    assert [error.counted for error in errors] == [True] * 3 + [False] * 27
    assert {error.reason for error in errors[3:]} == {"source_circuit_open"}
    assert server.opened == 3, "a call that hangs shows enough, and no probe takes one more thread"
    # And other roots are as they were, also the one whose name begins with the same letters
    assert await server.read(server.healthy / "in healthy") == b"image"
    assert await server.read(server.beside / "in hung-archive") == b"image"
    # When the server answers again, then its files are opened again
    server.hangs.set()
    await eventually(lambda: not server.sources._file_calls._busy, "the calls have come back")
    assert await server.read(server.hung / "in hung") == b"image"


async def test_a_relative_path_asks_the_roots_in_turn_and_none_that_comes_later(server: HungServer) -> None:
    assert await server.read("in healthy", relative_to_hung=False) == b"image"
    assert server.opened == 0
    # A root that comes first may have the file: nobody knows while it hangs
    assert [(await server.fail("in healthy")).counted for _ in range(4)] == [True, True, True, False]
    assert await server.read("in healthy", relative_to_hung=False) == b"image"


async def test_a_root_is_probed_beside_an_old_call_that_hangs(
    server: HungServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        await server.fail(server.hung / "a")
    await server.may_be_probed()
    monkeypatch.setattr(sources, "_PROBE_BESIDE_HUNG_S", 0.0)
    await server.fail(server.hung / "a")
    assert server.opened == 4, "what was detached never comes back, and another may be mounted in its place"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN])
async def test_a_file_server_that_answers_with_errors_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "a").write_bytes(b"image")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("worker.sources.path.os.readlink", fail)
    errors = []
    async with Sources(2, failures=3) as some:
        for _ in range(5):
            with pytest.raises(TryLater) as caught:
                await some.open_content(event_for("a"), None, SourcesSettings(path_roots=(tmp_path,)))
            errors.append(caught.value)
    assert [(error.reason, error.counted) for error in errors] == [
        *[("content_unreachable", True)] * 3,
        *[("source_circuit_open", False)] * 2,
    ]


async def test_names_are_looked_up_again_when_threads_are_free_and_nobody_is_blamed_meanwhile() -> None:
    released = threading.Event()
    calls = BlockingCalls(1)
    with pytest.raises(TimeoutError):
        await calls.call(released.wait, timeout_s=0.01, discard=lambda _: None, holder="images.test")
    with pytest.raises(TimeoutError):
        await calls.call(released.wait, timeout_s=0.01, discard=lambda _: None, holder="images.test")
    network = CheckedNetwork(system_resolver(calls), allow_private=True)
    with pytest.raises(NoThreadFree) as caught:
        await network.connect_tcp("images.test", 80)
    released.set()
    assert not caught.value.counted


async def test_calls_that_never_come_back_are_bounded() -> None:
    # Given as many hung calls as are allowed
    released = threading.Event()
    calls = BlockingCalls(2)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await calls.call(released.wait, timeout_s=0.01, discard=lambda _: None)
    # Then another one is refused at once
    with pytest.raises(NoThreadFree, match="every thread"):
        await calls.call(lambda: True, timeout_s=60, discard=lambda _: None)
    # Until they come back
    released.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await calls.call(lambda: True, timeout_s=5, discard=lambda _: None)
                break
            except NoThreadFree:
                await asyncio.sleep(0.01)


async def test_an_error_in_a_thread_reaches_the_waiting_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        await BlockingCalls(1).call(lambda: 1 / 0, timeout_s=5, discard=lambda _: None)
