"""Labels: the built-in names, and reading label files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from worker.errors import Misconfigured
from worker.models.labels import IMAGENET, Label, read_labels


def test_there_are_a_thousand_in_the_order_of_their_wordnet_ids() -> None:
    ids = [label.wordnet_id or "" for label in read_labels(IMAGENET)]
    assert len(ids) == 1000
    assert ids == sorted(set(ids))


def test_no_two_are_alike_even_without_regard_to_case() -> None:
    names = [label.name.casefold() for label in read_labels(IMAGENET)]
    assert len(set(names)) == 1000


def test_ambiguous_names_are_distinguished() -> None:
    names = [label.name for label in read_labels(IMAGENET)]
    assert [names[index] for index in (134, 517)] == ["crane (bird)", "crane (machine)"]
    assert [names[index] for index in (638, 639)] == ["maillot (tights)", "maillot (swimsuit)"]
    assert [names[index] for index in (264, 474)] == ["Cardigan Welsh corgi", "cardigan"]


def test_they_are_plain_words() -> None:
    for label in read_labels(IMAGENET):
        assert label.name.isascii()
        assert label.name == label.name.strip()
        assert "_" not in label.name


def test_they_are_those_of_the_labelled_photographs(images100: Path) -> None:
    names = [label.name for label in read_labels(IMAGENET)]
    with (images100 / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert names[int(row["class_index"])].casefold() == row["label"].casefold()


def test_ids_are_optional_and_a_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"dummy\r\nn01440764\ttench\njack-o'-lantern")
    assert read_labels(path) == (Label("dummy"), Label("tench", "n01440764", "wn:01440764-n"), Label("jack-o'-lantern"))


@pytest.mark.parametrize(
    ("data", "complaint"), [(b"a\n\nb\n", "empty line 2"), (b"", "empty line 1"), (b"\xff", "UTF-8")]
)
def test_what_is_no_label_file_is_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(data)
    with pytest.raises(Misconfigured, match=complaint):
        read_labels(path)


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")
