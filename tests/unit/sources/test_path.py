"""A path opens files below the configured roots and nothing else."""

from __future__ import annotations

import os
import socket
import unicodedata
from pathlib import Path

import pytest

from tests.support.processes import all_descriptors_taken, open_descriptors
from worker.errors import AutotagError, CannotBeDone, ResourceExhausted, TryLater
from worker.images.content import Content
from worker.settings import SourcesSettings
from worker.sources.path import open_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/photos").mkdir(parents=True)
    (tmp_path / "root/photos/a.jpg").write_bytes(b"image a")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "root"


def opened(path: str | Path, *roots: Path, **settings: object) -> Content:
    return open_path(str(path), SourcesSettings(path_roots=roots, **settings))


def refused(path: str | Path, *roots: Path, **settings: object) -> AutotagError:
    before = open_descriptors()
    with pytest.raises(AutotagError) as caught:
        opened(path, *roots, **settings)
    assert open_descriptors() == before, "a descriptor was left open"
    return caught.value


@pytest.mark.parametrize("path", ["photos/a.jpg", "photos/../photos/./a.jpg", "{root}/photos/a.jpg"])
def test_a_file_below_a_root_is_opened_for_reading_only(root: Path, path: str) -> None:
    path = path.format(root=root)

    with opened(path, root) as content:
        assert (content.read(), content.size_bytes, content.origin) == (b"image a", 7, f"path {path}")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(content.fd, b"x")


def test_without_a_descriptor_for_a_file_the_machine_is_blamed_and_not_the_file(root: Path) -> None:
    with all_descriptors_taken(), pytest.raises(ResourceExhausted) as caught:
        opened("photos/a.jpg", root)
    assert caught.value.reason == "resources_exhausted"


@pytest.mark.parametrize(("stored", "published"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_or_decomposed(root: Path, stored: str, published: str) -> None:
    name = "Übung é.jpg"
    (root / unicodedata.normalize(stored, name)).write_bytes(b"image")  # type: ignore[arg-type]
    with opened(unicodedata.normalize(published, name), root) as content:  # type: ignore[arg-type]
        assert content.read() == b"image"
    # And the exact name comes first
    (root / unicodedata.normalize(published, name)).write_bytes(b"exact")  # type: ignore[arg-type]
    with opened(unicodedata.normalize(published, name), root) as content:  # type: ignore[arg-type]
        assert content.read() == b"exact"


def test_a_missing_file_whose_other_spelling_is_too_long_is_missing(root: Path) -> None:
    assert refused("é" * 120 + ".jpg", root).reason == "content_missing"
    assert refused("é" * 130 + ".jpg", root).reason == "path_invalid"


def test_a_relative_path_is_looked_for_below_each_root_in_order(root: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / "b.jpg").write_bytes(b"image b")
    (second / "photos").mkdir()
    (second / "photos/a.jpg").write_bytes(b"another")

    with opened("b.jpg", root, second) as b, opened("photos/a.jpg", root, second) as a:
        assert (a.read(), b.read()) == (b"image a", b"image b")


def test_links_that_stay_below_a_root_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "inside").symlink_to(root / "photos")
    (tmp_path / "alias").symlink_to(root)

    links: list[tuple[str | Path, Path]] = [
        ("inside/a.jpg", root),
        ("photos/a.jpg", tmp_path / "alias"),
        (tmp_path / "alias/photos/a.jpg", tmp_path / "alias"),
    ]
    for path, below in links:
        with opened(path, below) as content:
            assert content.read() == b"image a"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "photos/../../secret.txt",
        "{tmp}/secret.txt",
        "/etc/passwd",
        "{root}-other/x",
        "../../no/such",
        "/proc/self/environ",
    ],
)
def test_a_path_that_leads_outside_is_refused_whether_the_file_exists_or_not(
    root: Path, tmp_path: Path, path: str
) -> None:
    error = refused(path.format(tmp=tmp_path, root=root), root)

    assert isinstance(error, CannotBeDone)
    assert error.reason == "path_outside_roots"
    assert "sources.path_roots" in str(error)


def test_a_link_that_leads_outside_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to("..")
    (root / "magic").symlink_to("/proc/self/environ")

    for path in ("link", "up/secret.txt", "magic"):
        assert refused(path, root).reason == "path_outside_roots"


def test_a_file_that_is_exchanged_for_a_link_after_it_was_found_gives_the_file_that_was_checked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an attacker who exchanges the file for a link to a secret right after it was checked
    readlink = os.readlink

    def readlink_then_exchange(path: str) -> str:
        real = readlink(path)
        (root / "photos/a.jpg").unlink()
        (root / "photos/a.jpg").symlink_to(tmp_path / "secret.txt")
        return real

    monkeypatch.setattr(os, "readlink", readlink_then_exchange)
    # When it is opened, then the file that was checked is what is read
    with opened("photos/a.jpg", root) as content:
        assert (root / "photos/a.jpg").read_text() == "secret"
        assert content.read() == b"image a"


def test_without_roots_every_path_is_refused_with_what_to_set(root: Path) -> None:
    error = refused(root / "photos/a.jpg")

    assert (type(error), error.reason) == (CannotBeDone, "path_no_roots")
    assert "sources.path_roots" in str(error)


def test_a_missing_file_may_be_there_later(root: Path) -> None:
    for path in ("photos/none.jpg", "photos/a.jpg/below-a-file", root / "none"):
        error = refused(path, root)
        assert (type(error), error.reason) == (TryLater, "content_missing")
        assert str(path) in str(error)


def test_what_is_no_file_is_refused_and_nothing_hangs(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        for path, kind in [("pipe", "named pipe"), ("photos", "directory"), ("socket", "socket")]:
            error = refused(path, root)
            assert (type(error), error.reason) == (CannotBeDone, "path_not_a_file")
            assert kind in str(error)
    assert "device" in str(refused("/dev/null", Path("/dev")))


def test_size_limits_hold_before_anything_is_read(root: Path) -> None:
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    (root / "empty").touch()

    assert refused("sparse", root).reason == "content_too_large"
    assert refused("photos/a.jpg", root, maximum_bytes=6).reason == "content_too_large"
    assert refused("empty", root).reason == "content_empty"
    with opened("photos/a.jpg", root, maximum_bytes=7) as content:
        assert content.size_bytes == 7


@pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000, "loop"])
def test_an_unusable_path_is_refused(root: Path, path: str) -> None:
    (root / "loop").symlink_to("loop")

    error = refused(path, root)

    assert (type(error), error.reason) == (CannotBeDone, "path_invalid")
    assert len(str(error)) < 400


def test_a_file_that_may_not_be_read_may_be_readable_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom no file mode stops: the kernel's refusal is simulated.
    real_open = os.open

    def open_without_permission(path: str, flags: int) -> int:
        if flags & os.O_PATH:
            return real_open(path, flags)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", open_without_permission)
    error = refused("photos/a.jpg", root)

    assert (type(error), error.reason) == (TryLater, "content_refused")
