"""An image dropped on the status page: read within a cap, tried, and forgotten.

The body is the image itself. Its name comes in a header of our own, which another site's page could send only after
asking leave first, and leave is never given.
"""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from worker.engine import Engine
from worker.errors import AutotagError, CannotBeDone, TryLater, Unavailable
from worker.http.page import explanation as page_explanation
from worker.http.page import words
from worker.http.pages import door
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import service_of
from worker.http.sessions import Requester, is_from_elsewhere
from worker.images.content import Content, MemoryFile
from worker.messages import DEFAULT_INSTANCE, result_data
from worker.operations.history.thumbnails import THUMBNAIL
from worker.tagging.explain import Explanation, explain

NAME_HEADER = "x-autotag-file"

_READ_WITHIN_S = 60.0
_MOST_AT_ONCE = 2
_LONGEST_NAME = 200


class UploadLimiter:
    """Keeps a crowd from the decoders: one image of a requester at a time, and few of all together."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    def takes(self, key: str) -> bool:
        """Whether this requester's image can be taken now; if so, `done` must follow."""
        if key in self._busy or len(self._busy) >= _MOST_AT_ONCE:
            return False
        self._busy.add(key)
        return True

    def done(self, key: str) -> None:
        """Their image has been answered."""
        self._busy.discard(key)


async def drop(request: Request) -> Response:
    """What would become of an image, as HTML for the page or as JSON."""
    requester = door(request).requester(request)
    why_not = _why_not(request, requester)
    if why_not is not None:
        return _refusal(request, why_not, 403)
    upload_limiter: UploadLimiter = request.app.state.upload_limiter
    if not upload_limiter.takes(requester.key):
        return _refusal(request, "Another image is still being looked at; try again in a moment", 429)
    name = _name(request)
    service = service_of(request)
    try:
        with await _read(request) as content:
            active = service.active
            if active is None:
                raise Unavailable("the service is still starting; try again in a moment", reason="starting")
            explanation = await explain(
                active.engine.tagger,
                active.settings,
                content,
                asset_id=name,
                instance=request.query_params.get("instance", DEFAULT_INSTANCE),
                local_only=not requester.may_act,
            )
            thumbnail = None if _wants_json(request) else await _thumbnail(active.engine, content, name)
    except AutotagError as error:
        return _refusal(request, str(error), _status(error))
    except TimeoutError:
        return _refusal(request, f"It did not arrive within {_READ_WITHIN_S:g} s", 408)
    finally:
        upload_limiter.done(requester.key)
    if _wants_json(request):
        return JSONResponse(_as_json(explanation))
    return HTMLResponse(page_explanation.tried(explanation, thumbnail, name, active.settings))


def _why_not(request: Request, requester: Requester) -> str | None:
    if not requester.enters:
        return "Sign in first"
    if not requester.sees_assets:
        return "Images can be tried on the machine itself, or by those who have signed in"
    if not requester.bearer and (is_from_elsewhere(request) or NAME_HEADER not in request.headers):
        return "The request did not come from this page"
    return None


async def _read(request: Request) -> Content:
    """The body, in memory and sealed. Raises CannotBeDone when it is too large or empty, and TimeoutError."""
    most = service_of(request).settings.sources.inline_maximum_bytes
    too_large = CannotBeDone(
        f"It is larger than {words.size(most)} (`sources.inline_maximum_bytes`)", reason="content_too_large"
    )
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > most:
        raise too_large
    with MemoryFile() as memory:
        try:
            async with asyncio.timeout(_READ_WITHIN_S):
                async for chunk in request.stream():
                    if memory.size_bytes + len(chunk) > most:
                        raise too_large
                    memory.write(chunk)
        except ClientDisconnect as error:
            raise CannotBeDone("It did not arrive whole", reason="content_truncated") from error
        if not memory.size_bytes:
            raise CannotBeDone("It is empty", reason="content_empty")
        return memory.seal("status page")


def _name(request: Request) -> str:
    """The file's name, for people. Control characters would break the log's lines."""
    name = unquote(request.headers.get(NAME_HEADER, ""))[:_LONGEST_NAME]
    return "".join(letter if letter.isprintable() else " " for letter in name).strip() or "image"


def _status(error: AutotagError) -> int:
    if error.reason == "content_too_large":
        return 413
    return 503 if isinstance(error, Unavailable | TryLater) else 422


def _refusal(request: Request, message: str, status: int) -> Response:
    if _wants_json(request):
        return JSONResponse({"error": message}, status)
    return HTMLResponse(page_explanation.refused(f"{message}."), status)


def _wants_json(request: Request) -> bool:
    return "text/html" not in request.headers.get("accept", "")


def _as_json(explanation: Explanation) -> dict[str, object]:
    return {
        "result": result_data(explanation.result),
        "took_s": round(explanation.took_s, 4),
        "thresholds": explanation.thresholds,
        "not_asked": explanation.not_asked,
        "explained": explanation.choices_as_json(),
    }


async def _thumbnail(engine: Engine, content: Content, name: str) -> bytes | None:
    try:
        return await engine.decoders.shrink(content, THUMBNAIL, name)
    except AutotagError:
        return None


routes = [Route("/try", drop, methods=["POST"], middleware=[Middleware(SecurityHeadersMiddleware)])]
