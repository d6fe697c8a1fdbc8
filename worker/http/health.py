"""Health checks: is it alive, has it started, does it take events.

`/livez`    the event loop turns. An orchestrator restarts what does not answer here.
`/startupz` what a start does has been done. A broker that is down holds up no start: a restart would not mend it.
`/readyz`   events are taken, and somebody could answer them. Otherwise 503, and why.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from worker.http.bearer_token import admitted
from worker.http.service_api import service_of


async def live(request: Request) -> JSONResponse:
    """200 while the loop's own heartbeat is in time. A loop that stands still does not answer at all."""
    health = service_of(request).health()
    return _answer(health.alive, {"alive": health.alive, "loop_lag_s": round(health.loop_lag_s, 3)})


async def started(request: Request) -> JSONResponse:
    """200 once the start is over."""
    health = service_of(request).health()
    return _answer(health.started, {"started": health.started})


async def ready(request: Request) -> JSONResponse:
    """200 while events are taken."""
    health = service_of(request).health()
    said: dict[str, object] = {"ready": health.ready, "reason": health.reason}
    if admitted(request):
        said["why_not"] = health.why_not
    return _answer(health.ready, said)


def _answer(good: bool, said: dict[str, object]) -> JSONResponse:
    return JSONResponse(said, 200 if good else 503, {"Cache-Control": "no-store"})


routes = [Route("/livez", live), Route("/startupz", started), Route("/readyz", ready)]
