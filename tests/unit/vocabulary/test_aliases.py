"""Words for our concepts that are not their names: each means one, and what is wrong with the file is reported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from worker.vocabulary import ENGLISH, FOLDER, names
from worker.vocabulary.aliases import aliases
from worker.vocabulary.checks import problems
from worker.vocabulary.lookup import broader_than, concepts_meant, meanings, similar_names


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "vocabulary"))


def english(word: str, language: str | None = "en") -> list[str]:
    return [names(ENGLISH)[one] for one in meanings(word, language)]


def test_there_are_hundreds_and_each_means_its_concept_in_whatever_case() -> None:
    words = [(word, each.concept) for each in aliases() for word in each.same]
    assert len(words) >= 250
    for word, concept in words:
        assert meanings(word.upper(), "en") == (concept,)
        assert concept in concepts_meant(word) or concepts_meant(word)
    for each in aliases():
        for word in each.narrower:
            assert (meanings(word), broader_than(word)) == ((), each.concept)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Felidae", "cat"),
        ("Automobile", "car"),
        ("Human", "person"),
        ("Dog breed", "dog"),
        ("Dogs", "dog"),
        ("Jewelry", "jewellery"),
        ("Aeroplane", "airplane"),
        ("Cow", "cattle"),
        ("Plant", "plant"),
        ("corn", "maize"),
        ("Couch", "sofa"),
        ("n02121808", "cat"),
    ],
)
def test_words_of_services_mean_what_people_mean(word: str, name: str) -> None:
    assert english(word) == [name]


@pytest.mark.parametrize(
    "word", ["Carnivore", "Canidae", "Vehicle registration plate", "Selfie", "Kitten", "Crane", "Orange"]
)
def test_what_is_broader_narrower_or_has_two_meanings_is_no_concept(word: str) -> None:
    assert english(word) == []


def test_a_word_is_english_first_and_else_of_the_language_that_is_spoken() -> None:
    assert english("Katze", "de") == english("Katze", None) == ["cat"]
    assert english("Katze", "fr") == english("Katze", "en") == english("Katze", "xx") == []
    assert english("Boot", "nl") == [], "in English something narrower than footwear"


def test_what_is_written_like_an_alias_is_suggested() -> None:
    assert "automobile" in similar_names("automobil")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("node:unicorn | unicorn | x", "no concept has the id node:unicorn"),
        ("wn:02121808-n | cat | x", "wn:02121808-n has two lines"),
        ("coco:fork | knife | x", "coco:fork is 'fork', not 'knife'"),
        ("coco:toothbrush | toothbrush | fork", "'fork' of coco:toothbrush is the name of coco:fork"),
        ("coco:toothbrush | toothbrush | Felidae", "'Felidae' is of wn:02121808-n and of coco:toothbrush"),
        ("coco:toothbrush | toothbrush | x | X", "coco:toothbrush has a word twice"),
        ("coco:toothbrush", "write id | English name | words"),
    ],
)
def test_a_bad_line_is_reported(copy: Path, line: str, message: str) -> None:
    file = copy / "aliases.txt"
    file.write_text(file.read_text() + line + "\n")
    assert any("aliases.txt" in problem and message in problem for problem in problems(copy)), problems(copy)
