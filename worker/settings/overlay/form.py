"""Which settings the editor offers, and how their values are written in a form's fields.

They are those that the original has a form for, and what belongs to them here: thresholds, limits, languages, rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from worker.errors import CannotBeDone
from worker.settings.load import BY_DEFAULT, LoadedSettings, shown
from worker.settings.overlay.change import UNSET
from worker.settings.overlay.written import value_written
from worker.settings.root import DEFAULTS
from worker.settings.schema import SettingKey, bare_type, dotted, find_field, is_list, is_map, is_secret
from worker.vocabulary import languages

Kind = Literal["switch", "choice", "number", "text", "lines", "secret"]

OF_SERVICE: Mapping[str, tuple[str, ...]] = {
    "Tagging": ("enabled", "maximum_number_of_tags_per_asset", "unknown_instances"),
    "The model": (
        "tensorflow.maximum_number_of_relaunches",
        "tensorflow.maximum_number_of_relaunches_time_interval",
    ),
}

OF_INSTANCE: Mapping[str, tuple[str, ...]] = {
    "Tagging": ("enabled", "maximum_number_of_tags_per_asset", "tag_assets_that_have_tags", "language"),
    "The local model": (
        "tensorflow.enabled",
        "tensorflow.tags",
        "tensorflow.confidence_threshold",
        "tensorflow.specific_threshold",
        "tensorflow.maximum_parents",
    ),
    "Google Cloud Vision": (
        "google_cloud_vision.enabled",
        "google_cloud_vision.api_key",
        "google_cloud_vision.confidence_threshold",
        "google_cloud_vision.calls_per_month",
    ),
    "Microsoft's vision service": (
        "microsoft_vision.enabled",
        "microsoft_vision.api_key",
        "microsoft_vision.api_endpoint",
        "microsoft_vision.confidence_threshold",
        "microsoft_vision.language",
        "microsoft_vision.calls_per_month",
    ),
    "Rules for tags": (
        "labels.clean",
        "labels.only",
        "labels.drop",
        "labels.rename",
        "labels.alias",
        "labels.parents",
        "labels.thresholds",
    ),
}


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of the editor's form. `text`: its value as the form has it; of a secret always empty."""

    key: SettingKey
    field: FieldInfo
    kind: Kind
    text: str
    origin: str
    in_overlay: bool
    pinned: str | None
    """The source above the overlay that sets it; then it can be changed there only."""
    is_set: bool

    @property
    def name(self) -> str:
        """Its name in the form."""
        return dotted(self.key)

    @property
    def choices(self) -> tuple[str, ...]:
        """What a switch or a choice can be."""
        if self.kind == "switch":
            return ("true", "false")
        return languages() if self.key[-1] == "language" else tuple(map(str, get_args(bare_type(self.field))))


def fields_of(loaded: LoadedSettings, scope: SettingKey) -> dict[str, list[FormField]]:
    """The fields of a scope under their headings: `()` the service, `("defaults",)`, `("instances", NAME)`."""
    headings = OF_INSTANCE if scope else OF_SERVICE
    return {
        heading: [_field(loaded, (*scope, *name.split("."))) for name in names] for heading, names in headings.items()
    }


def all_of(groups: Mapping[str, Iterable[FormField]]) -> list[FormField]:
    """The fields without their headings."""
    return [each for fields in groups.values() for each in fields]


def digest(fields: Iterable[FormField]) -> str:
    """Sixteen digits that change with anything that the form shows: whether what somebody saw has changed."""
    seen = [(each.name, each.text, each.origin, each.in_overlay, each.is_set) for each in fields]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]


def change_of(field: FormField, text: str, *, inherit: bool) -> Any:
    """What a submitted field changes: a value, `UNSET`, or None for nothing. Raises CannotBeDone with the reason.

    `inherit`: what is set here is to be removed, so that what lies below holds. A list that was emptied is an empty
    list; what else was emptied is removed.
    """
    text = text.replace("\r\n", "\n").strip()
    if field.pinned is not None:
        return None
    if inherit:
        return UNSET if field.in_overlay or field.kind == "secret" else None
    if text == field.text:
        return None
    if field.kind == "lines":
        return _from_lines(field, text)
    if text:
        return text if field.kind == "secret" else value_written(field.key, text)
    if field.in_overlay:
        return UNSET
    raise CannotBeDone(
        f"{field.name}: cannot be emptied, since its value is from {field.origin}", reason="setting_refused"
    )


