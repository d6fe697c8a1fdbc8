"""A limit on the requests that are answered at a time, which the health checks are not subject to."""

from __future__ import annotations

from collections.abc import Collection

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_RETRY_AFTER_S = 1


class ConcurrencyLimitMiddleware:
    """Answers 503 with `Retry-After` while `maximum` requests are being answered, except on `exempt_paths`.

    A request whose body is still to come needs no processor time and is not counted: else a few clients that send none
    could use the limit up. How many of these there may be is the limit of connections.
    """

    def __init__(self, app: ASGIApp, maximum: int, exempt_paths: Collection[str]) -> None:
        self._app = app
        self._maximum = maximum
        self._exempt_paths = frozenset(exempt_paths)
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in self._exempt_paths:
            await self._app(scope, receive, send)
            return
        if self._answering >= self._maximum:
            headers = {"Retry-After": str(_RETRY_AFTER_S), "Cache-Control": "no-store"}
            await PlainTextResponse("Too many requests at a time; try again.\n", 503, headers)(scope, receive, send)
            return
        complete = False

        async def receive_uncounted() -> Message:
            nonlocal complete
            if complete:  # what is waited for now is the end of the connection
                return await receive()
            self._answering -= 1
            try:
                message = await receive()
            finally:
                self._answering += 1
            complete = not message.get("more_body", False)
            return message

        self._answering += 1
        try:
            await self._app(scope, receive_uncounted, send)
        finally:
            self._answering -= 1
