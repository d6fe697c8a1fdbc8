"""An instance's rules over what the cloud services really answer: their fakes, over HTTP, beside the local model."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cloud import MARKER_KEY, google_table, image_of, microsoft_table, picture, started
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from worker.messages import Tag
from worker.providers.base import Answer, Suggestion
from worker.providers.google_cloud_vision import GoogleCloudVision
from worker.providers.microsoft_vision import MicrosoftVision
from worker.providers.replies import ProviderReplies, Reply
from worker.settings import InstanceSettings, load_settings
from worker.tagging.results import Subject
from worker.tagging.tagger import conclude
from worker.vocabulary import ConceptKind, concepts, names
from worker.vocabulary.aliases import aliases

DOCS = Path(__file__).parents[2] / "docs" / "tags.md"


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    with FakeGoogle(MARKER_KEY) as fake:
        yield fake


@pytest.fixture
def microsoft() -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(MARKER_KEY) as fake:
        yield fake


class ThreeProviders:
    """Both services, asked for an image each time, and what the local model would say."""

    def __init__(self, google: FakeGoogle, microsoft: FakeMicrosoft, directory: Path, **instance: Any) -> None:
        self._google = google
        self._microsoft = microsoft
        self._directory = directory
        self._stack = AsyncExitStack()
        self._asked = 0
        settings = {
            "google_cloud_vision": google_table(google.url, MARKER_KEY, maximum_number_of_results=50),
            "microsoft_vision": microsoft_table(microsoft.url + "/vision/v3.2", MARKER_KEY, language="es"),
        }
        self.instance = InstanceSettings.model_validate(settings | instance)

    async def __aenter__(self) -> ThreeProviders:
        self._of_google = await self._stack.enter_async_context(started(GoogleCloudVision, self._directory / "g"))
        self._of_microsoft = await self._stack.enter_async_context(started(MicrosoftVision, self._directory / "m"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def tags(
        self, local: list[Suggestion], google: dict[str, float], microsoft: dict[str, float]
    ) -> tuple[Tag, ...]:
        """The tags of one image that the three name so."""
        self._asked += 1
        self._google.labels = [{"description": name, "score": score} for name, score in google.items()]
        self._microsoft.tags = [{"name": name, "confidence": confidence} for name, confidence in microsoft.items()]
        data = picture(self._asked)
        of_google, of_microsoft = await asyncio.gather(
            self._of_google.tag(image_of(data), self.instance), self._of_microsoft.tag(image_of(data), self.instance)
        )
        answers = {
            "tensorflow": Answer(tuple(local), "local"),
            "google_cloud_vision": of_google,
            "microsoft_vision": of_microsoft,
        }
        replies = ProviderReplies(
            tuple(Reply(name, "ok", answer.suggestions, answer.model) for name, answer in answers.items())
        )
        return conclude(Subject("a.jpg", "acme", "event-1"), replies, self.instance, 0).result.tags


async def test_felidae_cat_and_gato_are_one_tag_in_the_instances_language(
    google: FakeGoogle, microsoft: FakeMicrosoft, tmp_path: Path
) -> None:
    concept = "wn:02121808-n"
    three = ThreeProviders(google, microsoft, tmp_path, language="de", tensorflow={"tags": "concepts"})
    async with three:
        tags = await three.tags([Suggestion("cat", 0.8, concept)], {"Felidae": 0.97, "Crane": 0.9}, {"gato": 0.99})
    assert [(tag.name, tag.concept, tag.provider, tag.confidence) for tag in tags] == [
        ("Katze", concept, "microsoft_vision", 0.99),
        ("Crane", None, "google_cloud_vision", 0.9),
    ]


async def test_of_a_thousand_answers_of_three_providers_only_fifty_terms_ever_come_out(
    google: FakeGoogle, microsoft: FakeMicrosoft, tmp_path: Path
) -> None:
    chance = random.Random(50)
    every = [one for one in concepts().values() if one.kind in {ConceptKind.LABEL, ConceptKind.NODE}]
    terms = [names("fr")[one.id] for one in chance.sample(every, 48)] + ["Nos chiens", "Felidae"]
    labels = {
        "alias": {"Azor": "Nos chiens"},
        "parents": {"dog": ["Nos chiens"]},
        "thresholds": {"Nos chiens": 0.2},
        "only": terms,
    }
    words = [word for each in aliases() for word in (*each.same, *each.narrower)]
    seen: set[str] = set()
    async with ThreeProviders(google, microsoft, tmp_path, labels=labels) as three:
        for _ in range(334):  # three answers each
            local = [Suggestion(names("en")[one.id], chance.random(), one.id) for one in chance.sample(every, 5)]
            named = {names("en")[one.id].title(): chance.random() for one in chance.sample(every, 4)}
            of_google = named | {word.title(): chance.random() for word in chance.sample(words, 8)}
            of_microsoft = {names("es")[one.id]: chance.random() for one in chance.sample(every, 8)} | {"azor": 0.5}
            seen |= {tag.name for tag in await three.tags(local, of_google, of_microsoft)}
    assert len(seen) > 25
    assert {"Nos chiens", "Felidae"} <= seen <= set(terms)


async def test_the_file_of_the_documentation_does_what_stands_beside_it(
    google: FakeGoogle, microsoft: FakeMicrosoft, tmp_path: Path
) -> None:
    found = re.search(r"<!-- A test reads this file.*?-->\n```toml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "rules.toml").write_text(found[1], "utf-8")
    (tmp_path / "autotag.toml").write_text(
        f'[defaults.tensorflow]\ntags = "concepts"\n[defaults.labels]\nrules_file = "{tmp_path / "rules.toml"}"\n'
    )
    labels = load_settings(environ={}, directory=tmp_path).settings.defaults.labels
    three = ThreeProviders(google, microsoft, tmp_path, tensorflow={"tags": "concepts"})
    three.instance = three.instance.model_copy(update={"labels": labels})
    async with three:
        tags = await three.tags(
            [Suggestion("dog", 0.45, "wn:02084071-n", "parent"), Suggestion("dalmatian", 0.7, "wn:02110341-n")],
            {"Felidae": 0.97, "Moggy": 0.95, "Automobile": 0.9, "Font": 0.9, "Human": 0.89, "Fire truck": 0.8},
            {"rex": 0.6, "tornillo": 0.9},
        )
    assert {tag.name: (tag.confidence, tag.kind) for tag in tags} == {
        "animal": (0.97, "label"),
        "Cats kittens": (0.95, "label"),
        "Automobiles": (0.9, "label"),
        "screw": (0.9, "label"),
        "fire engine": (0.8, "label"),
        "Fire brigade": (0.8, "parent"),
        "Our vehicles": (0.8, "parent"),
        "dalmatian": (0.7, "label"),
        "Our dogs": (0.7, "parent"),
        "Team": (0.7, "parent"),
        "dog": (0.45, "parent"),
    }
