"""The HTTP application: a table of routes behind the token's gate."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from worker.http import exposition, health
from worker.http.gate import Gate
from worker.http.served import Served

ROUTES: Sequence[BaseRoute] = (*health.routes, *exposition.routes)
"""Everything that is answered."""

OPEN_PATHS = frozenset(route.path for route in health.routes if isinstance(route, Route))
"""What is answered to those without the token too."""


def build_app(service: Served, token: SecretStr | None = None) -> Starlette:
    """The application that speaks for `service`; with `token`, to those who carry it."""
    app = Starlette(routes=ROUTES, middleware=[Middleware(Gate, token=token, open_paths=OPEN_PATHS)])
    app.state.service = service
    return app
