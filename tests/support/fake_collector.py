"""A fake OpenTelemetry collector, which records the spans that it receives."""

from __future__ import annotations

from tests.support.fake_service import Call, FakeService, Response


class FakeCollector(FakeService):
    """Accepts everything. The spans are in the bodies of its calls, as protobuf."""

    def answer(self, call: Call) -> Response:
        return Response(200, b"", {"Content-Type": "application/x-protobuf"})

    def key_of(self, call: Call) -> str | None:
        return None