def _field(loaded: LoadedSettings, key: SettingKey) -> FormField:
    field = find_field(key)
    if field is None or loaded.overlay is None:
        raise KeyError(key)
    kind = _kind(field, key)
    value = _value(loaded, key)
    origin = loaded.origins.get(key, "")
    overlay = loaded.overlay
    from_overlay_or_below = not origin or origin.startswith((overlay.origin, "file "))
    of_secret = kind == "secret"
    return FormField(
        key=key,
        field=field,
        kind=kind,
        text="" if of_secret else _written(value, kind),
        origin=loaded.origin(key),
        in_overlay=overlay.has(key) or (of_secret and origin.startswith("secret ")),
        pinned=None if from_overlay_or_below or (of_secret and origin.startswith("secret ")) else origin,
        is_set=value is not None and (not of_secret or loaded.origin(key) != BY_DEFAULT),
    )


def _value(loaded: LoadedSettings, key: SettingKey) -> Any:
    if key[0] == "instances" and key[1] not in loaded.settings.instances:
        key = (DEFAULTS, *key[2:])
    if loaded.overlay is not None and key[-2:-1] == ("labels",) and loaded.overlay.has(key):
        return loaded.overlay.get(key)  # without what a rules file adds
    return loaded.value(key)


def _kind(field: FieldInfo, key: SettingKey) -> Kind:
    if is_secret(field):
        return "secret"
    if is_list(field) or is_map(field):
        return "lines"
    kind = bare_type(field)
    if kind is bool:
        return "switch"
    if get_origin(kind) is Literal or (key[-1] == "language" and "microsoft_vision" not in key):
        return "choice"
    return "number" if kind in (int, float) else "text"


def _written(value: Any, kind: Kind) -> str:
    if value is None:
        return ""
    if kind == "lines":
        return _as_lines(shown(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_lines(value: Any) -> str:
    """A line for each item, `name = value` for a table; JSON where that would be ambiguous."""
    if isinstance(value, Mapping):
        lines = [f"{name} = {_item(each)}" for name, each in value.items()]
        texts = [*map(str, value), *(part for each in value.values() for part in _parts(each))]
        plain = not any(mark in text for text in texts for mark in "=\n") and not any(
            "," in part for each in value.values() if not isinstance(each, str) for part in _parts(each)
        )
    else:
        lines = [str(each) for each in value]
        plain = not any("\n" in line or not line.strip() for line in lines)
    if plain and not (lines and lines[0].startswith(("[", "{"))):
        return "\n".join(lines)
    return json.dumps(value, ensure_ascii=False, indent=1)


def _parts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _item(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else ", ".join(_parts(value))


def _from_lines(field: FormField, text: str) -> Any:
    if text.startswith(("{", "[")):
        return value_written(field.key, text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if is_list(field.field):
        return lines
    table: dict[str, Any] = {}
    for line in lines:
        name, mark, value = (part.strip() for part in line.partition("="))
        if not mark or not name or not value:
            raise CannotBeDone(
                f"{field.name}: write `name = value` in each line, not {line!r}", reason="setting_refused"
            )
        if name in table:
            raise CannotBeDone(f"{field.name}: {name!r} is there twice", reason="setting_refused")
        table[name] = _item_written(field, value)
    return table


def _item_written(field: FormField, text: str) -> Any:
    """An item of a table: a number where they are numbers, a list where they may be lists and there is a comma."""
    if field.key[-1] == "thresholds":
        try:
            return float(text)
        except ValueError:
            return text  # which validation refuses, and says what is allowed
    if field.key[-1] == "parents" and "," in text:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text
