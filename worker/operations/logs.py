"""Logging: structlog, one line a happening, as JSON for programs or in colour for people, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from typing import Literal

import structlog

from worker.operations import tracing


def configure(level: str, form: Literal["console", "json"]) -> None:
    """Set up logging for the whole process; what libraries log through the standard library looks the same."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
        _without_empty_fields,
    ]
    # Neither form prints local variables with a traceback: one of them may hold a key.
    renderer: list[structlog.typing.Processor]
    if form == "json":
        without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(without_locals), structlog.processors.JSONRenderer(_json)]
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
            )
        ]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Output,
        cache_logger_on_first_use=False,  # or a second call of this would change nothing
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
    # pika tells of every step of a connection, httpx of every request with its address: ours say it in one line.
    for chatty in ("pika", "httpx", "httpcore", "hpack", "h2", "uvicorn", "opentelemetry"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL if chatty == "pika" else logging.WARNING)


class _Output(structlog.WriteLogger):
    """Writes lines to standard error, and knows the module that they come from.

    A line that cannot be written is lost, and nothing else: whoever has something to say has something to do as well.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


_ENCODER = json.JSONEncoder(default=repr)


def _json(line: structlog.typing.EventDict, **_: object) -> str:
    return _ENCODER.encode(line)


def _with_trace(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The ids under which a tracing system knows the event that the line is about."""
    trace = tracing.current_trace()
    if trace is not None and trace.traceparent is not None:
        line.update(trace_id=trace.trace_id, span_id=trace.span_id)
    return line


def _without_empty_fields(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {name: value for name, value in line.items() if value is not None}
