"""The trace of the event that the running task is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """A part of the work that shows in the trace."""

    @property
    def traceparent(self) -> str | None:
        """The W3C header that makes what follows a child of it; None where nothing is recorded."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Say more about it."""
        ...


class Tracer(Protocol):
    """Where spans go."""

    def event(
        self, traceparent: str | None, tracestate: str | None, began_s: float, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """A span for a whole event, a child of the publisher's; `began_s` is monotonic."""
        ...

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        """A span within the one that is open in this task."""
        ...


class NoSpan:
    """Stands where nothing is recorded."""

    traceparent: str | None = None

    def set(self, attributes: Attributes) -> None:
        """Forget it."""


class NoTracer:
    """Records nothing."""

    def event(
        self, traceparent: str | None, tracestate: str | None, began_s: float, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """Nothing."""
        return nullcontext(NO_SPAN)

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        """Nothing."""
        return nullcontext(NO_SPAN)


NO_SPAN = NoSpan()
NO_TRACER = NoTracer()
_NOTHING = nullcontext(NO_SPAN)


@dataclass(slots=True)
class Trace:
    """What has been measured of one event so far. `stages_s`: seconds by stage; a stage that came twice is summed."""

    tracer: Tracer
    stages_s: dict[str, float] = field(default_factory=dict)
    traceparent: str | None = None
    """What a message that follows from this event carries on: our own span, or what came with the event."""
    _open: ExitStack | None = None
    """What `join` has opened."""

    def join(self, traceparent: str | None, tracestate: str | None, began_s: float, attributes: Attributes) -> None:
        """The event has been read: from here on its trace is known."""
        if self.tracer is NO_TRACER:
            self.traceparent = traceparent
            return
        self._open = ExitStack()
        opened = self._open.enter_context(self.tracer.event(traceparent, tracestate, began_s, attributes))
        self._open.enter_context(_as_current(opened))
        self.traceparent = opened.traceparent or traceparent

    def close(self, error: BaseException | None) -> bool:
        """Close what `join` opened, and show it the exception that ends the event; whether that was all of it."""
        if self._open is None:
            return False
        return bool(self._open.__exit__(type(error) if error else None, error, error.__traceback__ if error else None))

    def note(self, stage: str, seconds: float) -> None:
        """A stage took so long."""
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, the same in every service that handles the event."""
        return self.traceparent.split("-")[1] if self.traceparent else None

    @property
    def span_id(self) -> str | None:
        """16 hexadecimal digits: our own span or, when nothing is recorded, that of the publisher."""
        return self.traceparent.split("-")[2] if self.traceparent else None


_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
_span: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


@contextmanager
def follow(tracer: Tracer = NO_TRACER) -> Iterator[Trace]:
    """Follow one event: what this task does, and the tasks that it begins, belongs to the trace."""
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
    """The trace of the event that this task is about."""
    return _trace.get()


def current_span() -> Span:
    """The innermost span that is open in this task: for those who learn more about it elsewhere."""
    return _span.get()


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
    """Show what is done inside as a span of its own."""
    trace = _trace.get()
    if trace is None or trace.tracer is NO_TRACER:
        return _NOTHING
    return _opened(trace.tracer, name, attributes or {})


@contextmanager
def _opened(tracer: Tracer, name: str, attributes: Attributes) -> Iterator[Span]:
    with tracer.span(name, attributes) as opened, _as_current(opened):
        yield opened


@contextmanager
def _as_current(opened: Span) -> Iterator[None]:
    token = _span.set(opened)
    try:
        yield
    finally:
        _span.reset(token)
