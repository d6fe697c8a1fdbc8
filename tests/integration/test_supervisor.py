"""The supervisor with real processes and signals: every failure of a child is detected, and the child is reaped."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.children import NoticeRecorder, jobs, launches, model_pool, score
from tests.support.polling import eventually, until
from tests.support.processes import alive, open_descriptors
from tests.support.scripted_child import LABEL
from worker.errors import Unavailable
from worker.supervision import lifecycle, packets
from worker.supervision.child_handle import ChildSpec, describe_exit
from worker.supervision.lifecycle import BecameDisabled, BecameStopped
from worker.supervision.model_pool import ModelOptions, ModelPool
from worker.supervision.relaunch import RelaunchRule

ANSWER = [(LABEL, 0.5)]

QUICK_START = {"start_timeout_s": 3.0}
"""The test waits until it has passed for a child that never becomes ready; long enough for its successor to start on a
busy machine."""


async def test_a_child_answers_and_stops_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before, recorder = open_descriptors(), NoticeRecorder()
    async with model_pool(tmp_path, recorder, {}) as pool:
        assert await score(pool, "well") == ANSWER
        [child] = pool.states()
        assert child.phase == "ready"
        assert child.pid is not None
        assert child.resident_bytes > 1 << 20
    assert not alive([child.pid])
    assert [type(notice) for notice in recorder.of(BecameStopped)] == [BecameStopped]
    assert recorder.crashes() == []
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("start", "reason", "options"),
    [
        ("SIGKILL", "killed_by_sigkill", {}),
        ("SIGSEGV", "killed_by_sigsegv", {}),
        ("exit_0", "exited", {}),
        ("exit_3", "exited", {}),
        ("garbage", "protocol_broken", {}),
        ("flood", "protocol_broken", {}),
        ("oversize", "protocol_broken", {}),
        ("close", "hung_up", {}),
        ("hang", "silent_while_starting", QUICK_START),
    ],
)
async def test_a_child_that_fails_to_start_is_a_crash_and_is_relaunched(
    tmp_path: Path, start: str, reason: str, options: dict[str, float]
) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, options, starts=[start, "well"]) as pool:
        assert await score(pool, "well") == ANSWER
    [crash] = recorder.crashes()
    assert (crash.cause.reason, crash.counted, crash.relaunches_left) == (reason, True, 4)
    assert launches(tmp_path) == 2


async def test_a_command_that_cannot_be_run_is_a_crash(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    options = ModelOptions(packages=(tmp_path,), rule=RelaunchRule(1, 60))
    async with ModelPool(options, observe=recorder, spec=ChildSpec(("/nonexistent/python",))) as pool:
        with pytest.raises(Unavailable, match="crashed more than 1 times"):
            await pool.wait_ready()
    assert [crash.cause.reason for crash in recorder.crashes()] == ["spawn_failed", "spawn_failed"]


@pytest.mark.parametrize(("start", "reason"), [("hopeless", "model_missing"), ("SIGILL", "illegal_instruction")])
async def test_a_start_that_can_never_succeed_disables_at_once(tmp_path: Path, start: str, reason: str) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {}, starts=[start, "well"]) as pool:
        with pytest.raises(Unavailable) as caught:
            await score(pool, "well")
        assert caught.value.reason == "model_disabled"
        assert "autotag reset" in str(caught.value)
        [disabled] = recorder.of(BecameDisabled)
        assert isinstance(disabled, BecameDisabled)
        assert disabled.cause.reason == reason
        assert launches(tmp_path) == 1
        assert pool.states()[0].phase == "disabled"
        with pytest.raises(Unavailable):
            await score(pool, "well")
        pool.reset()
        assert await score(pool, "well") == ANSWER
        assert pool.disabled_reason is None


async def test_a_busy_child_that_stops_answering_is_killed_soon_after_its_deadline(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {"batch_timeout_s": 1.0}, first_job="hang") as pool:
        await pool.wait_ready()
        pid = pool.states()[0].pid
        assert pid is not None
        task = asyncio.create_task(score(pool, "well"))
        await eventually(lambda: jobs(tmp_path), "a job has begun")
        os.kill(pid, signal.SIGSTOP)
        stopped_at_s = time.monotonic()
        await eventually(recorder.crashes, "a crash is noticed")
        assert time.monotonic() - stopped_at_s < 10.0
        assert recorder.crashes()[0].cause.reason == "silent_while_busy"
        assert not alive([pid])
        assert await task == ANSWER
    assert launches(tmp_path) == 2


async def test_a_child_killed_from_outside_while_idle_is_replaced_before_it_is_needed(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {}) as pool:
        await pool.wait_ready()
        pid = pool.states()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: launches(tmp_path) == 2, "the child was relaunched")
        assert recorder.crashes()[0].cause == describe_exit(-signal.SIGKILL)
        assert "perhaps out of memory?" in recorder.crashes()[0].cause.message


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS])
async def test_a_machine_without_room_for_a_packet_costs_a_moment_and_no_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    recorder, before = NoticeRecorder(), open_descriptors()
    refused: list[bytes] = []
    really_send = packets.send

    def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
        if packets.unpack(data)["kind"] == "score" and len(refused) < 3:
            refused.append(data)
            raise OSError(number, os.strerror(number))
        really_send(sock, data, fds)

    monkeypatch.setattr(packets, "send", send)
    monkeypatch.setattr(lifecycle, "EXHAUSTED_PAUSE_S", 0.05)
    async with model_pool(tmp_path, recorder, {}) as pool:
        await pool.wait_ready()
        answers = await asyncio.gather(*(score(pool, word) for word in ("one", "two", "three")))
        assert answers == [ANSWER] * 3
    assert len(refused) == 3
    assert recorder.crashes() == []
    assert launches(tmp_path) == 1
    assert sorted(jobs(tmp_path)) == ["one", "three", "two"]
    assert open_descriptors() == before


async def test_a_ping_or_a_first_packet_that_cannot_be_sent_for_want_of_memory_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = NoticeRecorder()
    refused: list[str] = []
    really_send = packets.send

    def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
        kind = packets.unpack(data)["kind"]
        if kind in ("begin", "ping") and refused.count(kind) < 2:
            refused.append(kind)
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        really_send(sock, data, fds)

    monkeypatch.setattr(packets, "send", send)
    monkeypatch.setattr(lifecycle, "EXHAUSTED_PAUSE_S", 0.05)
    pool = model_pool(tmp_path, recorder, {})
    object.__setattr__(pool._policy, "idle_check_s", 0.1)  # frozen: nobody but a test is that impatient
    async with pool:
        await eventually(lambda: refused == ["begin"] * 2 + ["ping"] * 2, "both have been refused")
        assert await score(pool, "well") == ANSWER
    assert recorder.crashes() == []


async def test_a_child_that_prints_without_end_is_drained_and_killed_at_its_deadline(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, QUICK_START, starts=["print", "well"]) as pool:
        assert await score(pool, "well") == ANSWER
    assert recorder.crashes()[0].cause.reason == "silent_while_starting"


@pytest.mark.parametrize(
    ("fault", "evidence"), [("exit_3", "about to exit with 3"), ("really_segv", "Segmentation fault")]
)
async def test_the_last_lines_of_a_crashed_child_are_logged(tmp_path: Path, fault: str, evidence: str) -> None:
    with capture_logs() as lines:
        async with model_pool(tmp_path, NoticeRecorder(), {"rule": RelaunchRule(0, 60)}) as pool:
            with pytest.raises(Unavailable, match="crashed more than 0 times"):
                await score(pool, fault)
    [last] = [line for line in lines if line["event"] == "last lines of the crashed child"]
    assert evidence in "\n".join(last["lines"])


async def test_children_do_not_inherit_the_parents_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTAG_AMQP__PASSWORD", "marker-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "marker-secret")
    async with model_pool(tmp_path, NoticeRecorder(), {}) as pool:
        await pool.wait_ready()
        environment = pool.states()[0].hello["environment"]
        assert "PATH" in environment
        assert "marker-secret" not in str(environment)


async def test_children_ignore_the_signals_that_a_service_manager_sends_to_the_whole_group(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {}) as pool:
        await pool.wait_ready()
        pid = pool.states()[0].pid
        assert pid is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        assert await score(pool, "well") == ANSWER
    assert recorder.crashes() == []


async def test_a_stop_at_once_does_not_wait_for_a_child_that_is_busy_or_starting(tmp_path: Path) -> None:
    pool = model_pool(tmp_path, NoticeRecorder(), {}, starts=["well"])
    await pool.start()
    await pool.wait_ready()
    task = asyncio.create_task(score(pool, "hang"))
    await eventually(lambda: jobs(tmp_path), "a job has begun")
    pids = [child.pid for child in pool.states() if child.pid]
    started_s = time.monotonic()
    await pool.close(at_once=True)
    assert time.monotonic() - started_s < 15.0
    assert not alive(pids)
    with pytest.raises(Unavailable):
        await task


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(alive(pids)) == 3
        parent.kill()
        parent.wait()
        until(lambda: not alive(pids), f"{pids} have ended", within_s=10)


# One idle child, one busy for an hour, and one that is stopped and so cannot detect its parent's end by itself.
_PARENT = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.support.children import NoticeRecorder, model_pool, score, jobs
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    journal = Path(sys.argv[1])
    pool = model_pool(journal, NoticeRecorder(), {"children": 3})
    await pool.start()
    while sum(child.phase == "ready" for child in pool.states()) < 3:
        await asyncio.sleep(0.01)
    task = asyncio.create_task(score(pool, "hang"))
    while not jobs(journal):
        await asyncio.sleep(0.01)
    pids = [child.pid for child in pool.states()]
    os.kill(pids[2], signal.SIGSTOP)
    print(*pids, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_bug_in_the_supervisor_is_reported_and_fails_the_jobs_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {}) as pool:
        await pool.wait_ready()
        pids = [child.pid for child in pool.states() if child.pid]
        in_hand = asyncio.create_task(score(pool, "hang"))
        await eventually(lambda: jobs(tmp_path), "a job has begun")
        monkeypatch.setattr("worker.supervision.lifecycle.step", lambda *_: 1 / 0)
        pool.reset()
        for task in (in_hand, asyncio.create_task(score(pool, "well"))):
            with pytest.raises(Unavailable, match="supervisor failed"):
                await task
        assert not alive(pids)
        monkeypatch.undo()
        pool.reset()
        assert await score(pool, "well") == ANSWER


async def test_a_supervisor_cancelled_with_its_loop_leaves_no_process(tmp_path: Path) -> None:
    pool = model_pool(tmp_path, NoticeRecorder(), {})
    await pool.start()
    await pool.wait_ready()
    pids = [child.pid for child in pool.states() if child.pid]
    tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("supervise")]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not alive(pids)


def test_exits_are_described_in_words() -> None:
    assert describe_exit(0).message == "ended by itself with exit code 0"
    assert describe_exit(-9).message == "killed by SIGKILL: perhaps out of memory?"
    assert describe_exit(-9).reason == "killed_by_sigkill"
    assert describe_exit(-9, out_of_memory=True).message == "killed by SIGKILL: by the kernel, out of memory"
    assert describe_exit(-40).message == "killed by SIG40"
