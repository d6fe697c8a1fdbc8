"""What the commands need of the process that they are started in: names as bytes, three streams, an end without noise.

File names are bytes. Python turns them into text by the locale's encoding; in a locale without UTF-8 (POSIX, as in many
containers and cron jobs) an event's `Käse.jpg` could not be opened, and no tag with an accent printed. So the program
always runs in Python's UTF-8 mode (https://peps.python.org/pep-0540/): started in any other, it replaces itself by
itself in that mode.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_fault

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD = ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY))


def prepare() -> None:
    """Call this first: it may replace the process by one in UTF-8 mode with the same arguments."""
    _open_what_is_closed()
    if sys.getfilesystemencoding().lower() != "utf-8" and not sys.flags.utf8_mode:
        with suppress(OSError, ValueError):  # where it cannot be, all names that are ASCII still work
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - it needs none
    sys.stdout = _text_stream(1)
    sys.stderr = _text_stream(2)


_OF_A_DISK = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ESTALE})


class OutputError(OSError):
    """What was printed could not be written: a full disk, a closed pipe."""


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        """Write, and make a failure distinguishable from that of any other file."""
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


def _text_stream(number: int) -> io.TextIOWrapper:
    """Standard output or error in UTF-8, in which a name that is not UTF-8 is shown with escapes."""
    output = _Output(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(output), "utf-8", "backslashreplace", line_buffering=number == 2 or output.isatty()
    )


def _open_what_is_closed() -> None:
    """Open /dev/null in place of a standard stream that is closed, else the next file opened would become that stream.

    A child would then write its output into it.
    """
    for number, mode in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                null = os.open(os.devnull, mode)
                if null != number:
                    os.dup2(null, number)
                    os.close(null)
                os.set_inheritable(number, True)


@contextmanager
def failures_in_one_line() -> Iterator[None]:
    """Report output that cannot be written, or a file that cannot be used, in a line and by the exit status.

    A reader that has read enough (`| head`) is no failure to report: it ends the command with status 1, silently.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError as error:
        _discard_output()
        if error.errno != errno.EPIPE:
            print_error(f"the output cannot be written: {error.strerror}")
        raise SystemExit(ExitCode.FAILED) from None
    except OSError as error:
        if error.filename is not None:
            print_error(f"{os.fsdecode(error.filename)}: {error.strerror}")
        elif error.errno in _OF_A_DISK:  # reading from and writing to an open file names none
            print_error(f"a file cannot be read or written: {error.strerror}")
        else:
            raise  # not about a file that somebody named: a fault of ours, which the traceback locates
        raise SystemExit(ExitCode.FAILED) from None


@contextmanager
def faults_printable() -> Iterator[None]:
    """Print the traceback of an error that nobody has foreseen like all else: it may quote what others wrote."""
    try:
        yield
    except Exception:  # noqa: BLE001 - it is reported whole, as the interpreter would
        print_fault(traceback.format_exc())
        raise SystemExit(ExitCode.FAILED) from None


def _discard_output() -> None:
    """Keep the interpreter from trying once more at its end, and from printing that error."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
