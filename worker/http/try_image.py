"""`/try`: an image uploaded on the status page is read within a size limit, tagged with an explanation, and discarded.

The body is the image itself. Its name comes in a custom header: a page of another site could send that only after a
CORS preflight request, which is never granted.
"""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from worker.engine import Engine
from worker.errors import AutotagError, CannotBeDone, ResourceExhausted, TryLater, Unavailable, exhausted
from worker.http.json_response import JsonResponse
from worker.http.page import explanation as page_explanation
from worker.http.page import formatting
from worker.http.pages import sessions_of
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import service_of
from worker.http.sessions import Requester, is_cross_site
from worker.images.content import Content, MemoryFile
from worker.messages import DEFAULT_INSTANCE, result_data
from worker.operations.history.thumbnails import THUMBNAIL
from worker.operations.printable import printable
from worker.tagging.explain import Explanation, explain, raise_if_no_provider

NAME_HEADER = "x-autotag-file"

READ_WITHIN_S = 60.0
"""Longer than for other bodies: only those who may try an image get so far, and few at a time."""

_MAXIMUM_CONCURRENT_UPLOADS = 2
_MAXIMUM_NAME_LENGTH = 200


class UploadLimiter:
    """Protects the decoders from too many uploads: one image per requester at a time, and few in total."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    def acquire(self, key: str) -> bool:
        """Whether this requester's upload may begin now; if so, the caller must call `release` afterwards."""
        if key in self._busy or len(self._busy) >= _MAXIMUM_CONCURRENT_UPLOADS:
            return False
        self._busy.add(key)
        return True

    def release(self, key: str) -> None:
        """The requester's upload has been answered."""
        self._busy.discard(key)


async def try_image(request: Request) -> Response:
    """Tag the image in the body and explain each tag, as HTML for the page or as JSON."""
    requester = sessions_of(request).identify(request)
    refusal_reason = _refusal_reason(request, requester)
    if refusal_reason is not None:
        return _refuse(request, refusal_reason, 403)
    upload_limiter: UploadLimiter = request.app.state.upload_limiter
    if not upload_limiter.acquire(requester.key):
        return _refuse(request, "Another image is still being looked at; try again in a moment", 429)
    name = _file_name(request)
    service = service_of(request)
    try:
        with await _read_content(request) as content:
            active = service.active
            if active is None:
                raise Unavailable("the service is still starting; try again in a moment", reason="starting")
            tagger, instance = active.engine.tagger, request.query_params.get("instance", DEFAULT_INSTANCE)
            local_only = not requester.may_act
            raise_if_no_provider(tagger, active.settings, instance, local_only=local_only)
            explanation = await explain(
                tagger, active.settings, content, asset_id=name, instance=instance, local_only=local_only
            )
            thumbnail = None if _wants_json(request) else await _thumbnail(active.engine, content, name)
    except AutotagError as error:
        return _refuse(request, str(error), _status_code(error))
    except TimeoutError:
        return _refuse(request, f"It did not arrive within {READ_WITHIN_S:g} s", 408)
    except OSError as error:
        if (shortage := exhausted(error)) is None:
            raise
        return _refuse(request, str(shortage), _status_code(shortage))
    finally:
        upload_limiter.release(requester.key)
    if _wants_json(request):
        return JsonResponse(_to_json(explanation))
    return HTMLResponse(page_explanation.article(explanation, thumbnail, name))


def _refusal_reason(request: Request, requester: Requester) -> str | None:
    if not requester.may_see_page:
        return "Sign in first"
    if not requester.may_see_assets:
        return "Images can be tried on the machine itself, or by those who have signed in"
    if not requester.bearer and (is_cross_site(request) or NAME_HEADER not in request.headers):
        return "The request did not come from this page"
    return None


async def _read_content(request: Request) -> Content:
    """The body, in sealed memory. Raises CannotBeDone if it is too large, empty or cut short, and TimeoutError."""
    maximum_bytes = service_of(request).settings.sources.inline_maximum_bytes
    too_large = CannotBeDone(
        f"It is larger than {formatting.size(maximum_bytes)} (`sources.inline_maximum_bytes`)",
        reason="content_too_large",
    )
    content_length = request.headers.get("content-length", "")
    if content_length.isdigit() and int(content_length) > maximum_bytes:
        raise too_large
    with MemoryFile() as memory:
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                async for chunk in request.stream():
                    if memory.size_bytes + len(chunk) > maximum_bytes:
                        raise too_large
                    memory.write(chunk)
        except ClientDisconnect as error:
            raise CannotBeDone("It did not arrive whole", reason="content_truncated") from error
        if not memory.size_bytes:
            raise CannotBeDone("It is empty", reason="content_empty")
        return memory.seal("status page")


def _file_name(request: Request) -> str:
    """The file's name, for people."""
    return printable(unquote(request.headers.get(NAME_HEADER, "")).strip(), maximum=_MAXIMUM_NAME_LENGTH) or "image"


def _status_code(error: AutotagError) -> int:
    if error.reason == "content_too_large":
        return 413
    return 503 if isinstance(error, Unavailable | TryLater | ResourceExhausted) else 422


def _refuse(request: Request, message: str, status: int) -> Response:
    if _wants_json(request):
        return JsonResponse({"error": message}, status)
    return HTMLResponse(page_explanation.refusal(f"{message}."), status)


def _wants_json(request: Request) -> bool:
    return "text/html" not in request.headers.get("accept", "")


def _to_json(explanation: Explanation) -> dict[str, object]:
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


routes = [Route("/try", try_image, methods=["POST"], middleware=[Middleware(SecurityHeadersMiddleware)])]
