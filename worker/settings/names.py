"""Flat names and texts, as in the environment and secret files: which setting and value each one stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from worker.messages.fields import is_instance_name
from worker.settings.origins import origin_url
from worker.settings.root import ENV_PREFIX, NESTING
from worker.settings.schema import NAMED, SYSTEM, SettingKey, is_list, is_map, is_path_list, nearest

CONFIG_VARIABLE = "AUTOTAG_CONFIG"
"""The environment variable that names the TOML file."""

ENV_FILE_VARIABLE = "AUTOTAG_ENV_FILE"
"""The environment variable that names the `.env` file."""

SECRETS_VARIABLE = "AUTOTAG_SECRETS_DIR"
"""The environment variable that names the secrets directory."""

_NOT_SETTINGS = re.compile(
    rf"""
    {CONFIG_VARIABLE} | {ENV_FILE_VARIABLE} | {SECRETS_VARIABLE} | AUTOTAG_TEST_\w+
    | AUTOTAG_IMAGES  # of deploy/compose.yaml, which docker compose reads from the same environment and .env
    # What Kubernetes sets in every pod when a service is called autotag or autotag-something.
    | AUTOTAG_(\w+_)?SERVICE_(HOST | PORT(_\w+)?) | AUTOTAG_(\w+_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?
    """,
    re.VERBOSE,
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")  # the value of Kubernetes' AUTOTAG_PORT


class AmbiguousNameError(ValueError):
    """A name written without regard to case matches more than one table."""


def _no_instance(name: str) -> str | None:
    if is_instance_name(name):
        return None
    return f"no event can name the instance {name!r}: letters, digits, `.`, `_` and `-`, at most 100"


def _no_origin(name: str) -> str | None:
    try:
        origin_url(name)
    except ValueError as error:
        return f"{name!r} is no host: {error}"
    return None


def _no_service(name: str) -> str | None:
    return None if is_instance_name(name) else f"{name!r} is no name: letters, digits, `.`, `_` and `-`, at most 100"


WHY_NO_NAME: Mapping[SettingKey, Callable[[str], str | None]] = {
    ("instances",): _no_instance,
    ("sources", "credentials"): _no_origin,
    ("sources", "s3"): _no_service,
    ("connect",): _no_service,
}
"""For each place with tables of free names: why one of them cannot have a name, or None."""


def is_setting(variable: str, text: str) -> bool:
    """Whether an environment variable is meant as a setting. An empty one is not: compose files pass unset ones so."""
    variable = variable.upper()
    if not text or not variable.startswith(ENV_PREFIX) or _NOT_SETTINGS.fullmatch(variable):
        return False
    return not (variable.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(text))


def key_of(name: str, named: Mapping[SettingKey, Collection[str]]) -> SettingKey | None:
    """The setting that a lower-case name such as `instances__acme__enabled` denotes; None when there is none.

    `named` are the tables of free names that are known so far, such as instances. A name that is not among them
    creates a new one.

    Raises:
        AmbiguousNameError: the name could be any of several tables.
    """
    parts = tuple(name.split(NESTING))
    above = next((above for above in NAMED if parts[: len(above)] == above), None)
    if above is None:
        return parts if parts in SYSTEM else None
    first = len(above) + 1
    for end in range(first, len(parts)):
        if parts[end:] in NAMED[above]:
            written = NESTING.join(parts[first - 1 : end])
            known = _table_called(written, named.get(above, ()))
            # The name of a known table may contain the separator; in a new one it means a misspelled table.
            if known or end == first:
                return (*above, known or written, *parts[end:])
    return None


def _table_called(written: str, names: Collection[str]) -> str | None:
    """The known table meant by a name that has lost its case, and perhaps its dots and dashes too."""
    for spelling in (str.casefold, _spelled_as_variable):
        found = sorted(name for name in names if spelling(name) == spelling(written))
        if len(found) > 1:
            raise AmbiguousNameError(f"its table could be any of {', '.join(found)}: set it in the TOML file")
        if found:
            return found[0]
    return None


def _spelled_as_variable(name: str) -> str:
    return re.sub(r"\W", "_", name.casefold())


def nearest_to(name: str) -> SettingKey | None:
    """The key that an unknown name resembles, also where a single underscore was written for the separator."""
    with_single = name.replace(NESTING, "_")
    return next((key for key in SYSTEM if "_".join(key) == with_single), None) or nearest(tuple(name.split(NESTING)))


def value_of(field: FieldInfo, text: str) -> Any:
    """Parse a list (commas or JSON) or a map (JSON); everything else is left to validation.

    White space around it is left out, as is a byte order mark: an editor, a shell or a secret's file has added it.

    Raises:
        ValueError: the text is not JSON where it has to be.
    """
    text = text.strip().removeprefix("\ufeff").strip()
    if is_map(field) or (is_list(field) and text.startswith("[")):
        return json.loads(text)
    if is_list(field):
        parts = text.split(":" if is_path_list(field) and _SEARCH_PATH.fullmatch(text) else ",")
        return [part.strip() for part in parts if part.strip()]
    return text


_SEARCH_PATH = re.compile(r"[/~][^:,]*(:[/~][^:,]*)+")
"""Absolute paths with colons between them, as in PATH. None of them holds a comma: that would be ambiguous."""
