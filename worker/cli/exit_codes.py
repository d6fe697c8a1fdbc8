"""The exit codes of every `autotag` command, so that scripts can distinguish failures."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of a command."""

    OK = 0
    FAILED = 1
    """The command ran, and something requested could not be done: a file was not tagged, a check failed."""
    USAGE = 2
    """The command line or the settings are wrong; nothing was started."""
    UNREACHABLE = 3
    """RabbitMQ or the running service could not be reached."""
    MODEL = 4
    """The model is missing, damaged or cannot be built."""
    TIMEOUT = 5
    """What the command waited for did not happen in time."""
