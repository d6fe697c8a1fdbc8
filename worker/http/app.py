"""The HTTP application: the table of routes, behind what notes proxies and the bearer token."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from worker.http import actions, dead_letters, exposition, health, pages, results, settings_api, tenants, try_image
from worker.http.bearer_token import BearerTokenMiddleware
from worker.http.concurrency import ConcurrencyLimitMiddleware
from worker.http.forwarding import ForwardingMiddleware
from worker.http.protocol import MAXIMUM_CONNECTIONS, Deadlines
from worker.http.root_path import hint
from worker.http.service_api import ServiceApi
from worker.http.sessions import Sessions
from worker.http.settings_edits import Outcomes
from worker.http.try_image import UploadLimiter
from worker.operations.connections import affordable
from worker.settings import HttpSettings

DEADLINES = Deadlines(body_by_path_s={route.path: try_image.READ_WITHIN_S + 5.0 for route in try_image.routes})
"""An uploaded image has more time than a form, and its handler ends the reading itself, with an answer."""

_HEALTH_PATHS = frozenset(route.path for route in health.routes)

_PAGE = (
    *pages.routes,
    *results.routes,
    *dead_letters.routes,
    *tenants.routes,
    *settings_api.routes,
    *actions.routes,
    *try_image.routes,
)

ROUTES: Sequence[BaseRoute] = (*health.routes, *exposition.routes, *_PAGE)

OPEN_PATHS = frozenset(route.path for route in ROUTES if isinstance(route, Route))
"""Paths that the middleware passes on without the token: health checks, and what has handlers that ask `Sessions`."""


async def _not_found(request: Request, _error: Exception) -> Response:
    return PlainTextResponse(hint(request.url.path, OPEN_PATHS) or "Not Found\n", 404)


def build_app(service: ServiceApi, http: HttpSettings) -> Starlette:
    """The application over `service`. With `http.token`, everything but the health checks needs it."""
    # Half of the connections, so that a health check always finds one that can be closed to make room for it.
    maximum = max(1, affordable(MAXIMUM_CONNECTIONS) // 2)
    app = Starlette(
        routes=ROUTES,
        exception_handlers={404: _not_found},
        middleware=[
            Middleware(ConcurrencyLimitMiddleware, maximum=maximum, exempt_paths=_HEALTH_PATHS),
            Middleware(ForwardingMiddleware, http=http),
            Middleware(BearerTokenMiddleware, token=http.token, open_paths=OPEN_PATHS),
        ],
    )
    app.state.service = service
    app.state.sessions = Sessions(http)
    app.state.upload_limiter = UploadLimiter()
    app.state.settings_outcomes = Outcomes()
    return app
