"""The vocabulary: what is shipped is sound, and what is not sound is reported with file, line and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from worker.errors import Misconfigured
from worker.models.labels import IMAGENET, read_labels
from worker.vocabulary import FOLDER, ConceptKind, concepts, languages, names
from worker.vocabulary.checks import problems
from worker.vocabulary.lookup import concepts_meant

ROOT = FOLDER.parent.parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "vocabulary"))


def with_line(file: Path, line: str) -> int:
    text = file.read_text() + line + "\n"
    file.write_text(text)
    return text.count("\n")


def above(one: str) -> set[str]:
    return {one}.union(*(above(parent) for parent in concepts()[one].parents))


def named(name: str, kind: ConceptKind) -> str:
    return next(one for one, text in names("en").items() if text == name and concepts()[one].kind is kind)


def test_what_is_shipped_has_no_problem() -> None:
    assert problems() == []
    assert "en" in languages()


def test_labels_are_in_the_order_of_the_built_in_models() -> None:
    labels = [one for one, concept in concepts().items() if concept.kind is ConceptKind.LABEL]
    assert labels == [f"wn:{(label.wordnet_id or '')[1:]}-n" for label in read_labels(IMAGENET)]


@pytest.mark.parametrize(
    ("label", "is_a", "is_no"),
    [
        ("minibus", "vehicle", "building"),
        ("parking meter", "street", "clock"),
        ("wall clock", "clock", "measuring instrument"),
        ("meatloaf", "dish", "bread"),
        ("tabby cat", "animal", "dog"),
        ("menu", "dining", "food"),
        ("snail", "mollusc", "crustacean"),
        ("container ship", "watercraft", "boat"),
        ("sleeping bag", "camping", "bag"),
        ("hare", "wild animal", "rabbit"),
        ("coral reef", "underwater", "landscape"),
        ("capped mushroom", "mushroom", "food"),
        ("T-shirt", "clothing", "sport"),
        ("banjo", "string instrument", "guitar"),
        ("American alligator", "crocodilian", "turtle"),
        ("dalmatian", "dog", "wild animal"),
        ("great white shark", "sea animal", "underwater"),
    ],
)
def test_parents_are_those_of_everyday_speech(label: str, is_a: str, is_no: str) -> None:
    lineage = above(named(label, ConceptKind.LABEL))
    assert named(is_a, ConceptKind.NODE) in lineage
    assert named(is_no, ConceptKind.NODE) not in lineage


def test_a_circle_is_reported(copy: Path) -> None:
    with_line(copy / "concepts.tsv", "node:a\tnode\tnode:b\nnode:b\tnode\tnode:a")
    assert any("in a circle" in problem for problem in problems(copy))


def test_an_unknown_parent_is_reported(copy: Path) -> None:
    with_line(copy / "concepts.tsv", "node:a\tnode\tnode:nowhere")
    assert any("unknown parent node:nowhere" in problem for problem in problems(copy))


def test_a_label_without_parent_and_without_reason_is_reported(copy: Path) -> None:
    with_line(copy / "concepts.tsv", "wn:1-n\tlabel")
    assert any("wn:1-n has no parent" in problem for problem in problems(copy))


@pytest.mark.parametrize("reason", ["", "a mask may be worn, hung up or painted"])
def test_a_label_without_parent_needs_a_reason_of_its_own(copy: Path, reason: str) -> None:
    with_line(copy / "concepts.tsv", "wn:1-n\tlabel")
    with_line(copy / "without_parent.txt", f"wn:1-n | {reason}")
    assert "without_parent.txt: wn:1-n needs a reason of its own, after a `|`" in problems(copy)


def test_a_new_node_is_true_of_two_labels_or_of_a_label_and_a_detectors_class() -> None:
    single = {"horse", "spacecraft", "jewellery", "wedding", "harbour", "sofa"}  # sofa and horse are a detector's too
    below = {one: {each for each in concepts() if one in above(each)} - {one} for one in concepts()}
    nodes = {names("en")[one]: below[one] for one, each in concepts().items() if each.kind is ConceptKind.NODE}
    assert {name for name, found in nodes.items() if len(found) < 2} == single


def test_english_names_are_those_that_people_write() -> None:
    written = names("en")
    for label, readable in {"ashcan": "rubbish bin", "tusker": "tusked elephant", "alp": "high mountain"}.items():
        (one,) = {f"wn:{str(each.wordnet_id)[1:]}-n" for each in read_labels(IMAGENET) if each.name == label}
        assert written[one] == readable
        assert one in concepts_meant(label)
    assert [name for name in written.values() if "_" in name or "," in name] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [("coco:unicorn\tunicorn", "no concept has the id"), ("kind:map\tchart", "has a name already"), ("x", "one tab")],
)
def test_a_bad_line_of_a_language_is_reported_with_its_number(copy: Path, line: str, message: str) -> None:
    number = with_line(copy / "names" / "en.txt", line)
    with pytest.raises(Misconfigured, match=rf"en\.txt, line {number}: .*{message}"):
        names("en", copy)
    assert any(message in problem for problem in problems(copy))


def test_two_meanings_with_one_name_are_reported(copy: Path) -> None:
    file = copy / "names" / "en.txt"
    file.write_text(file.read_text().replace("kind:map\tmap\n", "kind:map\tChart\n"))
    why = "names/en.txt: 'chart' names kind:chart, kind:map; add to one of them what sets it apart"
    assert problems(copy) == [why, "aliases.txt: kind:map is 'Chart', not 'map'; mend the line"]


def test_a_name_that_is_missing_is_reported(copy: Path) -> None:
    (copy / "names" / "xx.txt").write_text("kind:map\tmap\n")
    (problem,) = problems(copy)
    assert problem.startswith(f"names/xx.txt: {len(concepts()) - 1} concepts have no name")


def test_a_file_in_another_encoding_is_reported(copy: Path) -> None:
    (copy / "names" / "xx.txt").write_bytes("kind:map\tcafé\n".encode("latin-1"))
    assert any("cannot be read as UTF-8" in problem for problem in problems(copy))


def test_the_concepts_are_those_that_the_script_makes() -> None:
    if not Path(os.environ.get("WORDNET_NOUNS", "/usr/share/wordnet/data.noun")).exists():
        pytest.skip("WordNet is not installed (Debian: wordnet-base)")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_vocabulary.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
