"""`/metrics`: the registry in Prometheus text format, or as OpenMetrics with exemplars if the client accepts that."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.http.service_api import service_of


async def metrics(request: Request) -> Response:
    """All metrics at this moment."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(service_of(request).metrics.registry), headers={"Content-Type": content_type})


routes = [Route("/metrics", metrics)]
