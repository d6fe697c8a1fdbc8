"""`/metrics`: the registry in Prometheus text format, or as OpenMetrics with exemplars if the client accepts that."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from worker.http.bearer_token import token_needed
from worker.http.service_api import service_of
from worker.http.sessions import Sessions


async def metrics(request: Request) -> Response:
    """All metrics at this moment, for programs and for who is signed in on the page.

    They name instances: not for a page of another site that poses as this one.
    """
    sessions: Sessions = request.app.state.sessions
    if not sessions.identify(request).may_see_page:
        return token_needed()
    if sessions.is_public_name(request):
        return PlainTextResponse(
            "Without http.token metrics are shown under an address, localhost or a name inside a network only: any "
            "other could have been pointed here by another site. Add it to http.allowed_hosts, or set http.token.\n",
            421,
        )
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(service_of(request).metrics.registry), headers={"Content-Type": content_type})


routes = [Route("/metrics", metrics)]
