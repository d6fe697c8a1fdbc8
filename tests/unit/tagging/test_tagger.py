"""One image, one call, one finished result: without a queue and without an event."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import worker
from tests.support.scripted_provider import ScriptedProvider
from worker.cli.tag import _way
from worker.errors import AutotagError, CannotBeDone, TryLater, Unavailable
from worker.http.page.explanation import article
from worker.images.content import Content
from worker.images.requests import Fit, Interpolation, JpegLimits, PixelRecipe
from worker.messages import ImageFacts, Result
from worker.operations.metrics import Metrics
from worker.providers.base import Provider, Suggestion
from worker.providers.replies import ProviderReplies, Reply
from worker.settings import InstanceSettings, Settings
from worker.supervision.decoder_pool import Decoded
from worker.supervision.turns import Turn
from worker.tagging.explain import Explanation, explain, raise_if_no_provider
from worker.tagging.merge import Choice, Verdict
from worker.tagging.results import Subject
from worker.tagging.tagger import Tagger, conclude

RECIPE = PixelRecipe(4, Fit.CROP, 0, Interpolation.BICUBIC)
JPEG = b"\xff\xd8\xff\xe0 a picture"
FACTS = ImageFacts(format="JPEG", width=4, height=3, sha256="a" * 64)
SUBJECT = Subject("asset-1", "acme", "event-1", existing_tags=("Animal",))
NOW = InstanceSettings(provider_wait_s=0.01)


class FakeDecoders:
    """Finds the same facts in everything, or refuses it."""

    def __init__(self, refusal: CannotBeDone | None = None) -> None:
        self.refusal = refusal
        self.decoded = 0
        self.recipes: list[tuple[PixelRecipe, ...]] = []

    async def decode(
        self, content: Content, recipes: tuple[PixelRecipe, ...], asset: str, turn: Turn, *, hashed: bool = False
    ) -> Decoded:
        self.decoded += 1
        self.recipes.append(recipes)
        if self.refusal is not None:
            raise self.refusal
        return Decoded(FACTS, None)

    async def shrink(self, content: Content, limits: JpegLimits, asset: str, turn: Turn) -> bytes:
        raise AssertionError("no scripted provider asks for a JPEG")


@pytest.fixture
def content() -> Iterator[Content]:
    with Content.from_bytes(JPEG, "test") as content:
        yield content


def tagger(*providers: Provider, decoders: FakeDecoders | None = None) -> Tagger:
    return Tagger(decoders or FakeDecoders(), providers, Metrics())


async def test_it_gives_back_a_finished_result(content: Content) -> None:
    # Given two providers, one of which suggests what the asset has already
    one = ScriptedProvider("one", ("cat", 0.9), ("animal", 0.8), ("pet", 0.3))
    two = ScriptedProvider("two", ("Cat", 0.7), ("sofa", 0.6))
    # When an image is tagged with at most two tags
    tagged = await tagger(one, two).tag(SUBJECT, content, InstanceSettings(), maximum_number_of_tags=2)
    # Then the result is complete: for this subject, with merged tags, reports and facts
    result = tagged.result
    assert (result.asset_id, result.instance, result.event_id) == ("asset-1", "acme", "event-1")
    assert (result.status, result.complete, result.image) == ("tagged", True, FACTS)
    assert [(tag.name, tag.provider) for tag in result.tags] == [("cat", "one"), ("sofa", "two")]
    assert [(report.name, report.status) for report in result.providers] == [("one", "ok"), ("two", "ok")]
    # And every suggestion has its verdict
    assert {(each.label, each.verdict.value) for each in tagged.choices} == {
        ("cat", "kept"),
        ("animal", "already_on_asset"),
        ("Cat", "duplicate"),
        ("sofa", "kept"),
        ("pet", "over_maximum"),
    }


async def test_what_is_there_is_passed_on_while_a_provider_is_late(content: Content) -> None:
    quick, slow = ScriptedProvider("quick", ("cat", 0.9)), ScriptedProvider("slow", ("sofa", 0.8), delay_s=0.2)
    partial: list[tuple[Result, ProviderReplies]] = []

    async def on_partial(result: Result, replies: ProviderReplies) -> None:
        partial.append((result, replies))

    tagged = await tagger(quick, slow).tag(SUBJECT, content, NOW, on_partial=on_partial)
    ((result, replies),) = partial
    assert (result.complete, [tag.name for tag in result.tags]) == (False, ["cat"])
    assert replies.settled == {"quick"}
    assert (tagged.result.complete, [tag.name for tag in tagged.result.tags]) == (True, ["cat", "sofa"])


async def test_without_a_callback_everything_is_waited_for(content: Content) -> None:
    quick, slow = ScriptedProvider("quick", ("cat", 0.9)), ScriptedProvider("slow", ("sofa", 0.8), delay_s=0.05)
    tagged = await tagger(quick, slow).tag(SUBJECT, content, NOW)
    assert [tag.name for tag in tagged.result.tags] == ["cat", "sofa"]


async def test_a_provider_that_is_down_is_pending_before_the_last_attempt_and_failed_at_it(content: Content) -> None:
    well, down = ScriptedProvider("well", ("cat", 0.9)), ScriptedProvider("down", error=TryLater("503", reason="down"))
    before = await tagger(well, down).tag(SUBJECT, content, InstanceSettings(), last_attempt=False)
    assert [reply.provider for reply in before.replies.pending] == ["down"]
    assert before.result.complete is False
    last = await tagger(well, down).tag(SUBJECT, content, InstanceSettings())
    assert last.replies.pending == ()
    assert last.result.complete
    assert [(report.name, report.status) for report in last.result.providers] == [("well", "ok"), ("down", "failed")]


async def test_who_has_replied_in_an_earlier_attempt_is_not_asked_again(content: Content) -> None:
    one, two = ScriptedProvider("one", ("cat", 0.9)), ScriptedProvider("two", ("sofa", 0.8))
    earlier = ProviderReplies((Reply("one", "ok", (), "model@0"),), FACTS)
    tagged = await tagger(one, two).tag(SUBJECT, content, InstanceSettings(), earlier=earlier)
    assert (one.asked, two.asked) == (0, 1)
    assert [report.model for report in tagged.result.providers] == ["model@0", "two@1"]


async def test_answers_about_another_file_are_dropped_and_every_provider_is_asked_about_the_one_that_is_there(
    content: Content,
) -> None:
    one, two = ScriptedProvider("one", ("cat", 0.9)), ScriptedProvider("two", ("sofa", 0.8))
    before = replace(FACTS, sha256="b" * 64)
    for facts in (before, None):
        earlier = ProviderReplies((Reply("one", "ok", (Suggestion("lorry", 1.0),), "model@0"),), facts)
        tagged = await tagger(one, two).tag(SUBJECT, content, InstanceSettings(), earlier=earlier)
        assert [tag.name for tag in tagged.result.tags] == ["cat", "sofa"]
        assert tagged.result.image == FACTS
    assert (one.asked, two.asked) == (2, 2)


async def test_pixels_for_the_model_are_made_again_when_the_file_has_changed(content: Content) -> None:
    class Local(ScriptedProvider):
        def pixel_recipe(self) -> PixelRecipe | None:
            return RECIPE

    decoders = FakeDecoders()
    local, cloud = Local("local", ("cat", 0.9)), ScriptedProvider("cloud", ("sofa", 0.8))
    earlier = ProviderReplies((Reply("local", "ok", (), "model@0"),), replace(FACTS, sha256="b" * 64))
    await tagger(local, cloud, decoders=decoders).tag(SUBJECT, content, InstanceSettings(), earlier=earlier)
    assert decoders.recipes == [(), (RECIPE,)]


def test_a_result_is_made_of_answers_alone() -> None:
    replies = ProviderReplies((Reply("one", "ok", (Suggestion("cat", 0.9),), "model@0"),), FACTS)
    tagged = conclude(SUBJECT, replies, InstanceSettings(), 0)
    assert (tagged.result.status, tagged.result.image) == ("tagged", FACTS)
    assert [tag.name for tag in tagged.result.tags] == ["cat"]


class Limited(ScriptedProvider):
    """A provider that cannot be asked while `why` is set."""

    why: TryLater | Unavailable | None = None

    promised = 0

    def why_wait(self, asset_id: str, instance_name: str, instance: InstanceSettings) -> TryLater | Unavailable | None:
        self.promised += self.why is None
        return self.why

    def not_asked(self, instance_name: str, instance: InstanceSettings) -> None:
        self.promised -= 1


def limited(name: str, why: TryLater | Unavailable | None) -> Limited:
    provider = Limited(name, ("cat", 0.9))
    provider.why = why
    return provider


NOT_ITS_TURN = TryLater("not its turn", reason="rate_limit", after_s=60, counted=False)
LEFT_ALONE = TryLater("left alone", reason="circuit_open", after_s=10, counted=False)
USED_UP = Unavailable("used up", reason="budget_exhausted", after_s=3600)


@pytest.mark.parametrize(
    ("reasons", "raised", "after_s"),
    [
        ((NOT_ITS_TURN,), "rate_limit", 60),
        ((NOT_ITS_TURN, LEFT_ALONE), "circuit_open", 10),
        ((USED_UP, NOT_ITS_TURN), "rate_limit", 60),
        ((USED_UP,), "budget_exhausted", 3600),
    ],
)
def test_while_nobody_can_be_asked_the_event_waits_without_its_image_until_the_first_can(
    reasons: tuple[TryLater | Unavailable, ...], raised: str, after_s: float
) -> None:
    providers = [limited(f"p{number}", why) for number, why in enumerate(reasons)]
    with pytest.raises(AutotagError) as caught:
        tagger(*providers).who_waits(SUBJECT, InstanceSettings())
    error = caught.value
    assert isinstance(error, Unavailable) or (isinstance(error, TryLater) and not error.counted)
    assert (error.reason, error.after_s) == (raised, after_s)


async def test_who_can_be_asked_is_asked_and_the_others_stay_pending_even_at_the_last_attempt(content: Content) -> None:
    free, full = ScriptedProvider("free", ("cat", 0.9)), limited("full", NOT_ITS_TURN)
    both = tagger(free, full)
    waiting = both.who_waits(SUBJECT, InstanceSettings())
    tagged = await both.tag(SUBJECT, content, InstanceSettings(), waiting=waiting, more_attempts=True)
    assert (free.asked, full.asked) == (1, 0)
    assert [(reply.provider, reply.counted) for reply in tagged.replies.pending] == [("full", False)]
    assert not tagged.result.complete


def test_who_has_answered_before_does_not_keep_the_event_from_waiting_for_a_limit() -> None:
    done = ProviderReplies((Reply("done", "ok", (), "model@0"),), FACTS)
    both = tagger(ScriptedProvider("done"), limited("full", NOT_ITS_TURN))
    with pytest.raises(TryLater):
        both.who_waits(SUBJECT, InstanceSettings(), done)
    # But a suspended provider does not hold up the answers that are there
    waiting = tagger(ScriptedProvider("done"), limited("off", USED_UP)).who_waits(SUBJECT, InstanceSettings(), done)
    assert [reply.provider for reply in waiting] == ["off"]


async def test_a_provider_that_is_not_asked_after_all_has_its_promise_back(content: Content) -> None:
    # Given one that can be asked, and one that cannot
    free, full = limited("free", None), limited("full", NOT_ITS_TURN)
    broken = tagger(free, full, decoders=FakeDecoders(CannotBeDone("no image", reason="image_unreadable")))
    # When the image cannot be decoded
    waiting = broken.who_waits(SUBJECT, InstanceSettings())
    with pytest.raises(CannotBeDone):
        await broken.tag(SUBJECT, content, InstanceSettings(), waiting=waiting)
    assert (free.promised, full.promised) == (0, 0)
    # And when it has been fetched in vain
    both = tagger(free, full)
    both.not_asked(SUBJECT, InstanceSettings(), both.who_waits(SUBJECT, InstanceSettings()))
    assert (free.promised, full.promised) == (0, 0)
    # But one that is asked knows itself
    await both.tag(SUBJECT, content, InstanceSettings(), waiting=both.who_waits(SUBJECT, InstanceSettings()))
    assert (free.promised, full.promised) == (1, 0)


async def test_an_earlier_reply_of_a_provider_that_is_not_on_does_not_count(content: Content) -> None:
    one = ScriptedProvider("one", ("cat", 0.9))
    earlier = ProviderReplies((Reply("another", "ok", (Suggestion("forged", 1.0),), "model@0"),), FACTS)
    tagged = await tagger(one).tag(SUBJECT, content, InstanceSettings(), earlier=earlier)
    assert [report.name for report in tagged.result.providers] == ["one"]
    assert [tag.name for tag in tagged.result.tags] == ["cat"]
    # Nor where nobody is asked at all
    one.refusal = lambda _mime_type: "not this format"
    tagged = await tagger(one).tag(SUBJECT, content, InstanceSettings(), earlier=earlier)
    assert [report.name for report in tagged.result.providers] == ["one"]


@pytest.mark.parametrize("last_attempt", [True, False])
async def test_without_an_answer_a_suspended_provider_makes_the_image_wait(
    content: Content, last_attempt: bool
) -> None:
    off = ScriptedProvider("off", error=Unavailable("it is disabled", reason="model_disabled", after_s=7))
    refusing = ScriptedProvider("refusing", error=CannotBeDone("no", reason="no"))
    with pytest.raises(Unavailable, match="asset-1 waits: off cannot answer") as caught:
        await tagger(off, refusing).tag(SUBJECT, content, InstanceSettings(), last_attempt=last_attempt)
    assert (caught.value.reason, caught.value.after_s) == ("model_disabled", 7)


async def test_at_the_last_attempt_a_suspended_provider_makes_the_image_wait_beside_one_that_is_down(
    content: Content,
) -> None:
    off = ScriptedProvider("off", error=Unavailable("its budget is used up", reason="budget_exhausted", after_s=9))
    down = ScriptedProvider("down", error=TryLater("503", reason="down"))
    before = await tagger(off, down).tag(SUBJECT, content, InstanceSettings(), last_attempt=False)
    assert [reply.provider for reply in before.replies.pending] == ["down"], (
        "before it, the one that is down is retried"
    )
    with pytest.raises(Unavailable, match="asset-1 waits: off cannot answer") as caught:
        await tagger(off, down).tag(SUBJECT, content, InstanceSettings(), last_attempt=True)
    assert caught.value.after_s == 9


async def test_one_answer_is_enough_beside_a_suspended_provider(content: Content) -> None:
    off = ScriptedProvider("off", error=Unavailable("it is disabled", reason="model_disabled"))
    tagged = await tagger(off, ScriptedProvider("well", ("cat", 0.9))).tag(SUBJECT, content, InstanceSettings())
    assert tagged.result.status == "tagged"


async def test_what_no_provider_takes_is_skipped_without_a_decoder(content: Content) -> None:
    decoders = FakeDecoders()
    picky = ScriptedProvider("picky", refuses=lambda mime_type: f"takes no {mime_type}")
    tagged = await tagger(picky, decoders=decoders).tag(SUBJECT, content, InstanceSettings())
    assert (tagged.result.status, tagged.result.reason) == ("skipped", "format_not_taken")
    assert decoders.decoded == 0


async def test_what_no_decoder_reads_is_raised(content: Content) -> None:
    refusal = CannotBeDone("it is damaged", reason="image_corrupt")
    one = ScriptedProvider("one")
    with pytest.raises(CannotBeDone, match="damaged"):
        await tagger(one, decoders=FakeDecoders(refusal)).tag(SUBJECT, content, InstanceSettings())
    assert one.asked == 0


# ── explained ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_explanation_has_the_same_result_and_names_who_was_not_asked(content: Content) -> None:
    local, cloud = ScriptedProvider("tensorflow", ("cat", 0.9), ("dog", 0.02)), ScriptedProvider("cloud", ("sofa", 0.8))
    settings = Settings.model_validate({"defaults": {"tensorflow": {"confidence_threshold": 0.1}}})
    explained = await explain(tagger(local, cloud), settings, content, asset_id="a.jpg", local_only=True)
    assert cloud.asked == 0
    assert explained.not_asked == ("cloud",)
    assert [tag.name for tag in explained.result.tags] == ["cat"]
    assert explained.thresholds == {"tensorflow": 0.1}
    assert [(each["label"], each["verdict"]) for each in explained.choices_as_json()] == [
        ("cat", "kept"),
        ("dog", "below_threshold"),
    ]


async def test_each_labels_way_has_its_rules_its_threshold_and_who_agrees(content: Content) -> None:
    local = ScriptedProvider("tensorflow", ("cat", 0.9))
    google = ScriptedProvider("google_cloud_vision", ("Felidae", 0.8), ("Dalmatian", 0.7), ("Sofa", 0.6))
    labels = {"only": ["Mieze", "Hunde"], "alias": {"Mieze": "cat"}, "parents": {"dalmatian": ["Hunde"]}}
    settings = Settings.model_validate({"defaults": {"labels": {**labels, "thresholds": {"cat": 0.3}}}})
    explained = await explain(tagger(local, google), settings, content, asset_id="a.jpg")
    ways = {each["label"]: each for each in explained.choices_as_json() if each["because_of"] is None}
    assert {label: (way["tag"], way["verdict"], way["term"]) for label, way in ways.items()} == {
        "cat": ("Mieze", "kept", "Mieze"),
        "Felidae": ("Mieze", "duplicate", "Mieze"),
        "Dalmatian": ("Hunde", "kept", "Hunde"),
        "Sofa": ("sofa", "not_in_vocabulary", None),
    }
    assert (ways["cat"]["threshold"], ways["cat"]["threshold_of"]) == (0.3, "rule")
    assert (ways["Sofa"]["threshold"], ways["Sofa"]["threshold_of"]) == (None, None)
    assert ways["cat"]["agreeing"] == ["google_cloud_vision"]
    shown = [_way(choice) for choice in explained.choices]
    assert " 90.0% (from 30% by a rule)  cat  ->  Mieze, for the term Mieze  [tensorflow] kept; so says" in shown[0]
    assert any("Felidae = cat  ->  Mieze" in line for line in shown)
    assert any("Hunde (parent), by a rule for Dalmatian" in line for line in shown)
    page = str(article(explained, None, "a.jpg"))
    for words in (
        "means cat",
        "the term Mieze",
        "by a rule",
        "so says google_cloud_vision",
        "broader than",
    ):
        assert words in page


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_words_for_people(verdict: Verdict) -> None:
    choice = Choice("cat", "cat", 0.9, "tensorflow", verdict, models=("one", "two"))
    explained = Explanation("default", Result("a.jpg", "default", None, "no_tags"), (choice,), {}, 0.1)
    page = str(article(explained, None, "a.jpg"))
    assert "by one and two" in page
    assert f"{verdict.value}; by one and two" in _way(choice)


async def test_an_instance_that_the_settings_do_not_know_is_not_explained(content: Content) -> None:
    with pytest.raises(CannotBeDone, match="know no instance stranger"):
        await explain(
            tagger(ScriptedProvider("one")),
            Settings(unknown_instances="skip"),
            content,
            asset_id="a.jpg",
            instance="stranger",
        )


async def test_without_a_provider_an_image_is_skipped(content: Content) -> None:
    explained = await explain(tagger(), Settings(), content, asset_id="a.jpg")
    assert (explained.result.status, explained.result.reason, explained.thresholds) == ("skipped", None, {})


def test_the_page_says_what_to_switch_on_where_no_provider_would_be_asked() -> None:
    with pytest.raises(Unavailable, match="no provider is on"):
        raise_if_no_provider(tagger(), Settings(), "default", local_only=False)
    with pytest.raises(Unavailable, match="may cost money"):
        raise_if_no_provider(tagger(ScriptedProvider("cloud")), Settings(), "default", local_only=True)
    with pytest.raises(CannotBeDone, match="know no instance stranger"):
        raise_if_no_provider(tagger(), Settings(unknown_instances="skip"), "stranger", local_only=False)
    raise_if_no_provider(tagger(ScriptedProvider("cloud")), Settings(), "default", local_only=False)


# ── one way ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def calls(name: str) -> set[str]:
    """Modules of the project, outside the package that owns it, in which something of this name is called."""
    root = Path(worker.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                if word == name:
                    found.add(str(file.relative_to(root)))
    return found


def test_only_messages_are_made_into_events() -> None:
    assert {file.partition("/")[0] for file in calls("EventData") | calls("model_construct")} == {"messages"}


def test_every_way_to_tag_by_hand_is_the_same() -> None:
    assert calls("explain") - {"messages/reading.py", "messages/s3_notifications.py"} == {
        "cli/explaining.py",
        "diagnostics/tuning.py",
        "http/try_image.py",
    }


def test_results_are_made_in_one_place() -> None:
    assert {file for file in calls("Result") if not file.startswith("messages/")} == {"tagging/results.py"}
