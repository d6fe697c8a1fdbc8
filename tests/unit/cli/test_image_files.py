"""Which files below a folder are images, and in which order."""

from __future__ import annotations

import os
from pathlib import Path

from worker.cli.image_files import ImageFiles

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 100


def made(folder: Path, *names: bytes, content: bytes = JPEG) -> None:
    for name in names:
        file = folder / os.fsdecode(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def test_images_are_found_by_their_bytes_in_the_order_of_their_names_bytes(tmp_path: Path) -> None:
    made(
        tmp_path, b"b.txt", b"a/z.jpg", b"a.jpg", b"\xff.jpg", "ä/ü.jpg".encode(), b"a/b/c", b".hidden/x.jpg", b".x.jpg"
    )
    made(tmp_path, b"notes.jpg", b"a/readme", content=b"no picture")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    reports: list[str] = []
    files = ImageFiles(reports.append)
    found = [os.fsencode(each.relative_to(tmp_path)) for each in files.below(tmp_path)]
    assert found == [
        b"a/b/c",
        b"a/z.jpg",
        b"a.jpg",
        b"b.txt",
        b"linked.jpg",
        "ä/ü.jpg".encode(),
        b"\xff.jpg",
    ]
    assert (files.others, files.unreadable, reports) == (2, 0, [])


def test_what_cannot_be_read_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    made(tmp_path, b"a/1.jpg", b"c/2.jpg")
    deep = tmp_path / "b"
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # a path that is too long to be opened by its name
        os.mkdir("b" if here else "", dir_fd=here)
        below = os.open("b", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        os.mkdir("b" * 250, dir_fd=here)
        below = os.open("b" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert deep.is_dir()
    reports: list[str] = []
    files = ImageFiles(reports.append)
    assert [each.name for each in files.below(tmp_path)] == ["1.jpg", "2.jpg"]
    assert files.unreadable == 1
    assert "File name too long" in reports[0]


def test_a_file_that_is_named_is_taken_as_it_is(tmp_path: Path) -> None:
    made(tmp_path, b"x/1.jpg", b"x/2.txt", content=b"no picture")
    named = [tmp_path / "x" / "2.txt", tmp_path / ("y" * 300), tmp_path / "x"]
    files = ImageFiles(lambda _line: None)
    assert list(files.named(named)) == named[:2]
    assert files.others == 2
