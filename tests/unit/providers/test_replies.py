"""Providers are asked concurrently; each reply states by itself whether to ask that provider again."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator

import pytest

from tests.support.cloud import refuse_to_shrink
from tests.support.scripted_provider import ScriptedProvider
from worker.errors import CannotBeDone, Misconfigured, ResourceExhausted, TryLater, Unavailable
from worker.images.content import Content
from worker.messages import ImageFacts
from worker.providers.base import Image, Suggestion
from worker.providers.replies import AskAgain, ConcurrentRequests, Reply, pack, unpack
from worker.settings import InstanceSettings


@pytest.fixture
def image() -> Iterator[Image]:
    with Content.from_bytes(b"bytes of an image", "test") as content:
        facts = ImageFacts(format="JPEG", width=1, height=1, sha256="0" * 64)
        yield Image("a-1", "default", content, facts, "image/jpeg", None, refuse_to_shrink)


async def test_a_late_provider_does_not_hold_up_the_others(image: Image) -> None:
    # Given one provider that answers at once and a slow one
    quick, slow = ScriptedProvider("quick", ("cat", 0.9)), ScriptedProvider("slow", ("animal", 0.8), delay_s=0.2)
    async with ConcurrentRequests([quick, slow], image, InstanceSettings()) as requests:
        # When the wait for the slow one is over
        in_time = await requests.replies_within(0.02)
        # Then the quick one's reply is there, and the other is outstanding
        assert [reply.provider for reply in in_time] == ["quick"]
        assert requests.outstanding == ["slow"]
        # And in the end both have replied
        assert [(reply.provider, reply.status) for reply in await requests.all_replies()] == [
            ("quick", "ok"),
            ("slow", "ok"),
        ]
        assert requests.outstanding == []


async def test_when_no_provider_is_in_time_the_first_answer_ends_the_wait(image: Image) -> None:
    slow, slower = ScriptedProvider("slow", delay_s=0.05), ScriptedProvider("slower", delay_s=5)
    async with ConcurrentRequests([slow, slower], image, InstanceSettings()) as requests:
        assert [reply.provider for reply in await requests.replies_within(0.0)] == ["slow"]


async def test_a_failure_that_comes_first_does_not_end_the_wait_for_an_answer(image: Image) -> None:
    # Given no provider that replies in time, then a failure, then an answer, then a very slow one
    providers = [
        ScriptedProvider("failing", error=TryLater("down", reason="down"), delay_s=0.02),
        ScriptedProvider("answering", ("cat", 0.9), delay_s=0.05),
        ScriptedProvider("slowest", delay_s=60),
    ]
    async with ConcurrentRequests(providers, image, InstanceSettings()) as requests:
        # When the wait ends
        replies = await requests.replies_within(0.0)
        # Then the answer is there, and was not held up by the slowest
        assert [(reply.provider, reply.status) for reply in replies] == [
            ("failing", "unavailable"),
            ("answering", "ok"),
        ]
        assert requests.outstanding == ["slowest"]


async def test_leaving_cancels_the_outstanding_requests(image: Image) -> None:
    before = asyncio.all_tasks()
    async with ConcurrentRequests([ScriptedProvider("slow", delay_s=60)], image, InstanceSettings()):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("error", "status", "ask_again"),
    [
        (CannotBeDone("no", reason="refused"), "failed", AskAgain.NO),
        (Misconfigured("key refused", reason="key_refused"), "failed", AskAgain.NO),
        (TryLater("down", reason="down", after_s=7), "unavailable", AskAgain.LATER),
        (ResourceExhausted("no descriptor"), "unavailable", AskAgain.SOON),
        (OSError(errno.EMFILE, "Too many open files"), "unavailable", AskAgain.SOON),
        (Unavailable("off", reason="model_disabled"), "unavailable", AskAgain.WAIT),
        (RuntimeError("a bug"), "unavailable", AskAgain.LATER),
    ],
)
async def test_an_error_becomes_a_reply_and_leaves_the_other_providers_tags(
    image: Image, error: Exception, status: str, ask_again: AskAgain
) -> None:
    broken, working = ScriptedProvider("broken", error=error), ScriptedProvider("working", ("cat", 0.9))
    async with ConcurrentRequests([broken, working], image, InstanceSettings()) as requests:
        first, second = await requests.all_replies()
    assert (first.status, first.ask_again) == (status, ask_again)
    assert first.after_s == (7 if isinstance(error, TryLater) and not isinstance(error, RuntimeError) else 0)
    assert second.status == "ok"


def test_replies_survive_a_retry_except_those_to_be_asked_again() -> None:
    done = Reply("tensorflow", "ok", (Suggestion("cat", 0.9),), "lite2@abc", duration_s=0.1)
    refused = Reply("google_cloud_vision", "failed", reason="key_refused", message="…")
    down = Reply("microsoft_vision", "unavailable", ask_again=AskAgain.LATER)

    assert unpack(pack([done, refused, down])) == {"tensorflow": done, "google_cloud_vision": refused}
    assert unpack(pack([done]).encode()) == {"tensorflow": done}


def test_a_reply_that_does_not_fit_into_the_header_is_asked_again() -> None:
    big = Reply("big", "ok", tuple(Suggestion(f"label {number}" * 20, 0.5) for number in range(1000)))
    small = Reply("small", "ok", (Suggestion("cat", 0.9),))
    header = pack([big, small])
    assert len(header) < 65_536
    assert unpack(header) == {"small": small}


def test_the_note_of_an_incomplete_answer_is_in_the_result() -> None:
    reply = Reply("google_cloud_vision", "ok", model="v1", message="only a part of the labels came")
    assert reply.report().message == "only a part of the labels came"
    assert unpack(pack([reply])) == {"google_cloud_vision": reply}


@pytest.mark.parametrize(
    "header", [None, 7, "", "no json", "{}", "[1]", '[{"provider": "x"}]', '[{"a":1,"suggestions":[]}]']
)
def test_a_header_in_another_format_holds_no_replies(header: object) -> None:
    assert unpack(header) == {}
