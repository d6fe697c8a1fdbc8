"""Presets of connections: values that lie beneath those of the operator."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

_PACKAGE = "worker.connect.presets"
_SUFFIX = ".toml"


def preset_names() -> list[str]:
    """The systems for which there is a preset."""
    return sorted(file.name.removesuffix(_SUFFIX) for file in files(_PACKAGE).iterdir() if file.name.endswith(_SUFFIX))


def preset(name: str) -> dict[str, Any]:
    """The table of a system. Raises KeyError for a system without a preset."""
    if name not in preset_names():
        raise KeyError(name)
    return tomllib.loads((files(_PACKAGE) / f"{name}{_SUFFIX}").read_text("utf-8"))


def preset_notes(name: str) -> list[str]:
    """What the preset's file says about it, for people: its first lines of comment. Raises KeyError as `preset`."""
    if name not in preset_names():
        raise KeyError(name)
    lines = (files(_PACKAGE) / f"{name}{_SUFFIX}").read_text("utf-8").splitlines()
    first_other = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").strip() for line in lines[:first_other]]
