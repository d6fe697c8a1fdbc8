"""Packages appear complete or not at all, and only one process at a time creates one."""

from __future__ import annotations

import errno
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.models import write_package
from worker.errors import Misconfigured
from worker.models.staging import ModelProgress, ignore_progress, intact_package, package_lock, staged_directory


def make(directory: Path) -> None:
    (directory / "model.tflite").write_bytes(b"model")
    write_package(directory, "model.tflite", ["cat"])


def test_a_package_that_was_created_is_intact_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "models" / "small"
    with package_lock(target, ignore_progress), staged_directory(target, 0) as new:
        make(new)
        assert intact_package(target) is None
    assert intact_package(target) is not None
    assert [path.name for path in target.parent.iterdir() if not path.name.endswith(".lock")] == ["small"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(new: Path) -> None:
        make(new)
        raise RuntimeError

    with pytest.raises(RuntimeError), staged_directory(tmp_path / "small", 0) as new:
        fail(new)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    leftover, others = tmp_path / ".small.new-abc", tmp_path / ".smaller.new-abc"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"")
    others.mkdir()
    with staged_directory(tmp_path / "small", 0) as new:
        make(new)
    assert not leftover.exists()
    assert others.exists()


def test_a_damaged_package_is_not_intact_and_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "small"
    target.mkdir()
    make(target)
    (target / "model.tflite").write_bytes(b"")
    assert intact_package(target) is None
    with staged_directory(target, 0) as new:
        make(new)
    assert intact_package(target) is not None


def test_a_second_process_waits_and_reports_it(tmp_path: Path) -> None:
    target, reported, order = tmp_path / "small", threading.Event(), []

    def second() -> None:
        with package_lock(target, lambda progress: reported.set()):
            order.append("second")

    thread = threading.Thread(target=second)
    with package_lock(target, ignore_progress):
        thread.start()
        assert reported.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_too_little_space_is_reported_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    complaint = "5 MiB are free, about 100 are needed"
    with pytest.raises(Misconfigured, match=complaint) as caught, staged_directory(tmp_path / "small", 100 << 20):
        pytest.fail("it began")
    assert caught.value.reason == "disk_full"


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EACCES, "model_cache")]
)
def test_a_disk_that_refuses_is_named(tmp_path: Path, code: int, reason: str) -> None:
    with pytest.raises(Misconfigured, match=str(tmp_path)) as caught, staged_directory(tmp_path / "small", 0):
        raise OSError(code, "refused")
    assert caught.value.reason == reason
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Misconfigured, match="cache_dir"), package_lock(tmp_path / "file" / "small", ignore_progress):
        pytest.fail("it began")


def test_progress_without_a_total_is_fine() -> None:
    assert ModelProgress("quantising") == ModelProgress("quantising", 0, 0)
