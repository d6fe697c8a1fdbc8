"""What several providers suggest becomes one list, and every suggestion left out has its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.base import Suggestion
from worker.settings import LabelsSettings
from worker.tagging.merge import Choice, Thresholds, Verdict, choose, tags_of
from worker.vocabulary import ConceptKind, concepts, languages, names

NO_RULES = LabelsSettings()


def verdicts(choices: list[Choice]) -> dict[str, Verdict]:
    return {choice.label: choice.verdict for choice in choices}


def test_tags_are_ordered_by_confidence_and_ties_by_name() -> None:
    # Given two providers with a tie between them
    suggestions = {
        "tensorflow": [Suggestion("zebra", 0.4), Suggestion("espresso", 0.9)],
        "google_cloud_vision": [Suggestion("Apple", 0.4)],
    }
    # When they are merged
    tags = tags_of(choose(suggestions, thresholds={}, rules=NO_RULES))
    # Then the best is first and the tie is in the order of the alphabet, whatever the case
    assert [(tag.name, tag.provider) for tag in tags] == [
        ("espresso", "tensorflow"),
        ("Apple", "google_cloud_vision"),
        ("zebra", "tensorflow"),
    ]


def test_equal_names_keep_the_highest_confidence_whatever_their_case() -> None:
    suggestions = {"tensorflow": [Suggestion("cat", 0.3)], "microsoft_vision": [Suggestion("Cat", 0.8)]}

    (tag,) = tags_of(choose(suggestions, thresholds={}, rules=NO_RULES))

    assert (tag.name, tag.confidence, tag.provider) == ("Cat", 0.8, "microsoft_vision")


def test_a_threshold_is_inclusive_and_belongs_to_one_provider() -> None:
    suggestions = {
        "tensorflow": [Suggestion("at", 0.1), Suggestion("below", 0.0999)],
        "google_cloud_vision": [Suggestion("cloud", 0.01)],
    }

    choices = choose(
        suggestions, thresholds={"tensorflow": Thresholds(0.1), "google_cloud_vision": Thresholds()}, rules=NO_RULES
    )

    assert verdicts(choices) == {"at": Verdict.KEPT, "below": Verdict.BELOW_THRESHOLD, "cloud": Verdict.KEPT}


def test_the_cap_keeps_the_best_and_loses_no_slot_to_a_tag_that_cannot_be_used() -> None:
    # Given four suggestions of which the best is on the asset already and the second is dropped by a rule
    suggestions = {"tensorflow": [Suggestion(name, 0.9 - i / 10) for i, name in enumerate(["a", "b", "c", "d"])]}
    rules = LabelsSettings(drop=("B",))
    # When two tags at most are wanted
    choices = choose(suggestions, thresholds={}, rules=rules, existing_tags=["A "], maximum=2)
    # Then the two best of the others are given
    assert [tag.name for tag in tags_of(choices)] == ["c", "d"]
    assert verdicts(choices) == {
        "a": Verdict.ALREADY_ON_ASSET,
        "b": Verdict.DROPPED,
        "c": Verdict.KEPT,
        "d": Verdict.KEPT,
    }


def test_renamed_labels_are_cleaned_and_can_be_dropped_by_their_new_name() -> None:
    rules = LabelsSettings(clean="liferay", rename={"JACK-O'-LANTERN": "pumpkin & co"}, drop=("potter s wheel",))
    suggestions = {"tensorflow": [Suggestion("jack-o'-lantern", 0.9), Suggestion("potter's wheel", 0.8)]}

    choices = choose(suggestions, thresholds={}, rules=rules)

    assert [(choice.name, choice.verdict) for choice in choices] == [
        ("pumpkin co", Verdict.KEPT),
        ("potter s wheel", Verdict.DROPPED),
    ]


def test_a_label_of_nothing_but_refused_characters_is_no_tag() -> None:
    (choice,) = choose({"x": [Suggestion("&?*", 0.9)]}, thresholds={}, rules=LabelsSettings(clean="liferay"))
    assert choice.verdict is Verdict.EMPTY


RULE = {"tensorflow": Thresholds(0.6, 0.8, 1)}
TABBY = Suggestion("tabby", 0.7, "wn:02123045-n", specific=True)
CAT = Suggestion("cat", 0.9, "wn:02121808-n", "parent")
ANIMAL = Suggestion("animal", 0.95, "wn:00015388-n", "parent")


def test_a_label_with_broader_terms_needs_more_and_of_those_the_narrowest_are_kept() -> None:
    choices = choose({"tensorflow": [TABBY, CAT, ANIMAL]}, thresholds=RULE, rules=NO_RULES)
    assert verdicts(choices) == {
        "tabby": Verdict.BELOW_THRESHOLD,
        "cat": Verdict.KEPT,
        "animal": Verdict.OVER_MAXIMUM_PARENTS,
    }
    assert {choice.label: choice.threshold for choice in choices} == {"tabby": 0.8, "cat": 0.6, "animal": 0.6}
    (tag,) = tags_of(choices)
    assert (tag.kind, tag.concept, tag.language) == ("parent", "wn:02121808-n", "en")
    sure = choose({"tensorflow": [replace(TABBY, confidence=0.8)]}, thresholds=RULE, rules=NO_RULES, by_concept=True)
    assert [(tag.name, tag.kind) for tag in tags_of(sure)] == [("tabby cat", "label")]


def test_a_place_that_a_narrower_term_cannot_use_goes_to_a_broader_one() -> None:
    choices = choose({"tensorflow": [CAT, ANIMAL]}, thresholds=RULE, rules=NO_RULES, existing_tags=["Cat"])
    assert verdicts(choices) == {"animal": Verdict.KEPT, "cat": Verdict.ALREADY_ON_ASSET}


def test_a_label_that_is_no_concept_or_that_nothing_is_above_needs_no_more_than_others() -> None:
    alone = next(one for one in concepts().values() if one.kind is ConceptKind.LABEL and not one.parents)
    suggestions = [Suggestion("ours", 0.65), Suggestion(names("en")[alone.id], 0.65, alone.id)]
    choices = choose({"tensorflow": suggestions}, thresholds=RULE, rules=NO_RULES)
    assert {choice.verdict for choice in choices} == {Verdict.KEPT}


@pytest.mark.parametrize("language", languages())
def test_a_concept_is_named_in_the_language_and_rules_may_name_it_in_either(language: str) -> None:
    name = names(language)[str(CAT.concept)]
    suggestions = {"tensorflow": [CAT, Suggestion("ours", 0.8)]}

    def chosen(rules: LabelsSettings) -> list[tuple[str, str | None, str | None]]:
        choices = choose(suggestions, thresholds=RULE, rules=rules, language=language)
        return [(tag.name, tag.language, tag.concept) for tag in tags_of(choices)]

    ours = ("ours", None, None)
    assert chosen(NO_RULES) == [(name, language, CAT.concept), ours]
    for one in (name.upper(), "Cat"):
        assert chosen(LabelsSettings(drop=[one])) == [ours]
        assert chosen(LabelsSettings(rename={one: "Mieze"})) == [("Mieze", None, CAT.concept), ours]


LIFERAY_REFUSES = set("&'@\\]}:,=>/<[{%|+#`?\";*~\r\n")


@given(
    st.dictionaries(
        st.sampled_from(["tensorflow", "google_cloud_vision", "other"]),
        st.lists(st.builds(Suggestion, st.text(max_size=90), st.floats(0, 1)), max_size=12),
    ),
    st.integers(0, 5),
    st.lists(st.text(max_size=5), max_size=3),
)
def test_whatever_is_suggested_the_tags_are_unique_clean_ordered_and_few_enough(
    suggestions: dict[str, list[Suggestion]], maximum: int, existing: list[str]
) -> None:
    rules = LabelsSettings(clean="liferay")
    choices = choose(suggestions, thresholds={}, rules=rules, existing_tags=existing, maximum=maximum)
    tags = tags_of(choices)

    assert len(choices) == sum(len(given) for given in suggestions.values())
    folded = [tag.name.casefold() for tag in tags]
    assert len(set(folded)) == len(folded)
    assert not set(folded) & {tag.strip().casefold() for tag in existing}
    assert [tag.confidence for tag in tags] == sorted((tag.confidence for tag in tags), reverse=True)
    assert not maximum or len(tags) <= maximum
    for tag in tags:
        assert tag.name == tag.name.strip() != ""
        assert len(tag.name) <= 75
        assert not LIFERAY_REFUSES & set(tag.name)


DOCUMENT = Suggestion("document", 0.5, "kind:document", "image_kind", suppresses=("photograph",), suppressing=0.7)
TEXT = replace(DOCUMENT, name="text", concept="kind:text", confidence=0.65)
MENU = Suggestion("menu", 0.9, group="photograph")


def test_what_a_photograph_shows_is_no_tag_of_what_is_none() -> None:
    choices = choose({"tensorflow": [DOCUMENT, TEXT, MENU]}, thresholds=RULE, rules=NO_RULES)
    assert verdicts(choices) == {
        "menu": Verdict.SUPPRESSED,
        "text": Verdict.KEPT,
        "document": Verdict.BELOW_THRESHOLD,
    }


def test_a_model_that_is_not_sure_of_its_kinds_suppresses_nothing() -> None:
    unsure = replace(DOCUMENT, suppressing=0.5)
    choices = choose({"tensorflow": [unsure, MENU]}, thresholds=RULE, rules=NO_RULES)
    assert verdicts(choices)["menu"] is Verdict.KEPT
    of_a_service = {"tensorflow": [replace(DOCUMENT, confidence=0.9)], "google_cloud_vision": [Suggestion("menu", 0.9)]}
    assert verdicts(choose(of_a_service, thresholds=RULE, rules=NO_RULES))["menu"] is Verdict.KEPT


@pytest.mark.parametrize(
    ("confidence", "group"), [(0.5, Verdict.KEPT), (0.89, Verdict.KEPT), (0.9, Verdict.BESIDE_NARROWER)]
)
def test_a_group_of_kinds_is_a_tag_where_no_kind_of_it_is_sure(confidence: float, group: Verdict) -> None:
    kinds = [replace(DOCUMENT, confidence=confidence), replace(TEXT, confidence=0.95)]
    assert verdicts(choose({"tensorflow": kinds}, thresholds=RULE, rules=NO_RULES))["text"] is group


def test_a_receipt_is_a_document() -> None:
    receipt = replace(DOCUMENT, name="receipt", concept="kind:receipt", confidence=0.7)
    kinds = [receipt, replace(DOCUMENT, confidence=0.92), replace(TEXT, confidence=0.95)]
    choices = choose({"tensorflow": kinds}, thresholds=RULE, rules=NO_RULES)
    assert [tag.name for tag in tags_of(choices)] == ["document", "receipt"]


def test_models_are_named_where_several_agree() -> None:
    both = replace(CAT, models=("one", "two"))
    [tag] = tags_of(choose({"tensorflow": [both]}, thresholds={}, rules=NO_RULES))
    assert tag.models == ("one", "two")
    [tag] = tags_of(choose({"tensorflow": [replace(both, models=("one",))]}, thresholds={}, rules=NO_RULES))
    assert tag.models == ()
