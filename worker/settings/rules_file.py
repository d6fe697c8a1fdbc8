"""Reads the rules file of an instance, and puts its rules beside those of the settings."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.settings.label_rules import LabelRules, contradictions_of, together
from worker.settings.root import Settings
from worker.settings.schema import SettingKey, allowed

MAXIMUM_BYTES = 1024**2


class RulesFileError(ValueError):
    """A rules file that cannot be used; each argument is a problem, in words."""


@dataclass(frozen=True, slots=True)
class RulesFileProblem:
    """What is wrong with the rules file that the setting `key` names, or between it and the setting."""

    key: SettingKey
    message: str


def rules_schema() -> dict[str, Any]:
    """The JSON Schema of a rules file, for editors: TOML's tables are JSON's objects."""
    tree = LabelRules.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:autotag:schema:label-rules:v1",
        **_plain(tree),
        "title": "Rules file: the rules for an instance's tags",
    }


def read_rules(file: Path) -> LabelRules:
    """The rules in a file. Raises RulesFileError."""
    try:
        if not file.is_file():
            raise RulesFileError("is not there, or not a file")
        with file.open("rb") as opened:
            data = opened.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise RulesFileError(f"cannot be read: {error.strerror}") from error
    if len(data) > MAXIMUM_BYTES:
        raise RulesFileError(f"is larger than {MAXIMUM_BYTES >> 20} MiB")
    try:
        tree = tomllib.loads(data.decode("utf-8-sig"))  # Windows' editors begin with a mark
    except UnicodeDecodeError as error:
        raise RulesFileError(f"not a UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RulesFileError(f"not valid TOML: {error}") from error
    try:
        return LabelRules.model_validate(tree)
    except ValidationError as error:
        raise RulesFileError(*dict.fromkeys(_problems(error))) from error


def with_rules_files(
    settings: Settings, read: Callable[[Path], LabelRules] = read_rules
) -> tuple[Settings, dict[SettingKey, str], list[RulesFileProblem]]:
    """The settings with the rules of all files in them, which fields of which instance a file has added to, and what
    is wrong. Each file is read once.
    """
    files: dict[Path, LabelRules | RulesFileError] = {}
    origins: dict[SettingKey, str] = {}
    problems: list[RulesFileProblem] = []
    changed: dict[str, Any] = {}
    scopes: list[tuple[SettingKey, Any]] = [(("defaults",), settings.defaults)]
    scopes += [(("instances", name), each) for name, each in settings.instances.items()]
    for scope, instance in scopes:
        file = instance.labels.rules_file
        if file is None:
            continue
        if file not in files:
            try:
                files[file] = read(file)
            except RulesFileError as error:
                files[file] = error
        found = files[file]
        if isinstance(found, RulesFileError):
            problems += (RulesFileProblem((*scope, "labels", "rules_file"), f"{file}: {why}") for why in found.args)
            continue
        problems += (
            RulesFileProblem((*scope, "labels", field), f"{why} ({file})")
            for field, why in contradictions_of(instance.labels, found)
        )
        origins |= {(*scope, "labels", field): f"rules file {file}" for field in sorted(found.model_fields_set)}
        labels = together(instance.labels, found)
        changed[".".join(scope)] = instance.model_copy(update={"labels": labels})
    if changed:
        instances = {name: changed.get(f"instances.{name}", each) for name, each in settings.instances.items()}
        defaults = changed.get("defaults", settings.defaults)
        settings = settings.model_copy(update={"defaults": defaults, "instances": instances})
    return settings, origins, problems


def _problems(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
        field = LabelRules.model_fields.get(str(detail["loc"][0]))
        if field is None:
            near = difflib.get_close_matches(key, LabelRules.model_fields, n=1)
            yield f"{key} is no rule" + (f"; did you mean {near[0]}?" if near else "")
        else:
            yield f"{key} must be {allowed(field)}"


def _plain(tree: Any) -> Any:
    """A schema without titles that repeat a field's name, and without what is for the settings' own page."""
    if isinstance(tree, dict):
        return {
            name: _plain(value)
            for name, value in tree.items()
            if not (name in ("title", "allowed") and isinstance(value, str))
        }
    return tree
