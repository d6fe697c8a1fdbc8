"""What an operator can do from the status page: pause, resume, reset. The token is needed for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from worker.http.pages import door, read_form
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import ServiceApi, service_of
from worker.http.sessions import PROOF_HEADER

_log = structlog.get_logger(__name__)

_ACTIONS: dict[str, tuple[Callable[[ServiceApi], Awaitable[object]], str]] = {
    "pause": (lambda service: service.pause(), "Paused: no more events are taken"),
    "resume": (lambda service: service.resume(), "Resumed: events are taken again"),
    "reset": (lambda service: service.reset(), "Reset: the crashes are forgotten"),
}


def _action(name: str) -> Callable[[Request], Awaitable[Response]]:
    perform, said = _ACTIONS[name]

    async def act(request: Request) -> Response:
        form = await read_form(request)
        kept = door(request)
        requester = kept.requester(request)
        proof = request.headers.get(PROOF_HEADER) or form.get("proof", "")
        why_not = kept.why_not(request, requester, proof)
        if why_not is not None:
            _log.warning("an action was refused", action=name, address=requester.address, why=why_not)
            return PlainTextResponse(f"{why_not}\n", 403)
        _log.info("an operator acts from the status page", action=name, address=requester.address)
        await perform(service_of(request))
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"said": said})
        return RedirectResponse("/", 303)

    return act


routes = [
    Route(f"/{name}", _action(name), methods=["POST"], middleware=[Middleware(SecurityHeadersMiddleware)])
    for name in _ACTIONS
]
