"""The settings classes as data: which keys exist, what each allows, and which key an unknown one probably means."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

from worker.settings.base import Section
from worker.settings.root import ENV_PREFIX, NESTING, Settings

SettingKey = tuple[str, ...]
"""The position of a setting in the tree: `("instances", "acme", "tensorflow", "enabled")`."""

MASK = "********"


def dotted(key: Sequence[str]) -> str:
    """The key in TOML's spelling: names with unusual characters are quoted."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"' for part in key)


def environment_name(key: Sequence[str]) -> str:
    """The environment variable that sets the key."""
    return ENV_PREFIX + NESTING.join(re.sub(r"\W", "_", part) for part in key).upper()


def secret_name(key: Sequence[str]) -> str:
    """The name of the file in a secrets directory that sets the key."""
    return NESTING.join(key)


def table_of(field: FieldInfo) -> type[Section] | None:
    """The class of a field that is a table of its own; None for a setting."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def named_table(field: FieldInfo) -> type[Section] | None:
    """The class of the tables in a field that has one under each of several names of the operator's; else None."""
    if get_origin(field.annotation) is not dict:
        return None
    kind = get_args(field.annotation)[1]
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def settings_in(table: type[Section], above: SettingKey = ()) -> Iterator[tuple[SettingKey, FieldInfo]]:
    """Every setting of a table, then of the tables in it (the order TOML requires); without tables of free names."""
    inner = {name: found for name, field in table.model_fields.items() if (found := table_of(field))}
    for name, field in table.model_fields.items():
        if name not in inner and named_table(field) is None:
            yield (*above, name), field
    for name, found in inner.items():
        yield from settings_in(found, (*above, name))


def _named_in(table: type[Section], above: SettingKey = ()) -> Iterator[tuple[SettingKey, dict[SettingKey, FieldInfo]]]:
    for name, field in table.model_fields.items():
        if (named := named_table(field)) is not None:
            yield (*above, name), dict(settings_in(named))
        elif (inner := table_of(field)) is not None:
            yield from _named_in(inner, (*above, name))


SYSTEM: dict[SettingKey, FieldInfo] = dict(settings_in(Settings))
NAMED: dict[SettingKey, dict[SettingKey, FieldInfo]] = dict(_named_in(Settings))
"""What has a table under each of several names of the operator's choice, and the settings of each such table."""

INSTANCE: dict[SettingKey, FieldInfo] = NAMED["instances",]


def named_above(key: SettingKey) -> SettingKey | None:
    """The key in `NAMED` that a key lies below; None for one that lies below none."""
    return next((above for above in NAMED if key[: len(above)] == above and len(key) > len(above)), None)


def find_field(key: SettingKey) -> FieldInfo | None:
    """The field of a key; None when there is no such setting."""
    above = named_above(key)
    return SYSTEM.get(key) if above is None else NAMED[above].get(key[len(above) + 1 :])


def nearest(key: SettingKey) -> SettingKey | None:
    """The known key that an unknown one resembles most."""
    above: SettingKey = ()
    name, known = key, SYSTEM
    named = named_above(key)
    if named is not None and len(key) > len(named) + 1:
        above, name, known = key[: len(named) + 1], key[len(named) + 1 :], NAMED[named]
    by_text = {".".join(each): each for each in known}
    found = difflib.get_close_matches(".".join(name), by_text, n=1, cutoff=0.6)
    if not found:  # right name, wrong table
        by_text = {each[-1]: each for each in known}
        found = difflib.get_close_matches(name[-1], by_text, n=1, cutoff=0.8)
    return (*above, *by_text[found[0]]) if found else None


def is_secret(field: FieldInfo) -> bool:
    """Whether the value, or each value of a map with the operator's own keys, must never be shown."""
    kind = _bare(field.annotation)
    while get_origin(kind) is dict:
        kind = _bare(get_args(kind)[1])
    return kind is SecretStr


def is_list(field: FieldInfo) -> bool:
    """Whether the value is a list."""
    return get_origin(_bare(field.annotation)) is tuple


def is_path_list(field: FieldInfo) -> bool:
    """Whether the value is a list of paths."""
    return is_list(field) and _bare(get_args(_bare(field.annotation))[0]) is Path


def is_map(field: FieldInfo) -> bool:
    """Whether the value is a map with the operator's own keys."""
    return get_origin(_bare(field.annotation)) is dict


def unit(name: str, field: FieldInfo) -> str:
    """The unit of a setting, derived from its name unless the field declares another."""
    by_name = next((word for ending, word in (("_s", "seconds"), ("_bytes", "bytes")) if name.endswith(ending)), "")
    return str(extra(field).get("unit", by_name))


def extra(field: FieldInfo) -> dict[str, Any]:
    """What a field declares beyond what pydantic knows: `allowed`, `unit`, `default_text`."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def allowed(field: FieldInfo) -> str:
    """The allowed values of a setting, in words."""
    if "allowed" in extra(field):
        return str(extra(field)["allowed"])
    bare = _bare(field.annotation)
    if get_origin(bare) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(bare))
    if bare is bool:
        return "true or false"
    if bare in (int, float, ByteSize):
        word = "a number" if bare is float else "a whole number"
        return word + _range(field) + (", or a text such as 64 MiB" if bare is ByteSize else "")
    if bare is Path:
        return "a path"
    return "a text that is not empty" if any(isinstance(each, MinLen) for each in field.metadata) else "a text"


def _range(field: FieldInfo) -> str:
    least = next((each.ge for each in field.metadata if isinstance(each, Ge)), None)
    most = next((each.le for each in field.metadata if isinstance(each, Le)), None)
    above = next((each.gt for each in field.metadata if isinstance(each, Gt)), None)
    match least, most, above:
        case None, None, None:
            return ""
        case None, None, bound:
            return f" above {bound}"
        case bound, None, None:
            return f" of at least {bound}"
        case _:
            return f" from {least} to {most}"


def bare_type(field: FieldInfo) -> Any:
    """The type of a field's value, without `| None`."""
    return _bare(field.annotation)


def _bare(annotation: Any) -> Any:
    """The type without `| None` and without the metadata of `Annotated`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(each for each in get_args(annotation) if each is not types.NoneType))
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation
