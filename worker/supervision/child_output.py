"""Logs what a child prints, bounded in line length and number of lines; the child is never blocked by it.

The last lines are kept: the fault handler's stack trace among them is the best evidence of what killed the child.
"""

from __future__ import annotations

from collections import deque

import structlog

from worker.operations.printable import printable

MAXIMUM_LINE_CHARACTERS = 1000
MAXIMUM_LINES_PER_SECOND = 50
KEPT_LINES = 40

_MAXIMUM_LINE_BYTES = 4 * MAXIMUM_LINE_CHARACTERS

_log = structlog.get_logger(__name__)


class ChildOutput:
    """Splits one child's output into log lines; `child` and `pid` are fields of each."""

    def __init__(self, child: str, pid: int) -> None:
        self._child = child
        self._pid = pid
        self._unfinished = b""
        self._last: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._second = -1
        self._lines_this_second = 0
        self._left_out = 0

    @property
    def last_lines(self) -> list[str]:
        """The last lines printed, logged or not."""
        return [_readable(line) for line in self._last]

    def feed(self, data: bytes, now_s: float) -> None:
        """Log the lines that `data` completes, at monotonic `now_s`. A line that is too long is truncated."""
        *lines, unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = unfinished[:_MAXIMUM_LINE_BYTES]  # the rest of an endless line would be truncated anyway
        lines = [line for line in lines if line and not line.isspace()]
        self._last.extend(line[:_MAXIMUM_LINE_BYTES] for line in lines[-KEPT_LINES:])
        if int(now_s) != self._second:
            self._log_left_out()
            self._second, self._lines_this_second = int(now_s), 0
        room = MAXIMUM_LINES_PER_SECOND - self._lines_this_second
        # Lines that are left out are not even decoded: a child that floods its output must cost the parent little.
        for line in lines[:room]:
            _log.info("child says", child=self._child, pid=self._pid, line=_readable(line))
        self._lines_this_second += len(lines[:room])
        self._left_out += len(lines[room:])

    def finish(self, now_s: float) -> None:
        """Log the rest of the output; call when the child has exited."""
        if self._unfinished:
            self.feed(b"\n", now_s)
        self._log_left_out()

    def _log_left_out(self) -> None:
        if self._left_out:
            _log.warning("child prints too much", child=self._child, pid=self._pid, lines_left_out=self._left_out)
            self._left_out = 0


def _readable(line: bytes) -> str:
    """The line as text for people: output that an image provoked must not control an operator's terminal."""
    text = line[:_MAXIMUM_LINE_BYTES].decode("utf-8", "replace").rstrip()
    return printable(text, maximum=MAXIMUM_LINE_CHARACTERS)
