"""The HTTP application: a table of routes behind the token's gate."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from worker.http import actions, try_image, exposition, health, pages
from worker.http.sessions import Door
from worker.http.try_image import Desk
from worker.http.bearer_token import Gate
from worker.http.service_api import Served

_PAGE = (*pages.routes, *actions.routes, *try_image.routes)

ROUTES: Sequence[BaseRoute] = (*health.routes, *exposition.routes, *_PAGE)
"""Everything that is answered."""

OPEN_PATHS = frozenset(route.path for route in (*health.routes, *_PAGE) if isinstance(route, Route))
"""What the gate lets pass without the token: health, and the page, which has a door of its own (`door.py`)."""


def build_app(service: Served, token: SecretStr | None = None) -> Starlette:
    """The application that speaks for `service`; with `token`, to those who carry it."""
    app = Starlette(routes=ROUTES, middleware=[Middleware(Gate, token=token, open_paths=OPEN_PATHS)])
    app.state.service = service
    app.state.door = Door(token)
    app.state.desk = Desk()
    return app
