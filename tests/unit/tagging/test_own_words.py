"""A closed vocabulary: nothing but the customer's terms, by whichever provider it is suggested, and under any name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.cli.app import app
from worker.providers.base import Suggestion
from worker.settings import LabelRules, LabelsSettings
from worker.tagging.merge import Thresholds, Verdict, choose, tags_of
from worker.tagging.rules import Rules
from worker.vocabulary import ConceptKind, concepts, names


def term_for(terms: list[str], suggestion: Suggestion) -> str | None:
    return Rules(LabelRules(only=terms), by_concept=False).read(suggestion).term


TABBY = Suggestion("tabby", 0.9, "wn:02123045-n")
CAT = Suggestion("cat", 0.9, "wn:02121808-n")


@pytest.mark.parametrize("term", ["cat", "CAT", "chat", "gatto", "wn:02121808-n", "n02121808"])
@pytest.mark.parametrize(
    "suggestion", [CAT, TABBY, Suggestion("Cat", 0.7), Suggestion("Tabby", 0.7), Suggestion("gatto", 0.7)]
)
def test_a_term_stands_for_its_concept_and_all_below_whatever_the_language(term: str, suggestion: Suggestion) -> None:
    assert term_for(["dog", term], suggestion) == term


def test_the_narrowest_term_is_meant_and_nothing_broader_than_any() -> None:
    own = ["animal", "cat"]
    assert term_for(own, TABBY) == "cat"
    assert term_for(own, Suggestion("animal", 0.9, "wn:00015388-n")) == "animal"
    assert term_for(["tabby"], CAT) is None


def test_a_term_that_is_no_concept_is_a_name_that_a_provider_may_suggest() -> None:
    own = Rules(LabelRules(only=["Our Product", "cat"]), by_concept=False)
    assert own.unknown_terms == ["Our Product"]
    assert own.read(Suggestion("our product", 0.5)).term == "Our Product"


def test_of_a_thousand_answers_of_three_providers_only_fifty_terms_ever_come_out() -> None:
    chance = random.Random(50)
    every = [one for one in concepts().values() if one.kind in {ConceptKind.LABEL, ConceptKind.NODE}]
    terms = tuple(names("fr")[one.id] for one in chance.sample(every, 50))
    rules = LabelsSettings(only=terms)
    seen = set()
    for _ in range(1000):
        chosen = chance.sample(every, 9)
        suggestions = {
            "tensorflow": [Suggestion(names("en")[one.id], chance.random(), one.id) for one in chosen[:3]],
            "google_cloud_vision": [Suggestion(names("en")[one.id].title(), chance.random()) for one in chosen[3:6]],
            "microsoft_vision": [Suggestion(names("it")[one.id], chance.random()) for one in chosen[6:]],
        }
        choices = choose(suggestions, thresholds={"tensorflow": Thresholds(0.3, 0.6, 3)}, rules=rules)
        seen |= {tag.name for tag in tags_of(choices)}
    assert seen
    assert seen <= set(terms)


def test_what_is_left_out_says_why_and_other_rules_hold_for_the_terms() -> None:
    choices = choose({"x": [TABBY, Suggestion("sofa", 0.8)]}, thresholds={}, rules=LabelsSettings(only=["chat"]))
    assert {choice.label: choice.verdict for choice in choices} == {
        "tabby": Verdict.KEPT,
        "sofa": Verdict.NOT_IN_VOCABULARY,
    }
    (tag,) = tags_of(choices)
    assert (tag.name, tag.concept, tag.language) == ("chat", TABBY.concept, None)
    renamed = LabelsSettings(only=["chat"], rename={"chat": "Mieze"})
    assert [tag.name for tag in tags_of(choose({"x": [TABBY]}, thresholds={}, rules=renamed))] == ["Mieze"]


def test_the_command_shows_what_terms_mean_and_what_is_like_others(tmp_path: Path) -> None:
    file = tmp_path / "terms.txt"
    file.write_text("# ours\nchat\n\nvehicule\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["--traceable", "vocabulary", "map", str(file)])
    assert done.exit_code == 1
    assert "chat: wn:02121808-n (cat)" in done.stdout
    assert "véhicule" in done.stderr
    file.write_bytes("K\xe4se\n".encode("latin-1"))
    done = CliRunner().invoke(app, ["--traceable", "vocabulary", "map", str(file)])
    assert (done.exit_code, "save it as UTF-8" in done.stderr) == (2, True)


def test_the_command_knows_the_words_of_an_instance(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("Moggy\nOur dogs\nFelidae\n")
    (tmp_path / "autotag.toml").write_text(
        '[instances.acme.labels]\nalias = { Moggy = "cat" }\nparents = { dog = ["Our dogs"] }\n'
    )
    command = [
        "--traceable",
        "--config",
        str(tmp_path / "autotag.toml"),
        "vocabulary",
        "map",
        str(tmp_path / "terms.txt"),
    ]
    done = CliRunner().invoke(app, [*command, "--instance", "acme"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "Moggy: wn:02121808-n (cat)",
        "Our dogs: a broader term of your own",
        "Felidae: wn:02121808-n (cat)",
    ]
    assert CliRunner().invoke(app, command).exit_code == 1
