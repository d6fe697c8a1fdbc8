"""The trace of the event that the current task works on, kept in context variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

SpanAttributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """A span of a distributed trace."""

    @property
    def traceparent(self) -> str | None:
        """The W3C header that makes later work a child of this span; None if nothing is recorded."""
        ...

    def set(self, attributes: SpanAttributes) -> None:
        """Add attributes."""
        ...


class Tracer(Protocol):
    """Creates spans."""

    def event(
        self, traceparent: str | None, tracestate: str | None, began_s: float, attributes: SpanAttributes
    ) -> AbstractContextManager[Span]:
        """A span for a whole event, a child of the publisher's span; `began_s` is monotonic."""
        ...

    def span(self, name: str, attributes: SpanAttributes) -> AbstractContextManager[Span]:
        """A child of the span that is open in this task."""
        ...


class NoSpan:
    """A span that is not recorded."""

    traceparent: str | None = None

    def set(self, attributes: SpanAttributes) -> None:
        """Do nothing."""


class NoTracer:
    """A tracer that records nothing."""

    def event(
        self, traceparent: str | None, tracestate: str | None, began_s: float, attributes: SpanAttributes
    ) -> AbstractContextManager[Span]:
        """Return an unrecorded span."""
        return nullcontext(NO_SPAN)

    def span(self, name: str, attributes: SpanAttributes) -> AbstractContextManager[Span]:
        """Return an unrecorded span."""
        return nullcontext(NO_SPAN)


NO_SPAN = NoSpan()
NO_TRACER = NoTracer()
_NULL_CONTEXT = nullcontext(NO_SPAN)


@dataclass(slots=True)
class Trace:
    """Trace and measurements of one event. `stages_s`: seconds by stage; repeated stages are summed."""

    tracer: Tracer
    stages_s: dict[str, float] = field(default_factory=dict)
    traceparent: str | None = None
    """The header for messages that follow from this event: our own span, or what came with the event."""
    _open: ExitStack | None = None
    """The contexts that `join` has entered."""

    def join(self, traceparent: str | None, tracestate: str | None, began_s: float, attributes: SpanAttributes) -> None:
        """Continue the publisher's trace, once the event has been read and its trace is known."""
        if self.tracer is NO_TRACER:
            self.traceparent = traceparent
            return
        self._open = ExitStack()
        event_span = self._open.enter_context(self.tracer.event(traceparent, tracestate, began_s, attributes))
        self._open.enter_context(_set_current(event_span))
        self.traceparent = event_span.traceparent or traceparent

    def close(self, error: BaseException | None) -> bool:
        """Close what `join` opened, passing on the exception that ends the event. True if it is suppressed."""
        if self._open is None:
            return False
        return bool(self._open.__exit__(type(error) if error else None, error, error.__traceback__ if error else None))

    def add_stage(self, stage: str, seconds: float) -> None:
        """Add to the duration of a stage."""
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, the same in every service that handles the event."""
        return self.traceparent.split("-")[1] if self.traceparent else None

    @property
    def span_id(self) -> str | None:
        """16 hexadecimal digits: our own span or, if nothing is recorded, that of the publisher."""
        return self.traceparent.split("-")[2] if self.traceparent else None


_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
_span: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


@contextmanager
def start_trace(tracer: Tracer = NO_TRACER) -> Iterator[Trace]:
    """Trace one event: the work of this task in the block, and of the tasks it creates, belongs to the trace."""
    trace = Trace(tracer)
    token = _trace.set(trace)
    try:
        yield trace
    except BaseException as error:
        if not trace.close(error):
            raise
    else:
        trace.close(None)
    finally:
        _trace.reset(token)


def current_trace() -> Trace | None:
    """The trace of the event that this task works on."""
    return _trace.get()


def current_span() -> Span:
    """The innermost open span of this task, for code that adds attributes to it later."""
    return _span.get()


def span(name: str, attributes: SpanAttributes | None = None) -> AbstractContextManager[Span]:
    """A span around the block, as a child of the current one."""
    trace = _trace.get()
    if trace is None or trace.tracer is NO_TRACER:
        return _NULL_CONTEXT
    return _open_span(trace.tracer, name, attributes or {})


@contextmanager
def _open_span(tracer: Tracer, name: str, attributes: SpanAttributes) -> Iterator[Span]:
    with tracer.span(name, attributes) as child, _set_current(child):
        yield child


@contextmanager
def _set_current(current: Span) -> Iterator[None]:
    token = _span.set(current)
    try:
        yield
    finally:
        _span.reset(token)
