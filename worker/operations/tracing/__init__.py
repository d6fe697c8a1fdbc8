"""Tracing of events: the duration of each stage, and the spans and ids of the event's distributed trace.

Any code that does a part of the work opens a `span` for it or adds a stage's duration; the event it belongs to is known
from the task's context. Without OpenTelemetry only the stages are timed and the ids of the publisher's trace are passed
on.
"""

from __future__ import annotations

from worker.operations.tracing.trace import (
    NO_TRACER,
    Span,
    Trace,
    Tracer,
    current_span,
    current_trace,
    span,
    start_trace,
)

__all__ = ["NO_TRACER", "Span", "Trace", "Tracer", "current_span", "current_trace", "span", "start_trace"]
