"""One event's way, as it is followed: how long each stage took, and the spans and ids of its distributed trace.

Whoever does a part of the work says so with `span`, or notes what a stage took, wherever it is; which event that is for
is known from the task's context. Without OpenTelemetry the stages are timed and the ids of the event's own trace are
carried through; nothing else happens.
"""

from __future__ import annotations

from worker.operations.tracing.trace import NO_TRACER, Span, Trace, Tracer, current_span, current_trace, follow, span

__all__ = ["NO_TRACER", "Span", "Trace", "Tracer", "current_span", "current_trace", "follow", "span"]
