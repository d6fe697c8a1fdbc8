"""What an operator can do from the status page: pause, resume, reset. Each needs the token."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

import structlog
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from worker.http.json_response import JsonResponse
from worker.http.pages import read_form, sessions_of
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import ServiceApi, service_of
from worker.http.sessions import CSRF_FIELD, CSRF_HEADER

_log = structlog.get_logger(__name__)

_LOG_INTERVAL_S = 10.0

_ACTIONS: dict[str, tuple[Callable[[ServiceApi], Awaitable[object]], str]] = {
    "pause": (lambda service: service.pause(), "Paused: no more events are taken"),
    "resume": (lambda service: service.resume(), "Resumed: events are taken again"),
    "reset": (lambda service: service.reset(), "Reset: the crashes are forgotten"),
}


class _Refusals:
    """Logs refused actions at most once in a while: anybody who can reach the port can have them refused."""

    def __init__(self) -> None:
        self._log_from_s = -math.inf
        self._unlogged = 0

    def log(self, now_s: float, **about: object) -> None:
        """Count one, and log it unless another was logged shortly before."""
        self._unlogged += 1
        if now_s >= self._log_from_s:
            _log.warning("an action was refused", **about, refused=self._unlogged)
            self._log_from_s, self._unlogged = now_s + _LOG_INTERVAL_S, 0


refusals = _Refusals()
"""Of all actions of the page together."""


def _endpoint(name: str) -> Callable[[Request], Awaitable[Response]]:
    perform, confirmation = _ACTIONS[name]

    async def act(request: Request) -> Response:
        form = await read_form(request)
        sessions = sessions_of(request)
        requester = sessions.identify(request)
        csrf_token = request.headers.get(CSRF_HEADER) or form.get(CSRF_FIELD, "")
        refusal_reason = sessions.refusal_reason(request, requester, csrf_token)
        if refusal_reason is not None:
            refusals.log(time.monotonic(), action=name, who=requester.who, why=refusal_reason)
            return PlainTextResponse(f"{refusal_reason}\n", 403)
        _log.info("an operator acts from the status page", action=name, who=requester.who)
        await perform(service_of(request))
        if "application/json" in request.headers.get("accept", ""):
            return JsonResponse({"said": confirmation})
        return RedirectResponse("./", 303)

    return act


routes = [
    Route(f"/{name}", _endpoint(name), methods=["POST"], middleware=[Middleware(SecurityHeadersMiddleware)])
    for name in _ACTIONS
]
