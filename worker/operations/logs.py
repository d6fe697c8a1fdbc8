"""Logging with structlog to standard error: one line per log event, as JSON for programs or in colour for people.

A line is written where it is logged, as that is fastest, and without waiting for a reader (`LineWriter`).
"""

from __future__ import annotations

import io
import json
import logging
import sys
from contextlib import suppress
from functools import lru_cache
from io import StringIO
from typing import Literal, TextIO

import structlog

from worker.operations import tracing
from worker.operations.line_writer import LineWriter
from worker.operations.printable import printable, printable_json, printable_lines

_STANDARD_ERROR = 2

LIBRARIES = {
    **dict.fromkeys(("httpx", "httpcore", "hpack", "h2", "opentelemetry"), logging.WARNING),
    "pika": logging.CRITICAL,
    "uvicorn": logging.ERROR,
}
"""From which level on libraries log. pika logs every step of a connection, httpx every request with its URL: our own
log covers both in one line. uvicorn warns of every request that is no HTTP, or asks for a WebSocket: anybody who can
reach the port could fill the disk with that."""


def configure(level: str, form: Literal["console", "json"]) -> None:
    """Set up logging for the whole process; records of libraries that use `logging` get the same format."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
        _without_empty_fields,
    ]
    # Neither format prints local variables with a traceback: they may contain a key.
    renderer: list[structlog.typing.Processor]
    if form == "json":
        without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(without_locals), structlog.processors.JSONRenderer(_json)]
    else:
        renderer = [
            _for_a_terminal,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=_write_traceback, pad_event_to=32
            ),
        ]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Output,
        cache_logger_on_first_use=False,  # otherwise a second call would have no effect
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library, its_level in LIBRARIES.items():
        logging.getLogger(library).setLevel(its_level)


class _Output:
    """Writes lines to standard error, with the name of the module that logs them."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """Write one line. Raises nothing: logging must not stop the work that is logged."""
        _write_line(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _Handler(logging.Handler):
    """The same, for records of libraries that use `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            _write_line(self.format(record))
        except Exception:  # noqa: BLE001 - as in the handlers of `logging`: a record that cannot be formatted
            self.handleError(record)


def _write_line(message: str) -> None:
    """Write to standard error without waiting; what stands for it meanwhile (a progress display) gets the text."""
    stream = sys.stderr
    if stream is None:  # closed before we were started
        return
    writer = _line_writer() if _is_standard_error(stream) else None
    if writer is not None:
        writer.write_line(f"{message}\n".encode(stream.encoding, "backslashreplace"))
        return
    with suppress(OSError, ValueError):
        stream.write(f"{message}\n")
        stream.flush()


def _is_standard_error(stream: TextIO) -> bool:
    """Whether it writes to the descriptor itself, and is not what a display or a test has put in its place."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    try:
        return stream.fileno() == _STANDARD_ERROR
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=1)
def _line_writer() -> LineWriter | None:
    """The writer to standard error; None where it cannot be written to."""
    try:
        return LineWriter(_STANDARD_ERROR, _report_lost)
    except (OSError, ValueError):
        return None


def _report_lost(lines: int) -> None:
    structlog.get_logger(__name__).warning("log lines were lost", lines=lines)


_ENCODER = json.JSONEncoder(default=repr)
_SEVERAL_LINES = ("exception", "stack")


def _json(line: structlog.typing.EventDict, **_: object) -> str:
    return printable_json(_ENCODER.encode(line))


def _for_a_terminal(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make every value printable: much of what is logged was written by others. Runs for every line: keep it cheap."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = printable_lines(value) if name in _SEVERAL_LINES else printable(value)
        elif name != "exc_info" and not isinstance(value, int | float):
            line[name] = printable(repr(value))
    return line


def _write_traceback(output: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    traceback = StringIO()
    structlog.dev.plain_traceback(traceback, exc_info)
    output.write(printable_lines(traceback.getvalue()))


def _with_trace(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the trace and span ids of the event that the line is about."""
    trace = tracing.current_trace()
    if trace is not None and trace.traceparent is not None:
        line.update(trace_id=trace.trace_id, span_id=trace.span_id)
    return line


def _without_empty_fields(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {name: value for name, value in line.items() if value is not None}
