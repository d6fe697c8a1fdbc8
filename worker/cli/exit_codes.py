"""The exit codes of every `autotag` command, so that scripts can tell one failure from another."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status says."""

    OK = 0
    FAILED = 1
    """The command ran, and something it was asked for could not be done: a file not tagged, a check that failed."""
    USAGE = 2
    """The command line or the settings are wrong; nothing was begun."""
    UNREACHABLE = 3
    """RabbitMQ or the running service could not be reached."""
    MODEL = 4
    """The model is missing, damaged or can't be built."""
    TIMEOUT = 5
    """What was waited for did not come in time."""
