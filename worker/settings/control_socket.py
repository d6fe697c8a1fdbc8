"""Where the control socket of the running service is by settings that cannot be used as a whole.

An operator who has broken the settings file wants to pause the service all the more. Each source is asked for the two
settings that matter, whatever is wrong with the others.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.settings.load import read_sources
from worker.settings.root import Settings

_KEYS = ("state_dir", "control_socket")
"""The default of the second is a file in the first."""

_LINE = re.compile(rf"^[ \t]*(?:{'|'.join(_KEYS)})[ \t]*=.*", re.MULTILINE)
_FIRST_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)


def readable_control_socket(
    path: Path | None = None,
    *,
    secrets_dir: Path | None = None,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Path:
    """The path of the socket, as far as the sources can be read; the arguments are those of `load_settings`."""
    sources = read_sources(path, secrets_dir=secrets_dir, env_file=env_file, environ=environ, directory=directory)
    found = _in_no_toml(sources.config_file) if sources.config_file else {}
    found |= {name: sources.reader.values[name,].value for name in _KEYS if (name,) in sources.reader.values}
    return _usable(found).control_socket


def _in_no_toml(file: Path) -> dict[str, Any]:
    """What the lines of a file say that is no TOML as a whole, above its first table; nothing of one that is."""
    try:
        text = file.read_text("utf-8-sig", "replace")
    except OSError:
        return {}
    found: dict[str, Any] = {}
    for line in _LINE.findall(_FIRST_TABLE.split(text, maxsplit=1)[0]):
        try:
            found |= tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            continue  # perhaps the very line that is wrong
    return found


def _usable(values: Mapping[str, Any]) -> Settings:
    """The settings by those of the values that are valid."""
    usable: dict[str, Any] = {}
    for name, value in values.items():
        try:
            Settings(**{name: value})
        except ValidationError:
            continue
        usable[name] = value
    return Settings(**usable)
