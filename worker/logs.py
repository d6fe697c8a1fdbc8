"""Logging: structlog, one line a happening, as JSON for programs or in colour for people, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from worker import tracing


def configure(level: str, form: Literal["console", "json"]) -> None:
    """Set up logging for the whole process; libraries that log through the standard library go the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
        _without_empty_fields,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # Neither form prints local variables with a traceback: one of them may hold a key.
    renderer: list[structlog.typing.Processor]
    if form == "json":
        without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(without_locals), structlog.processors.JSONRenderer()]
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
            )
        ]
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
