"""What several providers suggest becomes one list, and every suggestion left out has its reason."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.providers.base import Suggestion
from worker.settings import LabelsSettings
from worker.tagging.merge import Choice, Verdict, choose, tags_of

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

    choices = choose(suggestions, thresholds={"tensorflow": 0.1, "google_cloud_vision": None}, rules=NO_RULES)

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
