"""Answers that are given again: who is asked about an image that looks the same as one before, and its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.scripted_provider import ScriptedProvider
from worker.images.content import Content
from worker.images.perceptual_hash import PerceptualHash
from worker.images.requests import JpegLimits, PixelRecipe
from worker.messages import ImageFacts, ProviderReport, write_result
from worker.operations.metrics import Metrics
from worker.providers.replies import ProviderReplies, pack, unpack
from worker.settings import InstanceSettings, Settings
from worker.supervision.decoder_pool import Decoded
from worker.supervision.turns import Turn
from worker.tagging.explain import explain
from worker.tagging.near_duplicates import NearDuplicates
from worker.tagging.results import Subject
from worker.tagging.tagger import Tagged, Tagger

ON = InstanceSettings.model_validate({"near_duplicates": {"enabled": True, "providers": ["tensorflow", "other"]}})
PICTURE = PerceptualHash(0x0123_4567_89AB_CDEF, None, (90, 100, 110))
COPY = replace(PICTURE, bits=PICTURE.bits ^ 0b11)

WHY_IT_IS_ASKED = ["off", "another instance", "no hash", "another model", "another threshold", "not named"]


class Repeatable(ScriptedProvider):
    """A provider whose answers may be given again; its model can be changed."""

    model = "model@1"

    def answer_depends_on(self, instance: InstanceSettings) -> str:
        return f"{self.model} {instance.tensorflow.threshold}"

    def cpu_s_per_answer(self) -> float:
        return 0.25


class Decoders:
    """Finds every picture to be the next of `hashes`, with another digest each time. `asked_for` records `hashed`."""

    def __init__(self, *hashes: PerceptualHash | None) -> None:
        self.hashes = list(hashes)
        self.asked_for: list[bool] = []

    async def decode(
        self, content: Content, recipes: tuple[PixelRecipe, ...], asset: str, turn: Turn, *, hashed: bool = False
    ) -> Decoded:
        self.asked_for.append(hashed)
        facts = ImageFacts("JPEG", 400, 300, f"{len(self.asked_for):064x}")
        return Decoded(facts, None, self.hashes.pop(0) if hashed else None)

    async def shrink(self, content: Content, limits: JpegLimits, asset: str, turn: Turn) -> bytes:
        raise AssertionError("no scripted provider asks for a JPEG")


@pytest.fixture
def content() -> Iterator[Content]:
    with Content.from_bytes(b"\xff\xd8\xff\xe0 a picture", "test") as content:
        yield content


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.instances.configure(["acme"])
    return metrics


def subject(asset: str, instance: str = "acme") -> Subject:
    return Subject(asset, instance, f"event of {asset}")


def report(tagged: Tagged, provider: str = "tensorflow") -> ProviderReport:
    return next(each for each in tagged.result.providers if each.name == provider)


async def test_the_provider_is_not_asked_and_the_result_says_so(content: Content, metrics: Metrics) -> None:
    # Given an image that was tagged, and one that looks the same
    local = Repeatable("tensorflow", ("cat", 0.9), ("sofa", 0.05))
    tagger = Tagger(Decoders(PICTURE, COPY), (local,), metrics, NearDuplicates(10))
    first = await tagger.tag(subject("first"), content, ON)
    # When that is tagged
    second = await tagger.tag(subject("second"), content, ON)
    # Then the model has been asked once, and both have the same tags by the same rules
    assert local.asked == 1
    assert first.result.tags == second.result.tags
    assert [tag.name for tag in second.result.tags] == ["cat"]
    # And the second result says whose they are
    assert (report(first).near_duplicate_of, report(first).distance) == (None, None)
    assert (report(second).near_duplicate_of, report(second).distance) == ("first", 2)
    assert (report(second).status, report(second).model, report(second).duration_s) == ("ok", "tensorflow@1", None)
    # And so do the metrics
    labels = {"provider": "tensorflow", "dms_instance": "acme"}
    assert metrics.registry.get_sample_value("autotag_near_duplicates_total", labels) == 1
    assert metrics.registry.get_sample_value("autotag_near_duplicates_cpu_saved_seconds_total", labels) == 0.25


async def test_an_answer_given_again_is_not_handed_on_further(content: Content, metrics: Metrics) -> None:
    third = replace(PICTURE, bits=COPY.bits ^ 0b1100)
    local = Repeatable("tensorflow", ("cat", 0.9))
    tagger = Tagger(Decoders(PICTURE, COPY, third), (local,), metrics, NearDuplicates(10))
    last = [await tagger.tag(subject(str(number)), content, ON) for number in range(3)][-1]
    assert local.asked == 2, "the third is two bits from the second, and four from the first"
    assert report(last).near_duplicate_of is None


@pytest.mark.parametrize("why", WHY_IT_IS_ASKED)
async def test_the_provider_is_asked(content: Content, metrics: Metrics, why: str) -> None:
    local, settings, second = Repeatable("tensorflow", ("cat", 0.9)), ON, subject("second")
    decoders = Decoders(PICTURE, None if why == "no hash" else PICTURE)
    tagger = Tagger(decoders, (local,), metrics, NearDuplicates(10))
    await tagger.tag(subject("first"), content, settings)
    match why:
        case "off":
            settings = InstanceSettings()
        case "another instance":
            second = subject("second", "beta")
        case "another model":
            local.model = "model@2"
        case "another threshold":
            settings = InstanceSettings.model_validate(
                {"near_duplicates": {"enabled": True}, "tensorflow": {"confidence_threshold": 0.2}}
            )
        case "not named":
            settings = InstanceSettings.model_validate({"near_duplicates": {"enabled": True, "providers": []}})
    tagged = await tagger.tag(second, content, settings)
    assert local.asked == 2
    assert report(tagged).near_duplicate_of is None
    assert decoders.asked_for == [True, why not in ("off", "not named")]


async def test_an_event_that_is_handled_again_has_the_same_result_with_the_same_id(
    content: Content, metrics: Metrics
) -> None:
    local = Repeatable("tensorflow", ("cat", 0.9))

    class SameFile(Decoders):
        async def decode(self, *arguments: object, hashed: bool = False, **more: object) -> Decoded:
            return Decoded(ImageFacts("JPEG", 400, 300, "a" * 64), None, PICTURE)

    tagger = Tagger(SameFile(), (local,), metrics, NearDuplicates(10))
    results = [(await tagger.tag(subject("first"), content, ON)).result for _ in range(2)]
    ids = [write_result(each, event=None, settings_digest="s").message_id for each in results]
    assert local.asked == 1
    assert ids[0] == ids[1]


async def test_only_what_is_missing_is_asked_of_several_providers(content: Content, metrics: Metrics) -> None:
    # Given one provider that may be repeated, and one that may not
    local, other = Repeatable("tensorflow", ("cat", 0.9)), ScriptedProvider("other", ("pet", 0.8))
    tagger = Tagger(Decoders(PICTURE, COPY), (local, other), metrics, NearDuplicates(10))
    await tagger.tag(subject("first"), content, ON)
    tagged = await tagger.tag(subject("second"), content, ON)
    assert (local.asked, other.asked) == (1, 2)
    assert [tag.name for tag in tagged.result.tags] == ["cat", "pet"]
    assert [each.near_duplicate_of for each in tagged.result.providers] == ["first", None]
    # And an event that waits for another attempt keeps it
    assert unpack(pack(tagged.replies)) == tagged.replies


async def test_a_header_of_ordinary_replies_is_what_it_always_was(content: Content, metrics: Metrics) -> None:
    tagged = await Tagger(Decoders(), (ScriptedProvider("one", ("cat", 0.9)),), metrics).tag(
        subject("first"), content, InstanceSettings()
    )
    header = pack(tagged.replies)
    assert "near_duplicate" not in header
    forged = header.replace('"duration_s"', '"near_duplicate_of":"","distance":65,"duration_s"')
    assert unpack(forged) == ProviderReplies()


async def test_a_failure_and_an_incomplete_answer_are_not_remembered(content: Content, metrics: Metrics) -> None:
    local = Repeatable("tensorflow", error=RuntimeError("no"))
    tagger = Tagger(Decoders(PICTURE, PICTURE), (local,), metrics, NearDuplicates(10))
    for number in range(2):
        await tagger.tag(subject(str(number)), content, ON, last_attempt=False)
    assert local.asked == 2


async def test_an_explanation_asks_unless_it_is_to_remember(content: Content, metrics: Metrics) -> None:
    local = Repeatable("tensorflow", ("cat", 0.9))
    tagger = Tagger(Decoders(*[PICTURE] * 3), (local,), metrics, NearDuplicates(10))
    settings = Settings(defaults=ON)
    for remembering in (False, True, True):
        last = await explain(tagger, settings, content, asset_id=f"{local.asked}", remembering=remembering)
    assert local.asked == 2
    assert last.result.providers[0].near_duplicate_of == "1"
