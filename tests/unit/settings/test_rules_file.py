"""Rules in a file and in the settings are one: added to one another, checked together, and part of the digest."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.settings_sources import SourceFiles
from worker.settings import LabelRules, LabelsSettings, LoadedSettings, settings_digest
from worker.settings.label_rules import together
from worker.settings.rules_file import MAXIMUM_BYTES, rules_schema


class Sources(SourceFiles):
    """A settings file of one instance, and its rules file."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.file = directory / "rules.toml"

    def write(self, rules: str | bytes, settings: str = "") -> None:
        self.file.write_bytes(rules if isinstance(rules, bytes) else rules.encode())
        self.toml(f"[instances.acme.labels]\nrules_file = {json.dumps(str(self.file))}\n{settings}")

    def labels(self) -> LabelsSettings:
        return self.load().settings.instances["acme"].labels


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def test_what_the_file_says_is_added_to_the_settings(sources: Sources) -> None:
    sources.write(
        'clean = "liferay"\nonly = ["dog", "CAT"]\ndrop = ["b"]\n[rename]\nc = "d"\n'
        '[parents]\ndalmatian = "Our dogs"\n[thresholds]\ncat = 0.5\n[alias]\nMoggy = "cat"\n',
        'only = ["cat"]\nrename = { a = "b" }\nparents = { Dalmatian = ["Pets"] }\n',
    )
    labels = sources.labels()
    assert labels.clean == "liferay"
    assert labels.only == ("cat", "dog")
    assert labels.drop == ("b",)
    assert labels.rename == {"a": "b", "c": "d"}
    assert labels.parents == {"Dalmatian": ("Pets", "Our dogs")}
    assert labels.thresholds == {"cat": 0.5}
    assert labels.alias == {"Moggy": "cat"}
    assert labels.counted() == 9
    assert sources.load().settings.defaults.labels == LabelsSettings()


def test_where_a_value_comes_from_is_known(sources: Sources) -> None:
    sources.write('drop = ["b"]\n', 'drop = ["a"]\n')

    def origin(loaded: LoadedSettings) -> str:
        return loaded.origin(("instances", "acme", "labels", "drop"))

    assert origin(sources.load()).endswith(f"autotag.toml, and rules file {sources.file}")


def test_a_file_of_the_defaults_holds_for_instances_with_rules_of_their_own(sources: Sources) -> None:
    sources.file.write_text('drop = ["b"]\n')
    sources.toml(
        f"[defaults.labels]\nrules_file = {json.dumps(str(sources.file))}\n[instances.acme.labels]\ndrop = ['a']\n"
    )
    settings = sources.load().settings
    assert settings.defaults.labels.drop == ("b",)
    assert settings.instances["acme"].labels.drop == ("a", "b")


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        (b"drop = ['K\xe4se']", "not a UTF-8 text (byte 10)"),
        ("drop = [", "not valid TOML"),
        ("dorp = []", "dorp is no rule; did you mean drop?"),
        ("drop = 'a'", "drop must be a list of texts"),
        ("[thresholds]\ncat = 1.5", "thresholds.cat must be a table from text to a number from 0 to 1"),
        ("[thresholds]\ncat = true", "thresholds.cat must be"),
        ("[thresholds]\ncat = nan", "thresholds.cat must be"),
        ("[alias]\n'' = 'cat'", "alias. must be"),
        ("rules_file = 'another.toml'", "rules_file is no rule"),
        (b"#" * (MAXIMUM_BYTES + 1), "larger than 1 MiB"),
        ("[alias]\nMoggy = 'wn:99999999-n'", "no concept's id or name"),
        ("[alias]\nMoggy = 'catt'", "no concept's id or name; like cat"),
        ("[alias]\nMoggy = 'Schild'", "means several concepts: node:sign, wn:04192698-n"),
        ("[alias]\n'wn:02121808-n' = 'dog'", "an alias is a word"),
        ("[thresholds]\n'node:catt' = 0.5", "no concept has the id node:catt"),
        ("[parents]\ncat = ['node:catt']", "no concept has the id node:catt"),
        ("[parents]\nanimal = ['Ours']\nOurs = ['tabby cat']", "go in a circle: "),
        ("[parents]\ncat = 'Felidae'", "go in a circle: cat > cat"),
        ("only = ['Catt', 'Xyz']", "none of its 2 terms means a concept"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_what_is_wrong(
    sources: Sources, rules: str | bytes, complaint: str
) -> None:
    sources.write(rules)
    text = sources.complaint()
    assert complaint in text
    assert str(sources.file) in text


def test_a_circle_is_shown_from_word_to_word(sources: Sources) -> None:
    sources.write('[parents]\nFido = "Hounds of ours"\n"Hounds of ours" = ["Pack"]\nPack = ["fido"]\n')
    way = sources.complaint().partition("circle: ")[2].partition(";")[0].split(" > ")
    assert way[0] == way[-1]
    assert set(pairwise(way)) == {("fido", "Hounds of ours"), ("Hounds of ours", "Pack"), ("Pack", "fido")}


def test_a_file_that_is_not_there_or_not_a_file_is_refused(sources: Sources) -> None:
    sources.write("")
    sources.file.unlink()
    assert "instances.acme.labels.rules_file" in sources.complaint()
    assert "is not there, or not a file" in sources.complaint()
    os.mkfifo(sources.file)  # reading it would wait for a writer
    assert "is not there, or not a file" in sources.complaint()


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ('rename = { cat = "A" }', '[rename]\nCAT = "B"'),
        ('alias = { x = "cat" }', '[alias]\nx = "dog"'),
        ("thresholds = { cat = 0.5 }", "[thresholds]\ncat = 0.6"),
        ('clean = "none"', 'clean = "liferay"'),
        ('only = ["cat"]', 'drop = ["Cat"]'),
        ('drop = ["cat"]', 'only = ["cat", "dog"]'),
    ],
)
def test_settings_and_file_that_contradict_each_other_are_refused(sources: Sources, settings: str, rules: str) -> None:
    sources.write(rules, settings)
    text = sources.complaint()
    assert str(sources.file) in text
    assert f"instances.acme.labels.{rules.strip('[').split(']')[0].split(' ')[0]}" in text or "labels.only" in text


