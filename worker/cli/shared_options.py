"""The options of every command: `autotag --config FILE status` and `autotag status --config FILE` mean the same.

They are declared once, as parameters of the root command. Each group and each command below it gets copies, whose
values replace what was written before the command's name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from worker.cli.context import CliContext
from worker.supervision.untraceable import allow_tracing

PANEL = "Options of every command"

_OF_THE_ROOT_ALONE = {"install_completion", "show_completion"}


def add_to_all(commands: Mapping[str, Any], options: list[Any]) -> None:
    """Add the root's options to every command and group below it."""
    copies = [_copy(option) for option in options if option.name not in _OF_THE_ROOT_ALONE]
    for command in _below(commands):
        command.params = [*command.params, *copies]


def _below(commands: Mapping[str, Any]) -> Iterator[Any]:
    for command in commands.values():
        yield command
        yield from _below(getattr(command, "commands", {}))


def _copy(option: Any) -> Any:
    """A copy that hands its value on itself, as the command's function has no parameter for it."""
    copied = copy.copy(option)
    copied.rich_help_panel = PANEL
    if option.expose_value and not option.is_eager:
        copied.envvar = None  # it ranks below what was written before the command's name, where it has been read
        copied.callback = _note
    copied.expose_value = False
    return copied


def _note(context: Any, option: Any, value: Any) -> None:
    """Remember the value of an option written after the command's name."""
    root = context.find_root()
    if not value or not isinstance(root.obj, CliContext):  # not given, or only being completed
        return
    if option.name == "traceable":
        allow_tracing()
    else:
        root.obj = replace(root.obj, **{_FIELDS.get(option.name, option.name): value})


_FIELDS = {"config_file": "config"}
