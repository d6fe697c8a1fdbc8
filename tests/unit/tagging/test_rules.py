"""An instance's rules hold for all providers alike, and what they make of a label is in no doubt."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.base import Suggestion
from worker.settings import LabelRules
from worker.tagging.merge import Choice, Thresholds, Verdict, choose, tags_of
from worker.vocabulary import ConceptKind, concepts, names
from worker.vocabulary.aliases import aliases

CAT, DOG, DALMATIAN, ANIMAL = "wn:02121808-n", "wn:02084071-n", "wn:02110341-n", "wn:00015388-n"
LOCAL = {"tensorflow": Thresholds(0.6, 0.65, 3)}


def chosen(suggestions: dict[str, list[Suggestion]], *, by_concept: bool = True, **rules: Any) -> list[Choice]:
    language = rules.pop("language", "en")
    return choose(
        suggestions,
        thresholds=LOCAL,
        rules=LabelRules(**rules),
        language=language,
        by_concept=by_concept,
        spoken={"google_cloud_vision": "en", "microsoft_vision": "de"},
    )


def named(choices: list[Choice]) -> list[str]:
    return [tag.name for tag in tags_of(choices)]


OF_THREE = {
    "tensorflow": [Suggestion("cat", 0.9, CAT)],
    "google_cloud_vision": [Suggestion("Felidae", 0.97)],
    "microsoft_vision": [Suggestion("Katze", 0.8)],
}


@pytest.mark.parametrize("language", ["en", "de", "ja"])
def test_a_scientific_name_a_label_and_a_word_of_another_language_are_one_tag(language: str) -> None:
    choices = chosen(OF_THREE, language=language)
    (tag,) = tags_of(choices)
    assert (tag.name, tag.concept, tag.language) == (names(language)[CAT], CAT, language)
    assert (tag.confidence, tag.provider) == (0.97, "google_cloud_vision")
    assert choices[0].agreeing == ("tensorflow", "microsoft_vision")
    assert [choice.verdict for choice in choices[1:]] == [Verdict.DUPLICATE] * 2


def test_with_labels_by_their_scores_alone_words_stay_words() -> None:
    choices = chosen(OF_THREE, by_concept=False)
    assert [(tag.name, tag.concept) for tag in tags_of(choices)] == [("Felidae", None), ("cat", CAT), ("Katze", None)]


def test_a_provider_that_is_not_sure_enough_does_not_agree() -> None:
    unsure = OF_THREE | {"tensorflow": [Suggestion("cat", 0.5, CAT)]}
    assert chosen(unsure)[0].agreeing == ("microsoft_vision",)


@pytest.mark.parametrize("word", ["Crane", "Orange", "Nail", "Indoor", "Chat", "Gift"])
def test_a_word_of_google_that_means_several_things_or_none_in_english_stays_a_word(word: str) -> None:
    (tag,) = tags_of(chosen({"google_cloud_vision": [Suggestion(word, 0.9)]}))
    assert (tag.name, tag.concept, tag.language) == (word, None, None)


def test_a_word_with_two_meanings_is_a_term_only_where_both_are_that_term() -> None:
    sign_or_shield = {"one whose language is unknown": [Suggestion("Schild", 0.9)]}  # German, or Dutch
    assert [(tag.name, tag.concept) for tag in tags_of(chosen(sign_or_shield))] == [("Schild", None)]
    assert named(chosen(sign_or_shield, only=["sign", "cat"])) == []
    assert named(chosen(sign_or_shield, only=["Schild"])) == ["Schild"]


@pytest.mark.parametrize(("term", "language", "name"), [("Boot", "de", "boat"), ("ape", "it", "bee")])
def test_a_term_means_what_it_does_in_any_language_although_it_is_an_english_word(
    term: str, language: str, name: str
) -> None:
    one = next(one for one, text in names("en").items() if text == name)
    assert names(language)[one].casefold() == term.casefold()
    assert named(chosen({"google_cloud_vision": [Suggestion(name, 0.9)]}, only=[term])) == [term]


def test_something_narrower_stays_a_word_and_in_a_closed_vocabulary_is_the_term_above() -> None:
    kitten = {"google_cloud_vision": [Suggestion("Kitten", 0.9)]}
    assert [(tag.name, tag.concept) for tag in tags_of(chosen(kitten))] == [("Kitten", None)]
    assert named(chosen(kitten, only=["Haustier", "animal"])) == ["animal"]


class TestAliases:
    def test_an_alias_is_its_concept_whatever_the_mode(self) -> None:
        given = {"google_cloud_vision": [Suggestion("MOGGY", 0.9)], "tensorflow": [Suggestion("cat", 0.8, CAT)]}
        for by_concept in (True, False):
            (tag,) = tags_of(chosen(given, by_concept=by_concept, alias={"Moggy": "Katze"}))
            assert (tag.name, tag.concept) == ("cat", CAT)

    def test_an_alias_may_undo_one_that_is_built_in(self) -> None:
        choices = chosen(OF_THREE, alias={"Felidae": "animal"})
        assert named(choices) == ["animal", "cat"]

    def test_a_term_may_be_an_alias(self) -> None:
        assert named(chosen(OF_THREE, only=["Mieze"], alias={"Mieze": "cat"})) == ["Mieze"]


class TestBroaderTerms:
    DOGS: ClassVar = {
        "tensorflow": [Suggestion("dalmatian", 0.7, DALMATIAN)],
        "google_cloud_vision": [Suggestion("Spot", 0.9)],
    }

    @pytest.mark.parametrize("by_concept", [True, False])
    def test_a_label_has_the_instances_own_broader_terms_too(self, by_concept: bool) -> None:
        rules: dict[str, Any] = {
            "parents": {"Dalmatian": "Our dogs", "our dogs": ["Team"]},
            "alias": {"Spot": "Our dogs"},
        }
        choices = chosen(self.DOGS, by_concept=by_concept, **rules)
        assert {tag.name: (tag.confidence, tag.kind) for tag in tags_of(choices)} == {
            "Our dogs": (0.9, "label"),
            "Team": (0.9, "parent"),
            "dalmatian": (0.7, "label"),
        }
        assert {each.name: each.because_of for each in choices if each.verdict is Verdict.KEPT}["Team"] == "Spot"

    def test_what_is_below_a_concept_has_its_broader_terms_and_concepts_may_be_added(self) -> None:
        choices = chosen(self.DOGS, parents={"dog": ["Pets of ours", "toy"]})
        added = {tag.name: tag.concept for tag in tags_of(choices) if tag.name not in ("dalmatian", "Spot")}
        assert added == {"Pets of ours": None, "toy": "wn:03964744-n"}

    def test_a_label_that_is_no_tag_has_none(self) -> None:
        unsure = {"tensorflow": [Suggestion("dalmatian", 0.64, DALMATIAN, specific=True)]}
        assert named(chosen(unsure, parents={"dalmatian": ["Our dogs"]})) == []

    def test_they_are_terms_of_a_closed_vocabulary_and_no_maximum_counts_them(self) -> None:
        rules: dict[str, Any] = {"parents": {"dalmatian": ["Our dogs"]}, "only": ["Our dogs"]}
        assert named(chosen(self.DOGS, **rules)) == ["Our dogs"]
        four: dict[str, Any] = {"parents": {"dalmatian": ["a", "b", "c", "d"]}}
        assert len(named(chosen({"tensorflow": self.DOGS["tensorflow"]}, **four))) == 5


class TestThresholds:
    @pytest.mark.parametrize(("threshold", "kept"), [(0.95, []), (0.1, ["cat"])])
    def test_one_of_a_concept_replaces_the_providers_lower_or_higher(self, threshold: float, kept: list[str]) -> None:
        for suggestion in (Suggestion("cat", 0.5, CAT), Suggestion("Felidae", 0.5)):
            for provider in ("tensorflow", "google_cloud_vision"):
                choices = chosen({provider: [suggestion]}, thresholds={"Katze": threshold})
                assert named(choices) == kept
                assert (choices[0].threshold, choices[0].threshold_of_rule) == (threshold, True)

    def test_one_of_a_label_is_its_own_and_not_of_what_is_narrower(self) -> None:
        choices = chosen(
            {"tensorflow": [Suggestion("dog", 0.7, DOG), Suggestion("dalmatian", 0.7, DALMATIAN)]},
            thresholds={DOG: 0.9},
        )
        assert named(choices) == ["dalmatian"]

    def test_one_of_a_term_holds_for_what_has_none_of_its_own(self) -> None:
        rules: dict[str, Any] = {
            "only": ["Hunde"],
            "alias": {"Hunde": "dog"},
            "thresholds": {"Hunde": 0.9, "dalmatian": 0.5},
        }
        sure = [Suggestion("dalmatian", 0.7, DALMATIAN), Suggestion("Canine", 0.8)]
        choices = chosen({"google_cloud_vision": sure}, **rules)
        assert [(choice.label, choice.verdict) for choice in choices] == [
            ("Canine", Verdict.BELOW_THRESHOLD),
            ("dalmatian", Verdict.KEPT),
        ]


@pytest.mark.parametrize("word", ["cat", "Katze", "FELIDAE", CAT, "n02121808"])
def test_a_rule_by_any_word_for_a_concept_holds_for_every_provider(word: str) -> None:
    assert named(chosen(OF_THREE, drop=[word])) == []
    assert named(chosen(OF_THREE, rename={word: "Mieze"})) == ["Mieze"]
    local = {"tensorflow": OF_THREE["tensorflow"]}
    assert (named(chosen(local, by_concept=False, drop=[word])) == []) == (word in ("cat", CAT, "n02121808"))


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────────────────────────

_EVERY = [one for one, concept in concepts().items() if concept.kind is not ConceptKind.IMAGE_KIND]
_WORDS = [
    *(names(language)[one] for language in ("en", "de", "fr") for one in _EVERY[::9]),
    *(word for each in aliases() for word in (*each.same[:2], *each.narrower[:2])),
    "Crane",
    "Our dogs",
]
_words = st.sampled_from(_WORDS) | st.text(max_size=8)
_suggested = st.builds(Suggestion, _words, st.floats(0, 1), st.none() | st.sampled_from(_EVERY))
_given = st.dictionaries(
    st.sampled_from(["tensorflow", "google_cloud_vision", "microsoft_vision"]), st.lists(_suggested, max_size=8)
)
_own_parents = {"dog": ("Our dogs",), "Our dogs": ("Team",), "cat": ("Team", "toy")}


@given(_given, st.lists(_words, min_size=1, max_size=8), st.sampled_from([{}, _own_parents]), st.booleans())
def test_whatever_is_suggested_only_the_terms_come_out(
    suggestions: dict[str, list[Suggestion]], only: list[str], parents: dict[str, tuple[str, ...]], by_concept: bool
) -> None:
    terms = {" ".join(term.split()) for term in only}
    choices = chosen(suggestions, by_concept=by_concept, only=only, parents=parents)
    assert {tag.name for tag in tags_of(choices)} <= terms
    renamed = chosen(suggestions, by_concept=by_concept, only=only, parents=parents, rename={only[0]: "X"})
    assert {tag.name for tag in tags_of(renamed)} <= terms | {"X"}


@given(_given, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_rules_and_providers_makes_no_difference(
    suggestions: dict[str, list[Suggestion]], by_concept: bool, chance: random.Random
) -> None:
    rules: dict[str, Any] = {
        "rename": {"cat": "Mieze", "Our dogs": "Hunde", "node:boat": "Schiff", "person": "Leute"},
        "drop": ["bridge", "Automobile", "Font"],
        "alias": {"Moggy": "cat", "Crane": "wn:02012849-n", "Rex": "Our dogs"},
        "parents": _own_parents,
        "thresholds": {"cat": 0.2, "Our dogs": 0.7, "wn:00017222-n": 0.9},
    }
    shuffled = {
        name: dict(chance.sample(list(table.items()), len(table)))
        if isinstance(table, dict)
        else chance.sample(table, len(table))
        for name, table in rules.items()
    }
    other = dict(chance.sample(list(suggestions.items()), len(suggestions)))
    first = chosen(suggestions, by_concept=by_concept, **rules)
    assert tags_of(chosen(other, by_concept=by_concept, **shuffled)) == tags_of(first)


@given(_given)
def test_equal_concepts_are_one_tag(suggestions: dict[str, list[Suggestion]]) -> None:
    tags = tags_of(chosen(suggestions, language="de"))
    found = [tag.concept for tag in tags if tag.concept is not None]
    assert len(set(found)) == len(found)
