"""Providers are asked concurrently; each reply states by itself whether to ask that provider again."""

from __future__ import annotations

import asyncio
import errno
import json
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cloud import refuse_to_shrink
from tests.support.scripted_provider import ScriptedProvider
from worker.errors import CannotBeDone, Misconfigured, ResourceExhausted, TryLater, Unavailable
from worker.images.content import Content
from worker.messages import ImageFacts
from worker.providers.base import Image, Suggestion
from worker.providers.replies import (
    AskAgain,
    ConcurrentRequests,
    ProviderReplies,
    Reply,
    ask,
    pack,
    unpack,
    why_not_now,
)
from worker.settings import InstanceSettings

IMAGE: dict[str, object] = {"format": "JPEG", "width": 4, "height": 3, "sha256": "a" * 64}
FACTS = ImageFacts(format="JPEG", width=4, height=3, sha256="a" * 64)
OTHER_FACTS = ImageFacts(format="JPEG", width=4, height=3, sha256="b" * 64)


def carried(*replies: Reply) -> ProviderReplies:
    """What is left of replies after a retry."""
    return unpack(pack(ProviderReplies(replies, FACTS)))


@pytest.fixture
def image() -> Iterator[Image]:
    with Content.from_bytes(b"bytes of an image", "test") as content:
        facts = ImageFacts(format="JPEG", width=1, height=1, sha256="0" * 64)
        yield Image("a-1", "default", content, facts, "image/jpeg", None, refuse_to_shrink)


async def test_a_late_provider_does_not_hold_up_the_others(image: Image) -> None:
    # Given one provider that answers at once and a slow one
    answer = asyncio.Event()
    quick, slow = ScriptedProvider("quick", ("cat", 0.9)), ScriptedProvider("slow", ("animal", 0.8), released=answer)
    async with ConcurrentRequests([quick, slow], image, InstanceSettings()) as requests:
        # When the wait for the slow one is over
        in_time = await requests.replies_within(0.02)
        # Then the quick one's reply is there, and the other is outstanding
        assert [reply.provider for reply in in_time] == ["quick"]
        assert requests.outstanding == ["slow"]
        # And in the end both have replied
        answer.set()
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
    suggestions = (Suggestion("cat", 0.9), Suggestion("animal", 0.95, "wn:00015388-n"))
    done = Reply("tensorflow", "ok", suggestions, "lite2@abc", duration_s=0.1)
    refused = Reply("google_cloud_vision", "failed", reason="key_refused", message="…")
    down = Reply("microsoft_vision", "unavailable", ask_again=AskAgain.LATER)

    assert carried(done, refused, down) == ProviderReplies((done, refused), FACTS)
    assert unpack(pack(ProviderReplies((done,), FACTS)).encode()) == ProviderReplies((done,), FACTS)


def test_a_reply_that_does_not_fit_into_the_header_is_asked_again() -> None:
    big = Reply("big", "ok", tuple(Suggestion(f"label {number}" * 20, 0.5) for number in range(1000)))
    small = Reply("small", "ok", (Suggestion("cat", 0.9),))
    header = pack(ProviderReplies((big, small), FACTS))
    assert len(header) < 65_536
    assert unpack(header).replies == (small,)


def test_the_note_of_an_incomplete_answer_is_in_the_result() -> None:
    reply = Reply("google_cloud_vision", "ok", model="v1", message="only a part of the labels came")
    assert reply.report().message == "only a part of the labels came"
    assert carried(reply).replies == (reply,)


@pytest.mark.parametrize(
    "header",
    [
        None,
        7,
        "",
        "no json",
        "{}",
        "[1]",
        '{"replies": []}',
        json.dumps({"image": None, "replies": []}),
        json.dumps({"image": IMAGE | {"sha256": "short"}, "replies": []}),
        json.dumps({"image": IMAGE | {"width": 0}, "replies": []}),
        '[{"provider": "x"}]',
        '[{"a":1,"suggestions":[]}]',
    ],
)
def test_a_header_in_another_format_holds_no_replies(header: object) -> None:
    assert unpack(header) == ProviderReplies()


