"""Lines to a pipe, a socket or a terminal that nobody reads: writing never waits, and what is lost is counted."""

from __future__ import annotations

import os
import pty
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.polling import eventually
from worker.operations.line_writer import MAXIMUM_KEPT_BYTES, LineWriter

LINE = b"x" * 199 + b"\n"
MANY = MAXIMUM_KEPT_BYTES // len(LINE) * 2


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """Closes the ends of what a test writes to."""
    with ExitStack() as ends:
        yield ends


def pipe(ends: ExitStack) -> tuple[int, int]:
    """Reading and writing end."""
    reading, writing = os.pipe()
    ends.callback(os.close, reading)
    ends.callback(os.close, writing)
    return reading, writing


def sockets(ends: ExitStack) -> tuple[int, int]:
    """The same of a stream socket, as the journal's."""
    reading, writing = map(ends.enter_context, socket.socketpair())
    return reading.fileno(), writing.fileno()


def terminal(ends: ExitStack) -> tuple[int, int]:
    """The same of a terminal."""
    reading, writing = pty.openpty()
    ends.callback(os.close, reading)
    ends.callback(os.close, writing)
    return reading, writing


def test_nothing_waits_and_nothing_is_lost_but_what_is_beyond_the_limit(ends: ExitStack) -> None:
    for make in (pipe, sockets, terminal):
        reading, writing = make(ends)
        lost: list[int] = []
        writer = LineWriter(writing, lost.append)
        # Given twice as many lines as are kept, and nobody who reads: this returns
        for _ in range(MANY):
            writer.write_line(LINE)
        assert lost == [], "the loss is reported only when it can be read"
        # When everything is read
        read = bytearray()
        while sum(lost) + read.count(b"x" * 199) < MANY:
            read += os.read(reading, 1 << 16)
            writer.flush()
        # Then every line is whole, and the others are counted
        assert set(bytes(read).split()) == {LINE.strip()}
        assert len(lost) == 1
        assert 0 < lost[0] < MANY / 1.5


def test_the_description_that_others_share_still_blocks(ends: ExitStack) -> None:
    for make in (pipe, sockets, terminal):
        _, writing = make(ends)
        LineWriter(writing, lambda _: None).write_line(LINE)
        assert os.get_blocking(writing)


def test_a_pipe_that_cannot_be_opened_again_is_asked_for_room(ends: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    reading, writing = pipe(ends)
    lost: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        writer = LineWriter(writing, lost.append)
    long = b"y" * 9999 + b"\n"
    for _ in range(MANY // 40):
        writer.write_line(long)
    assert lost == []
    read = bytearray()
    while sum(lost) + read.count(b"\n") < MANY // 40:
        read += os.read(reading, 1 << 16)
        writer.flush()
    assert set(bytes(read).split()) == {long.strip()}


def test_a_full_device_and_a_reader_that_has_gone_cost_the_lines_and_nothing_else(ends: ExitStack) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        lost: list[int] = []
        writer = LineWriter(full.fileno(), lost.append)
        writer.write_line(LINE)
        writer.write_line(LINE)
        assert lost == []
    reading, writing = os.pipe()
    ends.callback(os.close, writing)
    os.close(reading)
    LineWriter(writing, lost.append).write_line(LINE)
    assert lost == []


def test_what_a_full_disk_has_lost_is_reported_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    with (tmp_path / "log").open("wb", buffering=0) as file:
        writer = LineWriter(file.fileno(), lost.append)
        with monkeypatch.context() as patched:
            patched.setattr(writer, "_write", _no_space)
            writer.write_line(b"one\n")
            writer.write_line(b"two\n")
        writer.write_line(b"three\n")
    assert lost == [2]
    assert (tmp_path / "log").read_bytes() == b"three\n"


def _no_space(_data: bytes) -> int:
    raise OSError(28, "No space left on device")


async def test_the_event_loop_writes_the_rest_as_soon_as_there_is_room(ends: ExitStack) -> None:
    for make in (pipe, sockets):
        reading, writing = make(ends)
        lost: list[int] = []
        writer = LineWriter(writing, lost.append)
        for _ in range(MANY):
            writer.write_line(LINE)
        os.set_blocking(reading, False)
        read = bytearray()

        def all_read(reading: int = reading, read: bytearray = read, lost: list[int] = lost) -> bool:
            with suppress(BlockingIOError):
                read += os.read(reading, 1 << 16)
            return sum(lost) + read.count(b"\n") == MANY

        await eventually(all_read, "the rest has come without another line being logged")


def test_lines_of_several_threads_stay_whole(ends: ExitStack) -> None:
    reading, writing = pipe(ends)
    writer = LineWriter(writing, lambda _: None)
    read = bytearray()

    def write(letter: bytes) -> Callable[[], None]:
        def lines() -> None:
            for _ in range(500):
                writer.write_line(letter * 199 + b"\n")

        return lines

    threads = [threading.Thread(target=write(letter)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    while read.count(b"\n") < 1500:
        read += os.read(reading, 1 << 16)
        writer.flush()
    for thread in threads:
        thread.join()
    assert set(bytes(read).split()) == {b"a" * 199, b"b" * 199, b"c" * 199}


def test_a_file_is_appended_to_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    with path.open("ab", buffering=0) as file:
        LineWriter(file.fileno(), lambda _: None).write_line(b"after\n")
        assert stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    assert path.read_bytes() == b"before\nafter\n"
