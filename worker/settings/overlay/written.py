"""Keys and values as people write them in a command or a form, and as TOML has them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from worker.errors import CannotBeDone
from worker.settings.names import value_of
from worker.settings.schema import SettingKey, bare_type, dotted, find_field, nearest

_SWITCHES = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
_MAXIMUM_SHOWN = 60


def key_written(text: str) -> SettingKey:
    """A key in TOML's spelling: `instances."acme.org".enabled`. Raises CannotBeDone."""
    wrong = CannotBeDone(f"{text!r} is no key; write it as in TOML: tensorflow.model", reason="setting_unknown")
    try:
        tree: Any = tomllib.loads(f"{text} = 0")
    except ValueError:
        raise wrong from None
    key = []
    while isinstance(tree, dict):
        if len(tree) != 1:
            raise wrong
        ((name, tree),) = tree.items()
        key.append(name)
    return tuple(key)


def known_field(key: SettingKey) -> FieldInfo:
    """The field of a key. Raises CannotBeDone for a key that is no setting, with what was probably meant."""
    field = find_field(key)
    if field is None:
        meant = nearest(key)
        hint = f"; did you mean {dotted(meant)}?" if meant else "; `autotag config reference` lists all"
        raise CannotBeDone(f"{dotted(key)} is not a setting{hint}", reason="setting_unknown")
    return field


def value_written(key: SettingKey, text: str) -> Any:
    """The value that a text stands for, as TOML has it; lists and maps as in the environment. Raises CannotBeDone.

    Whether it is allowed is left to validation, which says what is.
    """
    field = known_field(key)
    try:
        value = value_of(field, text)
    except ValueError as error:
        raise CannotBeDone(f"{dotted(key)}: is not JSON: {error}", reason="setting_refused") from None
    if not isinstance(value, str):
        return value
    kind = bare_type(field)
    if kind is bool:
        return _SWITCHES.get(value.lower(), value)
    for number in (int, float) if kind in (int, float) else ():
        try:
            return number(value)
        except ValueError:
            continue
    return value


def as_written(value: Any) -> Any:
    """A value as a TOML writer takes it. Raises ValueError for what TOML has no word for."""
    match value:
        case Mapping():
            return {str(name): as_written(each) for name, each in value.items()}
        case list() | tuple():
            return [as_written(each) for each in value]
        case None:
            raise ValueError("there is no null in TOML: leave it out")
        case _:
            return value


def shortened(value: Any) -> str:
    """A value in one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAXIMUM_SHOWN else f"{text[: _MAXIMUM_SHOWN - 1]}…"