def header_with(**changes: object) -> str:
    fields: dict[str, object] = {
        "provider": "tensorflow",
        "status": "ok",
        "suggestions": [["cat", 0.9]],
        "model": "lite2@abc",
        "reason": None,
        "message": None,
        "duration_s": 0.1,
    }
    return json.dumps({"image": IMAGE, "replies": [fields | changes]})


def test_the_header_that_the_next_test_damages_is_sound() -> None:
    cat = Reply("tensorflow", "ok", (Suggestion("cat", 0.9),), "lite2@abc", duration_s=0.1)
    assert unpack(header_with()) == ProviderReplies((cat,), FACTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": ""},
        {"provider": "p" * 101},
        {"provider": "\x1b[2J"},
        {"provider": 7},
        {"status": "unavailable"},
        {"status": "great"},
        {"status": ["ok"]},
        {"suggestions": None},
        {"suggestions": [["cat"]]},
        {"suggestions": [["cat", 0.9, 1]]},
        {"suggestions": [["cat", math.nan]]},
        {"suggestions": [["cat", math.inf]]},
        {"suggestions": [["cat", -0.1]]},
        {"suggestions": [["cat", 1.1]]},
        {"suggestions": [["cat", 10**400]]},
        {"suggestions": [["cat", "0.9"]]},
        {"suggestions": [["cat", True]]},
        {"suggestions": [["cat\x1b[2J", 0.9]]},
        {"suggestions": [["c" * 1025, 0.9]]},
        {"suggestions": [[{"a": "table"}, 0.9]]},
        {"suggestions": {"cat": 0.9}},
        {"model": "m" * 1025},
        {"model": ["lite2"]},
        {"reason": "\n"},
        {"message": "m" * 1001},
        {"duration_s": math.nan},
        {"duration_s": -1},
        {"duration_s": 1e9},
        {"ask_again": "later"},
        {"after_s": 1e9},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_one_value_that_pack_would_not_write_and_nothing_of_the_header_counts(changes: dict[str, object]) -> None:
    assert unpack(header_with(**changes)) == ProviderReplies()


def test_a_header_that_is_too_long_or_nested_too_deep_holds_no_replies() -> None:
    assert unpack("[" * 60_000) == ProviderReplies()
    assert unpack(header_with() + " " * 65_536) == ProviderReplies()


def test_a_reply_that_unpack_would_not_take_is_asked_again_and_a_long_message_is_cut() -> None:
    odd = Reply("odd", "ok", (Suggestion("cat", math.nan),))
    long = Reply("long", "failed", reason="refused", message="m" * 5000)
    assert carried(odd, long).replies == (Reply("long", "failed", reason="refused", message="m" * 1000),)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["ok", "skipped", "tensorflow"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.tuples(inner, inner).map(list)
    ),
    max_leaves=8,
)
SUGGESTIONS = st.lists(st.tuples(JSON | st.text(), JSON | st.floats(0, 1)).map(list), max_size=3)
NEARLY_REPLY = st.fixed_dictionaries(
    {
        "provider": JSON | st.text(min_size=1, max_size=5),
        "status": st.sampled_from(["ok", "failed", "skipped"]) | JSON,
        "suggestions": SUGGESTIONS,
        "model": st.none() | JSON,
        "reason": st.none() | JSON,
        "message": st.none() | JSON,
        "duration_s": st.floats() | JSON,
    }
)


NEARLY_PACKED = st.fixed_dictionaries(
    {"image": st.just(IMAGE) | JSON, "replies": st.lists(NEARLY_REPLY, min_size=1, max_size=2)}
)


@given(st.one_of(JSON, NEARLY_PACKED))
def test_whatever_json_a_header_holds_reading_it_never_raises_and_no_value_is_out_of_range(value: object) -> None:
    for reply in unpack(json.dumps(value)).replies:
        assert 0 < len(reply.provider) <= 100
        assert reply.status in ("ok", "skipped", "failed")
        assert (reply.ask_again, reply.after_s) == (AskAgain.NO, 0.0)
        assert reply.duration_s is None or 0 <= reply.duration_s < math.inf
        for suggestion in reply.suggestions:
            assert type(suggestion.name) is str
            assert type(suggestion.confidence) is float
            assert 0 <= suggestion.confidence <= 1


@given(st.text() | st.binary())
def test_whatever_text_a_header_holds_reading_it_never_raises(header: str | bytes) -> None:
    assert unpack(header) == ProviderReplies()


def test_replies_without_an_image_are_not_carried() -> None:
    done = Reply("one", "ok", (Suggestion("cat", 0.9),))
    assert unpack(pack(ProviderReplies((done,)))) == ProviderReplies()


def test_replies_about_another_image_are_not_merged() -> None:
    old, also, new = Reply("one", "ok", model="old"), Reply("two", "ok", model="old"), Reply("one", "ok", model="new")
    now = ProviderReplies((new,), FACTS)
    assert now.after(ProviderReplies((old, also), FACTS)).replies == (also, new)
    assert now.after(ProviderReplies((old, also), OTHER_FACTS)) == now
    assert now.after(ProviderReplies((old, also))) == now
    assert ProviderReplies().after(ProviderReplies((old,), FACTS)) == ProviderReplies((old,), FACTS)


def test_at_the_last_attempt_only_what_was_tried_has_failed() -> None:
    tried = Reply("one", "unavailable", reason="service_failed", ask_again=AskAgain.LATER)
    untried = Reply("two", "unavailable", reason="circuit_open", ask_again=AskAgain.LATER, counted=False)
    final = ProviderReplies((tried, untried)).final()
    assert [(reply.status, reply.ask_again) for reply in final.replies] == [
        ("failed", AskAgain.NO),
        ("unavailable", AskAgain.LATER),
    ]
    # And where nobody will ask again, both have
    assert {reply.status for reply in ProviderReplies((tried, untried)).final(uncounted=True).replies} == {"failed"}


async def test_a_reply_says_whether_it_counts_as_an_attempt(image: Image) -> None:
    full = ScriptedProvider(
        "full", error=TryLater("its rate is used up", reason="rate_limit", after_s=9, counted=False)
    )
    reply = await ask(full, image, InstanceSettings())
    assert (reply.ask_again, reply.counted, reply.after_s) == (AskAgain.LATER, False, 9)
    down = ScriptedProvider("down", error=TryLater("HTTP 503", reason="service_failed"))
    assert (await ask(down, image, InstanceSettings())).counted


async def test_the_result_of_an_attempt_and_one_made_of_carried_replies_have_the_same_messages(image: Image) -> None:
    wordy = await ask(ScriptedProvider("wordy", error=CannotBeDone("m" * 5000, reason="no")), image, InstanceSettings())
    assert carried(wordy).replies == (wordy,)


@pytest.mark.parametrize(
    ("error", "ask_again"),
    [
        (TryLater("not its turn", reason="rate_limit", after_s=3, counted=False), AskAgain.LATER),
        (Unavailable("used up", reason="budget_exhausted", after_s=3), AskAgain.WAIT),
    ],
)
def test_a_provider_can_say_before_an_image_is_there_that_it_cannot_be_asked(
    error: TryLater | Unavailable, ask_again: AskAgain
) -> None:
    class Limited(ScriptedProvider):
        def why_wait(
            self, asset_id: str, instance_name: str, instance: InstanceSettings
        ) -> TryLater | Unavailable | None:
            return error if instance_name == "acme" else None

    limited = Limited("limited")
    reply = why_not_now(limited, "asset", "acme", InstanceSettings())
    assert reply is not None
    assert (reply.reason, reply.ask_again, reply.after_s) == (error.reason, ask_again, 3)
    assert why_not_now(limited, "asset", "globex", InstanceSettings()) is None
    # One that has no such method can be asked
    assert why_not_now(ScriptedProvider("simple"), "asset", "acme", InstanceSettings()) is None
