"""The bearer token, asked for before anything but the health checks is shown.

Probes carry no token, as a rule, so health is answered without one too; its words are kept for those who have it.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_SCHEME = "bearer "


class BearerTokenMiddleware:
    """Middleware that answers 401 to a request without the token, unless its path is one of `open_paths`.

    Without a token everybody may pass. `admitted` tells a handler whether the one who asks was let in.
    """

    def __init__(self, app: ASGIApp, token: SecretStr | None, open_paths: Collection[str]) -> None:
        self._app = app
        self._token = token
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["admitted"] = admitted = self._carries_token(Headers(scope=scope))
            if not admitted and scope["path"] not in self._open_paths:
                refusal = PlainTextResponse(
                    "A bearer token is needed (`http.token`).\n", 401, {"WWW-Authenticate": 'Bearer realm="autotag"'}
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _carries_token(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        said = headers.get("authorization", "")
        if not said.lower().startswith(_SCHEME):
            return False
        # Bytes, because a header may hold what compare_digest refuses as text.
        return hmac.compare_digest(
            said[len(_SCHEME) :].strip().encode("latin-1"), self._token.get_secret_value().encode()
        )


def admitted(request: HTTPConnection) -> bool:
    """Whether the one who asks carries the token, or none is needed."""
    return bool(request.scope.get("state", {}).get("admitted", False))
