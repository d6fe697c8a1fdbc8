"""The rules for an instance's tags, as its settings and its rules file have them, and both together.

There is one model: what a file says is added to what the settings say. Where the two contradict each other, neither
wins: that is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from worker.settings.base import LocalPath, Section

_Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Words = Annotated[
    tuple[_Word, ...],
    BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else value, json_schema_input_type=_Word | tuple[_Word, ...]
    ),
]
_Confidence = Annotated[float, Field(ge=0, le=1, strict=True)]


class LabelRules(Section):
    """Rules for the names of tags. A word is compared without regard to case; it may be a concept's id."""

    clean: Literal["none", "liferay"] = Field(
        "none", description="`liferay` removes the characters that Liferay refuses in a tag."
    )
    rename: dict[str, str] = Field(
        {},
        description="Maps a provider's names, or concepts by id, to the tags to use instead; case makes no difference.",
        json_schema_extra={"allowed": "a table from text to text"},
    )
    only: tuple[str, ...] = Field(
        (),
        description="The only terms that are ever tags: each a concept's id or its name in any language, which also "
        "stands for all that is narrower (docs/tags.md). Empty: any tag.",
        json_schema_extra={"allowed": "a list of texts"},
    )
    drop: tuple[str, ...] = Field(
        (),
        description="Tags that are never assigned; case makes no difference.",
        json_schema_extra={"allowed": "a list of texts"},
    )
    alias: dict[_Word, _Word] = Field(
        {},
        description="Maps words, yours or a provider's, to what they mean: a concept's id or name, or a term of yours "
        "in `parents`.",
        json_schema_extra={"allowed": "a table from text to text"},
    )
    parents: dict[_Word, _Words] = Field(
        {},
        description="Maps labels or concepts to broader terms that they have too: concepts, or terms of your own.",
        json_schema_extra={"allowed": "a table from text to a text or a list of texts"},
    )
    thresholds: dict[_Word, _Confidence] = Field(
        {},
        description="Maps labels or concepts to the confidence from which they are tags, whichever provider names "
        "them, in place of the provider's threshold.",
        json_schema_extra={"allowed": "a table from text to a number from 0 to 1"},
    )

    def counted(self) -> int:
        """How many rules there are."""
        tables = (self.rename, self.only, self.drop, self.alias, self.parents, self.thresholds)
        return sum(map(len, tables)) + (self.clean != "none")


class LabelsSettings(LabelRules):
    """Rules applied to every tag of an instance (docs/tags.md); those of `rules_file` are added."""

    rules_file: LocalPath | None = Field(
        None,
        description="A TOML file with more of these rules: the same keys, at its top level. At most 1 MiB of UTF-8; "
        "read at start and at each reload.",
    )


def contradictions_of(settings: LabelRules, file: LabelRules) -> Iterator[tuple[str, str]]:
    """Where a file says otherwise than the settings: the field, and what is wrong, in words."""
    if {"clean"} <= settings.model_fields_set & file.model_fields_set and settings.clean != file.clean:
        yield "clean", f"is {settings.clean!r} here and {file.clean!r} in the file"
    for field in ("rename", "alias", "thresholds"):
        here = {word.strip().casefold(): value for word, value in getattr(settings, field).items()}
        for word, value in getattr(file, field).items():
            if (other := here.get(word.strip().casefold(), value)) != value:
                yield field, f"{word!r} is {other!r} here and {value!r} in the file"
    for one, other in ((settings, file), (file, settings)):
        dropped = {word.strip().casefold() for word in other.drop}
        for term in one.only:
            if term.strip().casefold() in dropped:
                yield "only", f"{term!r} is one of `only` in one of the two, and of `drop` in the other"


def together(settings: LabelsSettings, file: LabelRules) -> LabelsSettings:
    """The rules of both, those of the settings first."""
    changed: dict[str, Any] = {
        "clean": file.clean if "clean" in file.model_fields_set else settings.clean,
        "only": _added(settings.only, file.only),
        "drop": _added(settings.drop, file.drop),
        "parents": _parents(settings.parents, file.parents),
    }
    for field in ("rename", "alias", "thresholds"):
        here: dict[str, Any] = getattr(settings, field)
        known = {word.casefold() for word in here}
        more: dict[str, Any] = getattr(file, field)
        changed[field] = here | {word: value for word, value in more.items() if word.casefold() not in known}
    return settings.model_copy(update=changed)


def _added(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    known = {word.casefold() for word in first}
    return (*first, *(word for word in second if word.casefold() not in known))


def _parents(first: Mapping[str, tuple[str, ...]], second: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    spelled = {word.casefold(): word for word in first}
    both = dict(first)
    for word, above in second.items():
        key = spelled.get(word.casefold(), word)
        both[key] = _added(both.get(key, ()), above)
    return both
