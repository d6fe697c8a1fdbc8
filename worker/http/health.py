"""Health checks: is the service alive, has it started, is it ready.

`/livez`    the event loop turns. An orchestrator restarts a service that does not answer here.
`/startupz` the start is complete. A broker that is down does not hold it up: a restart would not help.
`/readyz`   events are taken, and a provider could answer them. Otherwise 503 with the reason.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from worker.http.bearer_token import is_authorized
from worker.http.json_response import JsonResponse
from worker.http.service_api import service_of


async def live(request: Request) -> JsonResponse:
    """200 while the event loop's heartbeat is on time. A blocked loop does not answer at all."""
    health = service_of(request).health()
    return _response(health.alive, {"alive": health.alive, "loop_lag_s": round(health.loop_lag_s, 3)})


async def started(request: Request) -> JsonResponse:
    """200 once the start is complete."""
    health = service_of(request).health()
    return _response(health.started, {"started": health.started})


async def ready(request: Request) -> JsonResponse:
    """200 while events are taken."""
    health = service_of(request).health()
    content: dict[str, object] = {"ready": health.ready, "reason": health.reason}
    if is_authorized(request):
        content["why_not"] = health.why_not
    return _response(health.ready, content)


def _response(healthy: bool, content: dict[str, object]) -> JsonResponse:
    return JsonResponse(content, 200 if healthy else 503, {"Cache-Control": "no-store"})


routes = [Route("/livez", live), Route("/startupz", started), Route("/readyz", ready)]
