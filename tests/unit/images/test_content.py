"""The descriptor of a content can be shared: reading does not move its offset, closing twice is harmless."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.processes import open_descriptors
from worker.images.content import Content, MemoryFile


def test_reading_does_not_move_the_offset_that_children_share() -> None:
    with Content.from_bytes(b"abcdef", "test") as content:
        assert (content.head, content.read(), content.read()) == (b"abcdef", b"abcdef", b"abcdef")
        assert os.lseek(content.fd, 0, os.SEEK_CUR) == 0


def test_large_content_is_read_whole() -> None:
    data = os.urandom(1 << 20) * 33

    with Content.from_bytes(memoryview(data), "test") as content:
        assert content.size_bytes == len(data)
        assert content.read() == data


def test_closing_twice_does_not_close_a_descriptor_of_another_owner() -> None:
    content = Content.from_bytes(b"a", "test")
    number = content.fd
    content.close()
    with Content.from_bytes(b"b", "test") as other:
        assert other.fd == number  # the number is in use again
        content.close()
        assert other.read() == b"b"


def test_a_memory_file_that_is_never_sealed_is_closed() -> None:
    before = open_descriptors()
    with MemoryFile() as memory:
        memory.write(b"x")
    assert open_descriptors() == before


def test_a_file_that_shrinks_gives_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    with Content(os.open(tmp_path / "a", os.O_RDONLY), 6, "test", b"abcdef") as content:
        os.truncate(tmp_path / "a", 2)
        assert content.read() == b"ab"
