"""The HTTP application: the table of routes, behind the bearer token."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from worker.http import actions, exposition, health, pages, try_image
from worker.http.bearer_token import BearerTokenMiddleware
from worker.http.service_api import ServiceApi
from worker.http.sessions import Sessions
from worker.http.try_image import UploadLimiter

_PAGE = (*pages.routes, *actions.routes, *try_image.routes)

ROUTES: Sequence[BaseRoute] = (*health.routes, *exposition.routes, *_PAGE)

OPEN_PATHS = frozenset(route.path for route in (*health.routes, *_PAGE) if isinstance(route, Route))
"""Paths that the middleware passes on without the token: health checks, and the page, whose handlers ask `Sessions`."""


def build_app(service: ServiceApi, token: SecretStr | None = None) -> Starlette:
    """The application over `service`. With `token`, everything but the health checks needs it."""
    app = Starlette(routes=ROUTES, middleware=[Middleware(BearerTokenMiddleware, token=token, open_paths=OPEN_PATHS)])
    app.state.service = service
    app.state.sessions = Sessions(token)
    app.state.upload_limiter = UploadLimiter()
    return app
