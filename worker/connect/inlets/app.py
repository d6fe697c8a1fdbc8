"""The HTTP application of the connector: inlets have tokens of their own; health, metrics, status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from worker.connect.inlets import http
from worker.http import exposition, health
from worker.http.bearer_token import BearerTokenMiddleware
from worker.http.concurrency import ConcurrencyLimitMiddleware
from worker.http.forwarding import ForwardingMiddleware
from worker.http.json_response import JsonResponse
from worker.http.protocol import MAXIMUM_CONNECTIONS, Deadlines
from worker.http.sessions import Sessions
from worker.operations.connections import affordable
from worker.settings import HttpSettings

if TYPE_CHECKING:
    from worker.operations.health.status import Health

DEADLINES = Deadlines()
_HEALTH_PATHS = frozenset(route.path for route in health.routes)


class ConnectorApi(Protocol):
    """The running connector."""

    metrics: Any

    @property
    def inlets(self) -> Mapping[str, http.HttpInlet]:
        """The inlets, by name."""
        ...

    @property
    def inlet_refusals(self) -> Any:
        """Counts refused requests."""
        ...

    def health(self) -> Health:
        """Whether it is alive, started and ready now."""
        ...

    def status(self) -> dict[str, Any]:
        """The full status."""
        ...


async def status(request: Request) -> Response:
    """`GET /status`."""
    connector: ConnectorApi = request.app.state.service
    sessions: Sessions = request.app.state.sessions
    refused = sessions.why_refused(request)
    if refused is not None:
        return refused.answer()
    return JsonResponse(connector.status(), headers={"Cache-Control": "no-store"})


def build_app(connector: ConnectorApi, settings: HttpSettings) -> Starlette:
    """The application. `settings` are `connector.http`; inlets have tokens of their own."""
    maximum = max(1, affordable(MAXIMUM_CONNECTIONS) // 2)
    own = Starlette(
        routes=[*health.routes, *exposition.routes, Route("/status", status)],
        middleware=[
            Middleware(ForwardingMiddleware, http=settings),
            Middleware(BearerTokenMiddleware, token=settings.token, open_paths=_HEALTH_PATHS),
        ],
    )
    own.state.service = connector
    own.state.sessions = Sessions(settings)
    app = Starlette(
        routes=[*http.routes, Mount("/", app=own)],
        middleware=[Middleware(ConcurrencyLimitMiddleware, maximum=maximum, exempt_paths=_HEALTH_PATHS)],
    )
    app.state.connector = connector
    return app