def test_two_words_for_one_concept_with_two_values_are_refused_where_words_are_concepts(sources: Sources) -> None:
    rules = '[rename]\ncat = "A"\nKatze = "B"\n'
    sources.write(rules, '[instances.acme.tensorflow]\ntags = "labels"\n')
    sources.labels()
    sources.write(rules)
    assert "'cat' and 'Katze' are the same, and have 'A' and 'B'" in sources.complaint()


def test_a_vocabulary_of_words_unknown_to_us_may_be_meant_where_another_model_is_used(sources: Sources) -> None:
    sources.write('only = ["Our product"]\n')
    sources.complaint()
    with (sources.directory / "autotag.toml").open("a") as file:
        file.write('[tensorflow]\nmodel = "/models/ours"\n')
    assert sources.labels().only == ("Our product",)


@pytest.mark.parametrize("more", ['[alias]\n"Our product" = "bottle"', '[parents]\nbottle = ["our product"]'])
def test_a_vocabulary_may_be_of_ones_own_words(sources: Sources, more: str) -> None:
    sources.write(f'only = ["Our product"]\n{more}\n')
    assert sources.labels().only == ("Our product",)


def test_the_digest_follows_what_the_file_says_and_not_where_it_is(sources: Sources) -> None:
    def digest() -> str:
        settings = sources.load().settings
        return settings_digest(settings, settings.instances["acme"])

    sources.write('drop = ["a"]\n')
    first = digest()
    sources.file = sources.directory / "moved.toml"
    sources.write('# the same\ndrop = ["a"]\n')
    assert digest() == first
    sources.write('drop = ["b"]\n')
    assert digest() != first


def test_a_mark_of_windows_and_capitals_are_as_in_the_settings(sources: Sources) -> None:
    sources.write(b'\xef\xbb\xbfclean = "Liferay"\r\n')
    assert sources.labels().clean == "liferay"


def test_the_schema_accepts_what_the_reader_does() -> None:
    validator = jsonschema.Draft202012Validator(rules_schema())
    validator.check_schema(rules_schema())
    validator.validate({"parents": {"a": "b", "c": ["d"]}, "thresholds": {"a": 1}, "only": ["a"], "clean": "liferay"})
    bad: list[dict[str, object]] = [
        {"thresholds": {"a": 2}},
        {"dorp": []},
        {"alias": {"a": 1}},
        {"parents": {"a": [""]}},
    ]
    assert not [each for each in bad if validator.is_valid(each)]


_words = st.sampled_from(["cat", "Dog", "bird", "Our dogs"])
_rules = st.builds(
    LabelRules,
    only=st.lists(_words, max_size=3),
    drop=st.lists(_words, max_size=3),
    rename=st.dictionaries(_words, _words, max_size=3),
    thresholds=st.dictionaries(_words, st.sampled_from([0.1, 0.9]), max_size=3),
    parents=st.dictionaries(_words, st.lists(_words, max_size=2), max_size=3),
)


@given(_rules)
def test_a_file_that_says_the_same_or_nothing_adds_nothing(rules: LabelRules) -> None:
    settings = LabelsSettings(**rules.model_dump())
    assert together(settings, LabelRules()) == settings
    assert together(settings, rules).model_dump() == settings.model_dump()
