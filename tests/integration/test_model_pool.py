"""The model pool with scripted children: batches, crashes, the spare child, recycling, and disabling."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.children import NoticeRecorder, instruction, jobs, launches, model_pool, score
from tests.support.polling import eventually
from tests.support.processes import alive, open_descriptors
from tests.support.scripted_child import LABEL
from worker.errors import CannotBeDone, Unavailable
from worker.supervision.lifecycle import BecameReady
from worker.supervision.model_pool import ModelPool
from worker.supervision.relaunch import RelaunchRule
from worker.supervision.turns import Turn

ANSWER = [(LABEL, 0.5)]


def pid_of(pool: ModelPool) -> int:
    pid = pool.states()[0].pid
    assert pid is not None
    return pid


def has_begun(journal: Path, times: int) -> bool:
    """Whether as many jobs have been begun, the probe aside."""
    return len([job for job in jobs(journal) if job]) >= times


async def test_a_free_child_takes_what_waits_up_to_a_full_batch(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 4}, job_s=0.05) as pool:
        await pool.wait_ready()
        answers = await asyncio.gather(*(score(pool, f"image{number}") for number in range(9)))
    assert answers == [ANSWER] * 9
    # The first does not wait for others; by the time it is answered, the others fill batches.
    sizes = [len(job.split("+")) for job in jobs(tmp_path)]
    assert sum(sizes) == 9
    assert max(sizes) == 4
    assert "+".join(jobs(tmp_path)) == "+".join(f"image{number}" for number in range(9)), "first come, first served"


async def test_one_image_alone_is_not_kept_waiting(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 8}) as pool:
        await pool.wait_ready()
        await score(pool, "one")
        await score(pool, "two")
    assert jobs(tmp_path) == ["one", "two"]


async def test_with_a_wait_set_images_that_come_close_together_share_a_batch(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 8, "batch_wait_s": 1.0}) as pool:
        await pool.wait_ready()
        first = asyncio.create_task(score(pool, "one"))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, score(pool, "two"))
    assert jobs(tmp_path) == ["one+two"]


async def test_batches_of_one_neither_wait_nor_grow(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 1, "batch_wait_s": 60.0}) as pool:
        await pool.wait_ready()
        async with asyncio.timeout(50.0):
            await asyncio.gather(*(score(pool, f"image{number}") for number in range(40)))
    assert jobs(tmp_path) == [f"image{number}" for number in range(40)]
    assert launches(tmp_path) == 1


async def test_two_children_share_what_waits(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"children": 2, "batch_size": 8}, job_s=0.05) as pool:
        await eventually(lambda: sum(child.phase == "ready" for child in pool.states()) == 2, "both children are ready")
        await asyncio.gather(*(score(pool, f"image{number}") for number in range(4)))
        assert all(child.images_done > 0 for child in pool.states())


async def test_a_few_images_are_sent_one_by_one_and_a_child_has_more_to_continue_with(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 8, "threads": 2}, job_s=0.3) as pool:
        await pool.wait_ready()
        answers = [asyncio.create_task(score(pool, f"image{number}")) for number in range(6)]
        await asyncio.sleep(0)
        assert pool.waiting == 2, "one for each thread, and one more for each"
        assert await asyncio.gather(*answers) == [ANSWER] * 6
    assert jobs(tmp_path) == [f"image{number}" for number in range(6)]


async def test_many_images_are_sent_in_full_batches(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 3, "threads": 1}, job_s=0.1) as pool:
        await pool.wait_ready()
        await asyncio.gather(*(score(pool, f"image{number}") for number in range(10)))
    # The first two are sent at once: the others had not been queued yet.
    full = ["image2+image3+image4", "image5+image6+image7"]
    assert jobs(tmp_path) == ["image0", "image1", *full, "image8", "image9"]


async def test_every_thread_of_a_child_has_work_however_small_the_batches(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 2, "threads": 8}, job_s=0.05) as pool:
        await pool.wait_ready()
        answers = [asyncio.create_task(score(pool, f"image{number}")) for number in range(40)]
        await eventually(lambda: len(jobs(tmp_path)) > 2, "the third job has begun")
        assert 40 - pool.waiting - len(jobs(tmp_path)) >= 8, "in hand, and not begun yet"
        assert await asyncio.gather(*answers) == [ANSWER] * 40


async def test_live_images_go_before_bulk_ones_and_the_instances_take_turns(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 4, "threads": 1}, job_s=0.1) as pool:
        await pool.wait_ready()
        # Given that one instance's images fill the child's hands, and many more of it wait, bulk ones before live ones
        many = [score(pool, f"bulk{number}", Turn("busy", bulk=True)) for number in range(6)]
        many += [score(pool, f"busy{number}", Turn("busy")) for number in range(8)]
        tasks = [asyncio.create_task(each) for each in many]
        await asyncio.sleep(0)
        # When another instance's live image comes
        assert await score(pool, "other", Turn("other")) == ANSWER
        assert await asyncio.gather(*tasks) == [ANSWER] * 14
    # Then it is done after what is in hand and one batch at most, and the bulk ones that were not in hand come last
    order = "+".join(jobs(tmp_path)).split("+")
    assert order.index("other") < 10
    assert all(name.startswith("bulk") for name in order[-4:]), order


async def test_a_bulk_image_alone_is_done_without_delay(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 4}) as pool:
        await pool.wait_ready()
        async with asyncio.timeout(5):
            assert await score(pool, "bulk", Turn("busy", bulk=True)) == ANSWER


async def test_a_bulk_image_whose_child_dies_is_done_by_the_next_also_beside_live_ones(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {"batch_size": 4}, job_s=0.2) as pool:
        await pool.wait_ready()
        await score(pool, "live", Turn("busy"))
        bulk = asyncio.create_task(score(pool, "bulk", Turn("busy", bulk=True)))
        await eventually(lambda: "bulk" in jobs(tmp_path), "it has begun")
        os.kill(pid_of(pool), signal.SIGKILL)
        assert await bulk == ANSWER
    assert len(recorder.crashes()) == 1


async def test_a_crash_blames_none_of_the_images_that_the_child_was_scoring_concurrently(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {"threads": 2}, job_s=0.2) as pool:
        await pool.wait_ready()
        answers = asyncio.gather(*(score(pool, f"image{number}") for number in range(4)))
        await eventually(lambda: jobs(tmp_path), "a job has begun")
        os.kill(pid_of(pool), signal.SIGKILL)
        assert await answers == [ANSWER] * 4
    assert len(recorder.crashes()) == 1
    again = jobs(tmp_path)[-4:]
    assert again == [f"image{number}" for number in range(4)], "in the order in which they had come"


async def test_a_crash_loses_no_image_and_blames_none(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {"batch_size": 4}, job_s=0.2) as pool:
        await pool.wait_ready()
        answers = asyncio.gather(*(score(pool, f"image{number}") for number in range(12)))
        await eventually(lambda: jobs(tmp_path), "a job has begun")
        os.kill(pid_of(pool), signal.SIGKILL)
        assert await answers == [ANSWER] * 12
    assert len(recorder.crashes()) == 1
    assert launches(tmp_path) == 2


async def test_a_poison_image_fails_alone_and_does_not_disable_tagging(tmp_path: Path) -> None:
    recorder, before = NoticeRecorder(), open_descriptors()
    async with model_pool(tmp_path, recorder, {"batch_size": 4}) as pool:
        words = ["SIGSEGV", *(f"image{number}" for number in range(7))]
        answers = await asyncio.gather(*(score(pool, word) for word in words), return_exceptions=True)
        poison, *others = answers
        assert isinstance(poison, CannotBeDone)
        assert poison.reason == "image_in_hand_at_model_crashes"
        assert "SIGSEGV" in str(poison)
        assert "4 crashes" in str(poison)
        assert others == [ANSWER] * 7
        assert pool.disabled_reason is None
        assert pool.relaunches_left == 1
    assert len(recorder.crashes()) == 4
    with_poison = [job for job in jobs(tmp_path) if "SIGSEGV" in job]
    assert len(with_poison) == 4
    assert with_poison[2:] == ["SIGSEGV", "SIGSEGV"], "after two crashes it is tried by itself"
    assert open_descriptors() == before


async def test_a_poison_image_alone_is_blamed_once_its_child_has_been_seen_to_work(tmp_path: Path) -> None:
    recorder, before = NoticeRecorder(), open_descriptors()
    async with model_pool(tmp_path, recorder, {}) as pool:
        with pytest.raises(CannotBeDone) as caught:
            await score(pool, "SIGSEGV")
        assert caught.value.reason == "image_in_hand_at_model_crashes"
        assert pool.disabled_reason is None
    assert len(recorder.crashes()) == 4
    probe = ""
    assert jobs(tmp_path) == ["SIGSEGV", "SIGSEGV", probe, "SIGSEGV", probe, "SIGSEGV"]
    assert open_descriptors() == before


@pytest.mark.parametrize("fault", ["SIGSEGV", "exit_3"])
@pytest.mark.parametrize("images", [1, 2, 12])
async def test_a_model_that_dies_at_every_job_is_disabled_and_no_image_is_blamed(
    tmp_path: Path, fault: str, images: int
) -> None:
    recorder, before = NoticeRecorder(), open_descriptors()
    options = {"batch_size": 4, "rule": RelaunchRule(3, 60.0)}
    async with model_pool(tmp_path, recorder, options, every_job=fault) as pool:
        words = [f"image{number}" for number in range(images)]
        answers = await asyncio.gather(*(score(pool, word) for word in words), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * images
        assert "crashed more than 3 times" in (pool.disabled_reason or "")
    assert len(recorder.crashes()) == 4
    assert open_descriptors() == before


async def test_a_model_whose_every_job_hangs_is_disabled_although_each_hang_outlasts_the_interval(
    tmp_path: Path,
) -> None:
    recorder = NoticeRecorder()
    options = {"rule": RelaunchRule(2, 0.5), "batch_timeout_s": 0.5}
    async with model_pool(tmp_path, recorder, options, every_job="hang") as pool:
        answers = await asyncio.gather(*(score(pool, word) for word in ("one", "two")), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * 2
        assert "without answering an image in between" in (pool.disabled_reason or "")
    assert [crash.relaunches_left for crash in recorder.crashes()] == [1, 0, 0]


async def test_an_answer_of_one_child_lets_the_crashes_of_all_be_forgotten(tmp_path: Path) -> None:
    options = {"rule": RelaunchRule(2, 0.3), "spare": True}
    async with model_pool(tmp_path, NoticeRecorder(), options) as pool:
        await eventually(lambda: sum(child.phase == "ready" for child in pool.states()) == 2, "both children are ready")
        os.kill(pid_of(pool), signal.SIGKILL)
        await eventually(lambda: pool.relaunches_left == 1, "the crash was counted")
        counted_at_s = time.monotonic()
        await eventually(lambda: time.monotonic() > counted_at_s + 0.4, "the interval has passed")
        assert pool.relaunches_left == 1, "the interval has passed, and no image has been answered"
        assert await score(pool, "well") == ANSWER
        assert pool.relaunches_left == 2


async def test_a_child_killed_from_outside_shows_nothing_about_the_image_in_hand(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    options = {"rule": RelaunchRule(1000, 1.0)}
    async with model_pool(tmp_path, recorder, options, job_s=0.2) as pool:
        answer = asyncio.create_task(score(pool, "one"))
        for times in range(1, 6):
            await eventually(partial(has_begun, tmp_path, times), "it has begun")
            os.kill(pid_of(pool), signal.SIGKILL)
        assert await answer == ANSWER
    assert len(recorder.crashes()) == 5


async def test_the_sixth_crash_disables_and_fails_everything_that_waits(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {}, starts=["exit_3"] * 6 + ["well"]) as pool:
        waiting = [asyncio.create_task(score(pool, "well")) for _ in range(3)]
        for task in waiting:
            with pytest.raises(Unavailable) as caught:
                await task
            assert caught.value.reason == "model_disabled"
            assert "crashed more than 5 times within 60 s" in str(caught.value)
        assert [crash.relaunches_left for crash in recorder.crashes()] == [4, 3, 2, 1, 0, 0]
        assert not pool.ready
        with pytest.raises(Unavailable):
            await pool.wait_ready()
        pool.reset()
        await pool.wait_ready()
        assert await score(pool, "well") == ANSWER
        assert pool.relaunches_left == 5


async def test_with_a_spare_a_crash_costs_no_waiting(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    # Launches 1 and 2 are well; the relaunch after the crash would never be ready.
    async with model_pool(tmp_path, recorder, {"spare": True}, starts=["well", "well", "hang"]) as pool:
        await eventually(lambda: sum(child.phase == "ready" for child in pool.states()) == 2, "both children are ready")
        os.kill(pid_of(pool), signal.SIGKILL)
        assert await score(pool, "well") == ANSWER
        assert pool.ready
    assert len(recorder.crashes()) == 1


async def test_a_spare_only_stands_by(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"spare": True, "batch_size": 2}, job_s=0.05) as pool:
        await eventually(lambda: sum(child.phase == "ready" for child in pool.states()) == 2, "both children are ready")
        await asyncio.gather(*(score(pool, f"image{number}") for number in range(8)))
        assert sorted(child.images_done for child in pool.states()) == [0, 8]


async def test_when_one_of_several_is_disabled_all_are(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"children": 2}, starts=["well", "hopeless", "well"]) as pool:
        await eventually(lambda: pool.disabled_reason, "the pool is disabled")
        with pytest.raises(Unavailable, match="missing"):
            await score(pool, "well")
        await eventually(lambda: all(child.pid is None for child in pool.states()), "no child is left")
        pool.reset()
        await eventually(lambda: sum(child.phase == "ready" for child in pool.states()) == 2, "both children are ready")
        assert await score(pool, "well") == ANSWER


async def test_a_child_that_has_done_its_share_is_replaced_by_one_already_started(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {"images_per_child": 5, "batch_size": 1}, job_s=0.01) as pool:
        await pool.wait_ready()
        first = pid_of(pool)
        ready_at_all_times = True
        # As many images as it takes until the successor has been replaced too
        async with asyncio.timeout(30.0):
            while len(recorder.of(BecameReady)) < 3:
                assert await score(pool, "image") == ANSWER
                ready_at_all_times = ready_at_all_times and pool.ready
        assert ready_at_all_times
        await eventually(lambda: len(pool.states()) == 1, "the replaced child has ended")
        assert not alive([first])
    assert recorder.crashes() == []
    assert {name for name, _ in recorder.notices} == {"model-1"}


async def test_a_child_that_has_grown_too_large_is_replaced(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {"maximum_memory_bytes": 1 << 20}) as pool:
        await pool.wait_ready()
        first = pid_of(pool)
        await eventually(lambda: not alive([first]), "the child has ended")
    assert recorder.crashes() == []


async def test_a_successor_that_cannot_start_leaves_the_old_child_at_work(tmp_path: Path) -> None:
    async with model_pool(tmp_path, NoticeRecorder(), {"images_per_child": 1}, starts=["well", "hopeless"]) as pool:
        await score(pool, "well")
        await eventually(lambda: launches(tmp_path) == 2 and len(pool.states()) == 1, "its successor has ended")
        assert await score(pool, "well") == ANSWER
        assert pool.disabled_reason is None
    assert launches(tmp_path) == 2


@pytest.mark.parametrize("fault", ["wrong_shape", "nan", "garbage"])
async def test_a_malformed_answer_is_a_crash(tmp_path: Path, fault: str) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {"batch_size": 1}) as pool:
        with pytest.raises(CannotBeDone):
            await score(pool, fault)
        assert await score(pool, "well") == ANSWER
    assert {crash.cause.reason for crash in recorder.crashes()} == {"protocol_broken"}
    assert len(recorder.crashes()) == 4


async def test_an_image_that_is_refused_does_not_affect_the_others(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with model_pool(tmp_path, recorder, {}) as pool:
        answers = await asyncio.gather(
            *(score(pool, word) for word in ("one", "refuse", "two")), return_exceptions=True
        )
    assert isinstance(answers[1], CannotBeDone)
    assert answers[1].reason == "pixels_wrong_length"
    assert [answers[0], answers[2]] == [ANSWER] * 2
    assert recorder.crashes() == []


async def test_a_cancelled_caller_affects_no_other_image(tmp_path: Path) -> None:
    before = open_descriptors()
    async with model_pool(tmp_path, NoticeRecorder(), {"batch_size": 1, "threads": 1}, job_s=0.1) as pool:
        await pool.wait_ready()
        tasks = [asyncio.create_task(score(pool, f"image{number}")) for number in range(6)]
        await asyncio.sleep(0)
        assert pool.waiting == 4, "two are in hand"
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [ANSWER] * 3
        assert pool.waiting == 0
    assert "image2" not in jobs(tmp_path)
    assert open_descriptors() == before


async def test_what_waits_when_the_pool_closes_fails(tmp_path: Path) -> None:
    pool = model_pool(tmp_path, NoticeRecorder(), {}, starts=["hang"])
    await pool.start()
    task = asyncio.create_task(score(pool, "well"))
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(Unavailable, match="stopped"):
        await task
    with pytest.raises(Unavailable), instruction("well") as content:
        await pool.score(content.fd, 0.1)
