"""One trace from the publisher over decoder, model and cloud service to the result, with real children."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pika
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.cloud import MARKER_KEY, QUICK
from tests.support.fake_collector import FakeCollector
from tests.support.fake_google import FakeGoogle
from tests.support.models import built
from tests.support.polling import until
from tests.support.service import Dms, running_service
from worker.amqp.broker import Broker
from worker.amqp.delivery import Delivery, Ending
from worker.amqp.in_hand import InHand, lane_prefetch
from worker.amqp.topology import Lane
from worker.engine import Active, Engine, open_engine
from worker.errors import Misconfigured
from worker.messages import EVENT_TYPE, OutgoingMessage
from worker.operations.health.intake import Intake
from worker.operations.history import History
from worker.operations.history.thumbnails import Thumbnails
from worker.operations.metrics import Metrics
from worker.operations.tracing import NO_TRACER
from worker.operations.tracing.otel import OpenTelemetryTracer, tracer_from_environment
from worker.pipeline import Pipeline
from worker.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PUBLISHER = "b7ad6b7169203331"


@dataclass
class Outbox:
    """As much of the broker as an event needs that goes well, or is set aside."""

    published: list[OutgoingMessage] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    async def publish_result(self, result: OutgoingMessage) -> None:
        self.published.append(result)

    async def dead_letter(self, _delivery: Delivery, reason: str, _message: str, **_who: Any) -> None:
        self.set_aside.append(reason)


@dataclass
class Traced:
    """A pipeline whose spans are kept."""

    pipeline: Pipeline
    settings: Settings
    engine: Engine
    outbox: Outbox
    exporter: InMemorySpanExporter

    async def handle(self, file: Path, instance: str = "acme") -> Ending:
        event = {
            "specversion": "1.0",
            "id": f"event-{file.stem}",
            "source": "/dms",
            "type": EVENT_TYPE,
            "traceparent": f"00-{TRACE}-{PUBLISHER}-01",
            "tracestate": "dms=1",
            "data": {"asset_id": "an asset", "instance": instance, "content": {"path": str(file)}},
        }
        delivery = Delivery(
            json.dumps(event).encode(),
            pika.BasicProperties(content_type="application/cloudevents+json", headers={}),
            Lane.LIVE,
            tag=1,
            redelivered=False,
            received_at_s=time.monotonic(),
            _settler=SimpleNamespace(ack=lambda _tag: None, requeue=lambda _tag: None),
        )
        return await self.pipeline.handle(delivery, Active(self.settings, self.engine))

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@asynccontextmanager
async def traced(folder: Path, root: Path, google: FakeGoogle) -> AsyncIterator[Traced]:
    built("efficientnet-lite0")
    acme = {
        "tensorflow": {"enabled": True},
        "google_cloud_vision": {"enabled": True, "api_key": MARKER_KEY, "endpoint": google.url},
    }
    settings = Settings.model_validate(
        {
            "tensorflow": {"model": "efficientnet-lite0"},
            "sources": {"path_roots": [str(root), str(folder)]},
            "state_dir": folder / "state",
            "cloud": QUICK,
            "instances": {"acme": acme},
        }
        | ({"cache_dir": os.environ["AUTOTAG_CACHE_DIR"]} if "AUTOTAG_CACHE_DIR" in os.environ else {})
    )
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics, outbox, history = Metrics(), Outbox(), History(time.monotonic())
    engine = await open_engine(settings, metrics)
    try:
        pipeline = Pipeline(
            cast("Broker", outbox),
            metrics,
            history,
            Thumbnails(history, enabled=False),
            Intake(cast("Broker", outbox)),
            InHand(lane_prefetch(64)),
            OpenTelemetryTracer(provider),
        )
        yield Traced(pipeline, settings, engine, outbox, exporter)
    finally:
        await engine.close()
        provider.shutdown()


def hexadecimal(number: int | None, digits: int) -> str:
    assert number is not None
    return f"{number:0{digits}x}"


async def test_one_trace_goes_from_the_publisher_through_the_children_to_the_result(
    photographs: dict[str, Path], tmp_path: Path
) -> None:
    with FakeGoogle(MARKER_KEY) as google:
        async with traced(tmp_path, photographs["chelsea"].parent, google) as it:
            # When an event that belongs to a trace is carried to its end
            assert await it.handle(photographs["chelsea"]) is Ending.ANSWERED
            spans = it.spans()
            # Then our span of it is a child of the publisher's, and each part of the work a child of ours
            event = spans.pop("tag image")
            assert event.parent is not None
            assert hexadecimal(event.parent.span_id, 16) == PUBLISHER
            assert set(spans) == {
                "fetch",
                "decode",
                "provider tensorflow",
                "provider google_cloud_vision",
                "publish",
            }
            own = event.get_span_context()
            assert own is not None
            for part in spans.values():
                assert part.parent is not None
                assert part.parent.span_id == own.span_id
                assert hexadecimal(part.parent.trace_id, 32) == TRACE
            # And the parts that children did name the child
            pids = {child.name: child.pid for child in (*it.engine.decoders.states(), *model_states(it.engine))}
            for name, kind in (("decode", "decoder"), ("provider tensorflow", "model")):
                attributes = spans[name].attributes or {}
                assert str(attributes["child.name"]).startswith(f"{kind}-")
                assert attributes["child.pid"] == pids[str(attributes["child.name"])]
            # And the result goes on under our span
            (result,) = it.outbox.published
            ours = f"00-{TRACE}-{hexadecimal(own.span_id, 16)}-01"
            assert result.headers["traceparent"] == ours
            assert json.loads(result.body)["traceparent"] == ours
            assert result.headers["tracestate"] == "dms=1"
            # And no span holds a key or a file's name
            everything = " ".join(span.to_json() for span in it.exporter.get_finished_spans())
            assert MARKER_KEY not in everything
            assert str(photographs["chelsea"]) not in everything


def model_states(engine: Engine) -> list[Any]:
    assert engine.model is not None
    return engine.model.states()


async def test_a_part_that_fails_says_the_reason_in_its_span_and_not_the_message(
    photographs: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photographs["coffee"].read_bytes()[:2000])
    with FakeGoogle(MARKER_KEY) as google:
        async with traced(tmp_path, photographs["coffee"].parent, google) as it:
            assert await it.handle(broken) is Ending.DEAD_LETTERED
            decode = it.spans()["decode"]
            assert decode.status.description == it.outbox.set_aside[0]
            assert not decode.events
            assert (it.spans()["tag image"].attributes or {})["autotag.ending"] == "dead_lettered"


# ── turning it on ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_an_endpoint_nothing_is_traced_and_nothing_imported() -> None:
    assert tracer_from_environment({})[0] is NO_TRACER
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}
    assert tracer_from_environment(disabled)[0] is NO_TRACER


def test_an_endpoint_without_the_libraries_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(Misconfigured, match=r"pip install 'autotag-worker\[tracing\]'"):
        tracer_from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})


def test_a_service_sends_its_spans_to_the_collector_that_the_environment_names(
    broker: str, photographs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"test-spans-{os.getpid()}"
    with FakeCollector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        root = str(photographs["coffee"].parent)
        with running_service(broker, prefix, tmp_path, SOURCES__PATH_ROOTS=root) as service:
            service.ready()
            dms = Dms(broker, prefix)
            dms.results_of([dms.publish({"path": str(photographs["coffee"])})])
            dms.close()
            until(lambda: "event ended" in service.logged(), "the event ended")
            # When it ends, what has not been sent yet is sent
            assert service.stop() == 0
        assert {call.path for call in collector.calls} == {"/v1/traces"}
        sent = b"".join(call.body for call in collector.calls)
        assert b"tag image" in sent
        assert b"provider tensorflow" in sent
