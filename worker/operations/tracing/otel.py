"""Spans through OpenTelemetry, if `autotag-worker[tracing]` is installed and OpenTelemetry's own variables are set.

OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) enables the export; OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and the
other variables work as usual. The libraries are imported here only, and only if they are needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from worker import __version__
from worker.errors import AutotagError, Misconfigured
from worker.operations.tracing.trace import NO_TRACER, Span, SpanAttributes, Tracer

if TYPE_CHECKING:
    from opentelemetry import trace as api
    from opentelemetry.sdk.trace import TracerProvider

_log = structlog.get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def tracer_from_environment(environ: Mapping[str, str] = os.environ) -> tuple[Tracer, Callable[[], None]]:
    """The tracer configured by the environment, and a function that flushes its spans, to be called at the end.

    Raises Misconfigured if an endpoint is set and the libraries are not installed.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(environ.get(name) for name in _ENDPOINTS):
        return NO_TRACER, lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Misconfigured(
            f"{' or '.join(_ENDPOINTS)} is set, and there is no {error.name}: "
            "`pip install 'autotag-worker[tracing]'`, or unset it",
            reason="tracing_not_installed",
        ) from error
    name = environ.get("OTEL_SERVICE_NAME", "autotag")
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _log.info("spans are sent to an OpenTelemetry collector")
    return OpenTelemetryTracer(provider), provider.shutdown


class OpenTelemetryTracer:
    """A `Tracer` that records spans with an OpenTelemetry SDK provider."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace as api
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = api
        self._tracer = provider.get_tracer("autotag", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def event(
        self, traceparent: str | None, tracestate: str | None, began_s: float, attributes: SpanAttributes
    ) -> Iterator[Span]:
        """A consumer span that began when the delivery arrived."""
        carrier = {name: value for name, value in _headers(traceparent, tracestate) if value is not None}
        began_ns = time.time_ns() - round((time.monotonic() - began_s) * 1e9)
        with self._tracer.start_as_current_span(
            "tag image",
            context=self._propagator.extract(carrier),
            kind=self._api.SpanKind.CONSUMER,
            start_time=began_ns,
            attributes=dict(attributes),
        ) as span:
            yield _RecordedSpan(span)

    @contextmanager
    def span(self, name: str, attributes: SpanAttributes) -> Iterator[Span]:
        """A child of the current span. An error is recorded by its reason code, never by its message."""
        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _RecordedSpan(span)
            except AutotagError as error:
                span.set_status(self._api.StatusCode.ERROR, error.reason)
                raise


class _RecordedSpan:
    def __init__(self, span: api.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def set(self, attributes: SpanAttributes) -> None:
        if self._span.is_recording():  # the span may have ended: a child can answer after its caller was cancelled
            self._span.set_attributes(dict(attributes))


def _headers(traceparent: str | None, tracestate: str | None) -> tuple[tuple[str, str | None], ...]:
    return ("traceparent", traceparent), ("tracestate", tracestate)
