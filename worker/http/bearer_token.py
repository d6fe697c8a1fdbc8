"""The bearer token: required on every path but the open ones, and noted on the request for the handlers.

Probes usually carry no token, so the health checks answer without one; only requests with the token get the message.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.http.root_path import hint

_SCHEME = "bearer "


class BearerTokenMiddleware:
    """Middleware that answers 401 to a request without the token, unless its path is one of `open_paths`.

    Without a configured token every request is authorized. Handlers ask `is_authorized` for the outcome.
    """

    def __init__(self, app: ASGIApp, token: SecretStr | None, open_paths: Collection[str]) -> None:
        self._app = app
        self._token = token
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            authorized = self._carries_token(Headers(scope=scope))
            scope.setdefault("state", {})["authorized"] = authorized
            if not authorized and scope["path"] not in self._open_paths:
                await token_needed(hint(scope["path"], self._open_paths))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _carries_token(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        authorization = headers.get("authorization", "")
        if not authorization.lower().startswith(_SCHEME):
            return False
        # Bytes, because a header may hold characters that compare_digest refuses in a string.
        return hmac.compare_digest(
            authorization[len(_SCHEME) :].strip().encode("latin-1"), self._token.get_secret_value().encode()
        )


def token_needed(advice: str = "") -> PlainTextResponse:
    """The answer to a request without the token; `advice` is a line of its own."""
    text = f"A bearer token is needed (`http.token`).\n{advice}"
    return PlainTextResponse(text, 401, {"WWW-Authenticate": 'Bearer realm="autotag"'})


def is_authorized(request: HTTPConnection) -> bool:
    """Whether the request carries the token, or none is configured."""
    return bool(request.scope.get("state", {}).get("authorized", False))
