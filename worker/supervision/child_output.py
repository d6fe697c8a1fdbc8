"""What a child prints becomes lines of the log, bounded in length and number, and never holds the child up.

The last lines are kept: a fault handler's stack among them is the best evidence of what killed the child.
"""

from __future__ import annotations

from collections import deque

import structlog

LONGEST_LINE_CHARACTERS = 1000
MOST_LINES_A_SECOND = 50
KEPT_LINES = 40

_LONGEST_LINE_BYTES = 4 * LONGEST_LINE_CHARACTERS

_log = structlog.get_logger(__name__)


class ChildOutput:
    """Takes a child's output piece by piece; `child` and `pid` mark its lines in the log."""

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
        return [_printable(line) for line in self._last]

    def feed(self, data: bytes, now_s: float) -> None:
        """Log the lines that `data` completes. A line that is too long is cut."""
        *lines, unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = unfinished[:_LONGEST_LINE_BYTES]  # the rest of an endless line would be cut anyway
        lines = [line for line in lines if line and not line.isspace()]
        self._last.extend(line[:_LONGEST_LINE_BYTES] for line in lines[-KEPT_LINES:])
        if int(now_s) != self._second:
            self._tell_left_out()
            self._second, self._lines_this_second = int(now_s), 0
        room = MOST_LINES_A_SECOND - self._lines_this_second
        # What is left out is not even decoded: a child that floods us must cost the parent little.
        for line in lines[:room]:
            _log.info("child says", child=self._child, pid=self._pid, line=_printable(line))
        self._lines_this_second += len(lines[:room])
        self._left_out += len(lines[room:])

    def finish(self, now_s: float) -> None:
        """Log what is left: the child has ended."""
        if self._unfinished:
            self.feed(b"\n", now_s)
        self._tell_left_out()

    def _tell_left_out(self) -> None:
        if self._left_out:
            _log.warning("child prints too much", child=self._child, pid=self._pid, lines_left_out=self._left_out)
            self._left_out = 0


def _printable(line: bytes) -> str:
    """As text without control characters: what an image made a child print must not drive somebody's terminal."""
    text = line[:_LONGEST_LINE_BYTES].decode("utf-8", "replace").rstrip().replace("\t", "  ")
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return shown if len(shown) <= LONGEST_LINE_CHARACTERS else shown[: LONGEST_LINE_CHARACTERS - 1] + "…"
