"""How many processes and threads are needed, and how many the limits leave."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from worker.supervision import tasks as module
from worker.supervision.cgroup import tasks_left
from worker.supervision.tasks import Tasks, tasks


def test_more_children_and_threads_need_more() -> None:
    alone, with_model, with_threads = tasks(1, None), tasks(4, 1), tasks(4, 8)
    assert alone.needed < with_model.needed < with_threads.needed
    assert tasks(4, None).needed - alone.needed == 18, "each decoder and two that it forks, and their successors"


@pytest.mark.parametrize(("left", "enough"), [(None, True), (30, True), (29, False), (0, False)])
def test_what_is_too_few_is_said_with_the_number_and_the_limit(left: int | None, enough: bool) -> None:
    message = Tasks(left, "pids.max of its control group", 30).message
    assert (message is None) == enough
    if message is not None:
        assert f"may start {left} more" in message
        assert "at least 30" in message
        assert "pids.max" in message


def test_the_tightest_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tasks_left", lambda: 500)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (100, 100))
    monkeypatch.setattr(module, "_tasks_of", lambda _user: 60)
    assert (tasks(1, None).left, tasks(1, None).limit) == (40, "RLIMIT_NPROC")
    monkeypatch.setattr(os, "getuid", lambda: 0)  # whom it does not bind
    assert (tasks(1, None).left, tasks(1, None).limit) == (500, "pids.max of its control group")
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY,) * 2)
    monkeypatch.setattr(module, "tasks_left", lambda: None)
    assert tasks(1, None).left is None


def test_threads_are_counted_for_their_user() -> None:
    before = module._tasks_of(os.getuid())
    go_on = threading.Event()
    started = [threading.Thread(target=go_on.wait) for _ in range(20)]
    for thread in started:
        thread.start()
    try:
        assert module._tasks_of(os.getuid()) >= min(before, 5) + 10
    finally:
        go_on.set()
        for thread in started:
            thread.join()


def test_the_groups_above_count_too(tmp_path: Path) -> None:
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    own = mounted / "outer" / "inner"
    own.mkdir(parents=True)
    proc.mkdir()
    (proc / "cgroup").write_text("0::/outer/inner\n")
    (proc / "mountinfo").write_text(f"1 2 0:1 / {mounted} rw - cgroup2 cgroup2 rw\n")
    assert tasks_left(proc) is None
    (own / "pids.max").write_text("max\n")
    (own / "pids.current").write_text("5\n")
    assert tasks_left(proc) is None
    (own.parent / "pids.max").write_text("64\n")
    (own.parent / "pids.current").write_text("60\n")
    assert tasks_left(proc) == 4
