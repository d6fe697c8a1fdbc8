"""Logging with structlog to standard error: one line per log event, as JSON for programs or in colour for people."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from io import StringIO
from typing import Literal, TextIO

import structlog

from worker.operations import tracing
from worker.operations.printable import printable, printable_json, printable_lines


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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # pika logs every step of a connection, httpx every request with its URL: our own log covers both in one line.
    for library in ("pika", "httpx", "httpcore", "hpack", "h2", "uvicorn", "opentelemetry"):
        logging.getLogger(library).setLevel(logging.CRITICAL if library == "pika" else logging.WARNING)


class _Output(structlog.WriteLogger):
    """Writes lines to standard error, with the name of the module that logs them.

    A line that cannot be written is dropped without an error: logging must not stop the work that is logged.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name

    def msg(self, message: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


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
