"""The decoder pool with scripted children: an image that kills its decoder is blamed, and no other is affected."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.children import NoticeRecorder, decoder_pool, instruction, job_files, jobs, launches
from tests.support.polling import eventually, until
from tests.support.processes import alive, open_descriptors
from tests.support.scripted_child import LIES
from worker.errors import CannotBeDone, TryLater, Unavailable
from worker.images.content import Content
from worker.images.requests import JpegLimits
from worker.messages import ImageFacts
from worker.supervision.decoder_pool import DecoderPool, ImageKilledDecoder
from worker.supervision.kills_from_outside import EVIDENT_ROUNDS, OTHERS
from worker.supervision.lifecycle import Crashed
from worker.supervision.turns import Turn


async def inspect(pool: DecoderPool, word: str) -> ImageFacts:
    """Inspect an image that makes a scripted child do `word`."""
    with instruction(word) as content:
        return await pool.inspect(content, word)


async def shrink(pool: DecoderPool, word: str) -> None:
    """The same, and make a smaller image of it."""
    with instruction(word) as content:
        await pool.shrink(content, JpegLimits(1000, 100, 100), word)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("SIGSEGV", "killed_by_sigsegv"),
        ("SIGABRT", "killed_by_sigabrt"),
        ("exit_0", "exited"),
        ("garbage", "protocol_broken"),
        ("flood", "protocol_broken"),
        ("wrong_shape", "protocol_broken"),
    ],
)
async def test_an_image_that_kills_its_decoder_is_tried_once_more_alone_and_then_fails_by_name(
    tmp_path: Path, fault: str, reason: str
) -> None:
    recorder, before = NoticeRecorder(), open_descriptors()
    async with decoder_pool(tmp_path, recorder, {}) as pool:
        await inspect(pool, "well")
        with pytest.raises(ImageKilledDecoder) as caught:
            await inspect(pool, fault)
        error = caught.value
        assert error.reason == "image_killed_decoder"
        assert error.cause.reason == reason
        assert error.stage == "inspect"
        assert error.sha256 == hashlib.sha256(fault.encode() + b"\0").hexdigest()
        assert f"path {fault}.jpg" in str(error)
        await inspect(pool, "well")
    assert jobs(tmp_path) == ["well", fault, fault, "well"]
    assert [crash.counted for crash in recorder.crashes()] == [False, False]
    assert launches(tmp_path) == 3
    assert open_descriptors() == before


@pytest.mark.parametrize("reason", ["silent_while_busy", "killed_by_sigprof"])
async def test_an_image_that_takes_long_goes_on_in_the_slow_lane_and_is_blamed_there_once(
    tmp_path: Path, reason: str
) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {"timeout_s": 0.5, "maximum_cpu_s": 1, "first_cpu_s": 0.1}) as pool:
        slow = asyncio.create_task(inspect(pool, "hang" if reason == "silent_while_busy" else "slow"))
        await eventually(lambda: len(pool.states()) == 2, "the slow lane is there")
        for _ in range(5):
            await inspect(pool, "well")
        assert not slow.done(), "nobody waits for it"
        with pytest.raises(ImageKilledDecoder) as caught:
            await slow
    assert (caught.value.reason, caught.value.cause.reason) == ("image_too_slow", "silent_while_busy")
    assert "takes too long to decode" in str(caught.value)
    assert [(name, crash.cause.reason) for name, crash in recorder.notices if isinstance(crash, Crashed)] == [
        ("decoder-1", reason),
        ("decoder-slow-1", "silent_while_busy"),
    ]


async def test_what_takes_more_memory_waits_until_there_is_room_and_the_others_do_not(tmp_path: Path) -> None:
    shared_bytes = 300 << 20
    options = {"children": 2, "shared_memory_bytes": lambda: shared_bytes}
    async with decoder_pool(tmp_path, NoticeRecorder(), options) as pool:
        async with pool._memory.lent(200 << 20, Turn("neighbour")):
            large = asyncio.create_task(inspect(pool, "large"))
            await eventually(lambda: pool.waiting == 1, "it waits for memory")
            for _ in range(5):
                await inspect(pool, "well")
            assert not large.done()
        assert (await large).format == "JPEG"
        shared_bytes = 100 << 20
        with pytest.raises(CannotBeDone, match=r"takes about 256 MiB, and all images together have 228 MiB") as caught:
            await inspect(pool, "large")
        assert caught.value.reason == "image_too_large_memory"


async def test_a_decoder_that_always_wants_more_gets_no_more_than_there_is(tmp_path: Path) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {}) as pool:
        with pytest.raises(ImageKilledDecoder) as caught:
            await inspect(pool, "insatiable")
        assert caught.value.cause.reason == "protocol_broken"
    assert len(jobs(tmp_path)) < 10


@pytest.mark.parametrize("lie", sorted(set(LIES) - {"long_message"}))
async def test_an_answer_that_no_image_can_have_is_not_believed_and_costs_the_image_that_made_it(
    tmp_path: Path, lie: str
) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {}) as pool:
        with pytest.raises(ImageKilledDecoder) as caught:
            await inspect(pool, lie)
        assert caught.value.cause.reason == "protocol_broken"
        assert (await inspect(pool, "well")).format == "JPEG"


async def test_the_words_of_a_refusal_are_short_and_command_no_terminal(tmp_path: Path) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {}) as pool:
        with pytest.raises(CannotBeDone) as caught:
            await inspect(pool, "long_message")
    assert caught.value.reason == "image_corrupt"
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


async def test_what_is_no_jpeg_is_not_sent_as_one(tmp_path: Path) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {}) as pool:
        with pytest.raises(CannotBeDone, match="no JPEG"):
            await shrink(pool, "no_jpeg")


async def test_five_killers_among_five_hundred_good_ones(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {"children": 2}) as pool:
        words = [f"good{number}" for number in range(500)]
        for place in (50, 150, 250, 350, 450):
            words.insert(place, "SIGSEGV")
        answers = await asyncio.gather(*(inspect(pool, word) for word in words), return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        assert len(failed) == 5
        assert {type(answer) for answer in failed} == {ImageKilledDecoder}
        assert len(answers) - len(failed) == 500
        assert pool.disabled_reason is None
    assert len(recorder.crashes()) == 10
    assert not any(crash.counted for crash in recorder.crashes())


async def test_the_image_that_waits_behind_a_killer_in_the_same_decoder_is_not_blamed(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {}, job_s=0.1) as pool:
        await pool.wait_ready()
        killer = asyncio.create_task(inspect(pool, "SIGSEGV"))
        neighbours = [asyncio.create_task(inspect(pool, f"good{number}")) for number in range(3)]
        await asyncio.gather(*neighbours)
        with pytest.raises(ImageKilledDecoder):
            await killer
    assert len(recorder.crashes()) == 2
    assert sorted(jobs(tmp_path)) == ["SIGSEGV", "SIGSEGV", "good0", "good1", "good2"]


async def test_a_suspect_is_tried_only_in_a_decoder_that_has_done_nothing_before(tmp_path: Path) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {"children": 2}) as pool:
        await eventually(lambda: sum(child.phase == "ready" for child in pool.states()) == 2, "both decoders are ready")
        words = ["good0", "good1", "SIGSEGV", *(f"good{number}" for number in range(2, 30))]
        await asyncio.gather(*(inspect(pool, word) for word in words), return_exceptions=True)
    done_by: dict[str, list[str]] = {}
    for name in job_files(tmp_path):
        _, _, pid, word = name.split("-", 3)
        done_by.setdefault(pid, []).append(word)
    killers = [each for each in done_by.values() if "SIGSEGV" in each]
    assert len(killers) == 2
    assert ["SIGSEGV"] in killers, "the second time it was the only image of its decoder"


async def test_an_image_is_not_blamed_for_a_decoder_that_died_while_idle(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {}) as pool:
        await pool.wait_ready()
        pid = pool.states()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive([pid]), "the decoder is dead")
        # Still the same iteration of the event loop: the pool still sends the image to the dead decoder.
        await inspect(pool, "well")
    [crash] = recorder.crashes()
    assert crash.counted
    assert jobs(tmp_path) == ["well"]


async def test_an_image_whose_decoder_is_killed_from_outside_is_done_again_and_not_blamed(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {}, job_s=0.3) as pool:
        await inspect(pool, "well")
        task = asyncio.create_task(inspect(pool, "image"))
        for times in (1, 2):
            await eventually(partial(has_begun, tmp_path, "image", times), "it has begun")
            os.kill(pool.states()[0].pid or 0, signal.SIGKILL)
        await task
    assert jobs(tmp_path) == ["well", "image", "image", "image"]
    assert [crash.cause.reason for crash in recorder.crashes()] == ["killed_by_sigkill"] * 2


async def test_an_image_whose_decoders_are_always_killed_from_outside_waits_without_losing_an_attempt(
    tmp_path: Path,
) -> None:
    before = open_descriptors()
    async with decoder_pool(tmp_path, NoticeRecorder(), {}) as pool:
        with pytest.raises(TryLater) as caught:
            await inspect(pool, "SIGKILL")
        assert (caught.value.reason, caught.value.counted) == ("decoder_killed_from_outside", False)
        assert caught.value.after_s >= 60
        await inspect(pool, "well")
    assert jobs(tmp_path) == ["SIGKILL", "SIGKILL", "SIGKILL", "well"]
    assert open_descriptors() == before


async def test_an_image_whose_decoders_alone_are_always_killed_from_outside_comes_back_rarely_and_then_fails(
    tmp_path: Path,
) -> None:
    waits_s = []
    async with decoder_pool(tmp_path, NoticeRecorder(), {}) as pool:
        for _ in range(EVIDENT_ROUNDS):
            # Given an image whose decoders are killed from outside, and others that come through meanwhile
            with pytest.raises(TryLater) as caught:
                await shrink(pool, "SIGKILL")
            assert not caught.value.counted
            waits_s.append(caught.value.after_s)
            for _ in range(OTHERS):
                await shrink(pool, "well")
        # When it has come back often enough, then it fails by name
        with pytest.raises(ImageKilledDecoder, match="killed from outside in 4 rounds") as failed:
            await shrink(pool, "SIGKILL")
    assert failed.value.sha256 == hashlib.sha256(b"SIGKILL\0").hexdigest()
    assert (failed.value.reason, failed.value.stage) == ("image_killed_decoder", "shrink")
    assert waits_s == [60, 120, 240]
    assert jobs(tmp_path).count("SIGKILL+") == 3 + EVIDENT_ROUNDS, "later rounds cost one decoder each"


async def test_a_death_by_its_own_fault_counts_also_after_one_from_outside(tmp_path: Path) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {}, job_s=0.3) as pool:
        task = asyncio.create_task(inspect(pool, "SIGSEGV"))
        await eventually(lambda: jobs(tmp_path), "it has begun")
        os.kill(pool.states()[0].pid or 0, signal.SIGKILL)
        with pytest.raises(ImageKilledDecoder):
            await task
    assert jobs(tmp_path) == ["SIGSEGV"] * 3


def has_begun(journal: Path, word: str, times: int) -> bool:
    """Whether a job has been begun as often."""
    return jobs(journal).count(word) >= times


async def test_a_stopped_decoder_is_killed_soon_after_the_deadline(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {"timeout_s": 1.0}, job_s=0.2) as pool:
        await pool.wait_ready()
        pid = pool.states()[0].pid
        assert pid is not None
        task = asyncio.create_task(inspect(pool, "well"))
        await eventually(lambda: jobs(tmp_path), "a job has begun")
        os.kill(pid, signal.SIGSTOP)
        stopped_at_s = time.monotonic()
        await eventually(recorder.crashes, "a crash is noticed")
        assert time.monotonic() - stopped_at_s < 10.0
        assert not alive([pid])
        await task


async def test_decoders_that_cannot_start_are_tried_again_and_images_wait(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {}, starts=["exit_3", "exit_3", "well"]) as pool:
        assert not pool.ready
        await inspect(pool, "well")
        assert pool.ready
    assert [crash.counted for crash in recorder.crashes()] == [True, True]


async def test_when_no_decoder_can_ever_start_images_fail(tmp_path: Path) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {"children": 2}, starts=["hopeless"]) as pool:
        with pytest.raises(Unavailable) as caught:
            await inspect(pool, "well")
        assert caught.value.reason == "decoder_disabled"


async def test_decoders_are_replaced_after_their_share_without_a_gap(tmp_path: Path) -> None:
    recorder = NoticeRecorder()
    async with decoder_pool(tmp_path, recorder, {"images_per_child": 10}) as pool:
        async with asyncio.timeout(30.0):
            while launches(tmp_path) < 4:
                await inspect(pool, "good")
                assert pool.ready
    assert recorder.crashes() == []


async def test_too_many_bytes_never_reach_a_decoder(tmp_path: Path) -> None:
    async with decoder_pool(tmp_path, NoticeRecorder(), {"maximum_bytes": 10}) as pool:
        with Content.from_bytes(b"x" * 11, "path big.jpg") as content, pytest.raises(CannotBeDone) as caught:
            await pool.inspect(content, "asset")
    assert caught.value.reason == "image_too_large_bytes"
    assert jobs(tmp_path) == []
