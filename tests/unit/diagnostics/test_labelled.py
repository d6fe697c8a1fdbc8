"""Files of labelled and corrected photographs: what is read from them, and what is said of those that are wrong."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.diagnostics.labelled import MISSING_SHOWN, Labelled, LabelledFile, read_labelled
from worker.errors import Misconfigured
from worker.messages.corrections import Correction
from worker.vocabulary import ancestors, concepts
from worker.vocabulary.lookup import concepts_meant

TABBY, CAT, ANIMAL, DOG = "wn:02123045-n", "wn:02121808-n", "wn:00015388-n", "wn:02084071-n"


def read(folder: Path, text: str | bytes, name: str = "labelled.csv") -> list[Labelled]:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_labelled(file, folder))


@pytest.mark.parametrize("label", ["tabby", "TABBY", "n02123045", TABBY, "chat tigré", "gatto soriano"])
def test_a_label_is_a_name_in_any_language_wordnets_id_or_a_concepts(label: str, tmp_path: Path) -> None:
    if not concepts_meant(label):
        pytest.skip(f"{label} is not the name that was chosen")
    (one,) = read(tmp_path, f"file,label\na.jpg,{label}\n")
    assert one.file == tmp_path / "a.jpg"
    assert one.true_concepts >= {TABBY, CAT, ANIMAL}
    assert one.true_names == frozenset()


def test_several_labels_are_in_columns_or_in_a_cell_and_one_that_is_no_concept_is_a_name(tmp_path: Path) -> None:
    text = "\ufefffile,label,label,number\na.jpg,tabby|Our Product,Labrador retriever,7\n\nb.jpg,zebra\n"
    first, second = read(tmp_path, text)
    assert first.true_concepts >= {TABBY, CAT, ANIMAL, DOG}
    assert first.true_names == {"our product"}
    assert second.true_names == frozenset()
    assert (first.line, second.line) == (2, 4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_encoding_and_separator_are_recognised(encoding: str, delimiter: str, ending: str, tmp_path: Path) -> None:
    rows = [["Label", " FILE "], ['"tabby|Käse; a, b"', "Ä.jpg"]]
    text = ending.join(delimiter.join(row) for row in rows)
    (one,) = read(tmp_path, text.encode(encoding))
    assert one.file.name == "Ä.jpg"
    assert "käse; a, b" in one.true_names
    assert CAT in one.true_concepts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\na.jpg,cat\n", "has to name a column `file`"),
        ("file|label\na.jpg|cat\n", "has to name a column `file`"),
        ("", "has to name a column `file`"),
        ("file,tag\na.jpg,cat\n", "has to name one or more of `label"),
        ("file,label\na.jpg,cat\nb.jpg,\n", "line 3: it has no label"),
        ("file,label\na.jpg\n", "line 2: it has no label"),
        ("file,label\n ,cat\n", "line 2: it has no file"),
        ("file,label\na.jpg,cat, black\n", "line 2 has 3 cells, and the first line 2"),
        ("file,label\na.jpg,cat\nb.jpg,K\xe4se\n".encode("latin-1"), r"is not UTF-8 \(line 3\)"),
        (("file,label\n" + "a.jpg,cat\n" * 5000 + "a.jpg,\xff").encode("latin-1"), r"is not UTF-8 \(line 5002\)"),
        ("file,label\na.jpg,cat\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("file,label\na.jpg,cat\n".encode("utf-16")[:-1], "is UTF-16 that is damaged"),
        ("file,label\na.jpg,cat\n".encode("utf-32"), "is UTF-32"),
        ('file,label\n"a.jpg,cat\n' + "x" * 200_000, "is no CSV file, at line 3"),
        ("file,label\n" + "x" * (1 << 20), "line 2 has more than"),
    ],
)
def test_a_file_that_is_no_list_of_labels_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    with pytest.raises(Misconfigured, match=said):
        read(tmp_path, text)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is no file"):
        list(read_labelled(tmp_path, tmp_path))
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        list(read_labelled(tmp_path / "none.csv", tmp_path))


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_a_mistake(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name, head in (("a.csv", b"file,label\n"), ("a.csv", b""), ("a.jsonl", b"")):
        with suppress(Misconfigured):
            read(folder, head + data, name)


# Corrections


def test_removed_tags_are_false_with_what_is_narrower_kept_and_added_ones_true_with_what_is_broader(
    tmp_path: Path,
) -> None:
    (one,) = read(tmp_path, "file;removed;kept;added\na.jpg;cat|thing;dog;boat\n")
    boat, beagle = concepts_meant("boat")[0], concepts_meant("beagle")[0]
    assert not one.complete
    assert (one.judge(TABBY, "tabby"), one.judge(CAT, "cat"), one.judge(None, "Thing")) == (False, False, False)
    assert (one.judge(DOG, "dog"), one.judge(ANIMAL, "animal"), one.judge(boat, "boat")) == (True, True, True)
    assert one.judge(beagle, "beagle") is None, "a dog may be any dog"
    assert one.judge(None, "product") is None


def test_a_broader_term_that_was_taken_away_beside_a_narrower_one_that_stayed_is_true(tmp_path: Path) -> None:
    (one,) = read(tmp_path, "file,removed,kept\na.jpg,animal,tabby\n")
    assert one.judge(ANIMAL, "animal") is True
    assert one.judge(DOG, "dog") is False, "it is an animal that is no tabby, and animals were taken away"


def test_beside_labels_corrections_add_to_what_is_true_and_the_rest_is_false(tmp_path: Path) -> None:
    (one,) = read(tmp_path, "file,label,added\na.jpg,tabby,sofa\n")
    assert one.complete
    assert one.judge(None, "sofa") is True
    assert one.judge(DOG, "dog") is False


@given(concept=st.sampled_from(sorted(concepts())), removed=st.sampled_from(sorted(concepts())))
def test_a_judgement_agrees_with_those_above_and_below(concept: str, removed: str) -> None:
    one = Labelled(Path("a"), frozenset(), frozenset(), frozenset({removed}), frozenset(), complete=False)
    judged = one.judge(concept, "-")
    assert judged is (False if removed in (concept, *ancestors(concept)) else None)


def test_corrections_are_read_as_they_are_written(tmp_path: Path) -> None:
    written = Correction(file="a.jpg", asset_id="4711", removed=(DOG,), added=(TABBY,))
    assert json.loads(written.line()) == {"file": "a.jpg", "asset_id": "4711", "removed": [DOG], "added": [TABBY]}
    (one,) = read(tmp_path, f"\n{written.line()}\n", "corrections.jsonl")
    assert (one.file, one.line) == (tmp_path / "a.jpg", 2)
    assert (one.judge(CAT, "cat"), one.judge(DOG, "dog"), one.complete) == (True, False, False)
    (labelled,) = read(tmp_path, '{"file": "a.jpg", "labels": ["tabby"]}', "labels.jsonl")
    assert labelled.complete


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not JSON", "line 1: Invalid JSON"),
        ('{"file": "a"}', "line 1: it has no label, and no tag"),
        ('{"file": "", "added": ["cat"]}', "line 1: file: "),
        ('{"added": ["cat"]}', "line 1: file: Field required"),
        ('{"file": "a", "remove": ["cat"]}', "line 1: remove: Extra inputs"),
        ('{"file": "a", "added": "cat"}', "line 1: added: "),
    ],
)
def test_a_wrong_correction_is_refused_with_its_line_and_key(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        read(tmp_path, line, "c.jsonl")


# Before anything is tagged


def test_missing_files_are_counted_and_the_first_are_listed_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "there.jpg").touch()
    names = ["there.jpg", "x" * 5000, *(f"{number}.jpg" for number in range(20))]
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{name},cat\n" for name in names))
    with pytest.raises(Misconfigured) as refused:
        LabelledFile.checked(tmp_path / "l.csv", tmp_path)
    lines = str(refused.value).splitlines()
    assert "21 of 22 files are not there" in lines[0]
    assert lines[2] == f"  {tmp_path / '0.jpg'} (line 4)"
    assert lines[-1] == "  and 11 more"
    assert len(lines) == MISSING_SHOWN + 2


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label\n")
    with pytest.raises(Misconfigured, match="has no rows"):
        LabelledFile.checked(tmp_path / "l.csv", tmp_path)


def test_a_hundred_thousand_rows_need_no_more_memory_than_a_few(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    file = tmp_path / "l.csv"
    with file.open("w") as text:
        text.write("file,label,removed\n")
        text.writelines(f"a.jpg,tabby|number {number},dog\n" for number in range(100_000))
    next(read_labelled(file, tmp_path))  # reads the vocabulary, which stays
    seen: list[int] = []
    tracemalloc.start()
    try:
        found = LabelledFile.checked(file, tmp_path, lambda rows: seen.append(rows) if rows % 50_000 == 0 else None)
        assert sum(1 for _ in found) == found.rows == 100_000
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == [50_000, 100_000]
    assert len(found.unknown) == 1000
    assert peak_bytes < 2 << 20
