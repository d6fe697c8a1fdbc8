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

from worker.images.content import Content, MemoryFile
from worker.errors import AutotagError, CannotBeDone, TryLater, Unavailable
from worker.http.sessions import Visitor, is_from_elsewhere
from worker.http.security_headers import Guard
from worker.http.page import explanation, words
from worker.http.pages import door
from worker.http.service_api import served
from worker.messages import result_data
from worker.tagging.explain import Trial, try_image

NAME_HEADER = "x-autotag-file"

_READ_WITHIN_S = 60.0
_MOST_AT_ONCE = 2
_LONGEST_NAME = 200


class Desk:
    """Keeps a crowd from the decoders: one image of a visitor at a time, and few of all together."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    def takes(self, key: str) -> bool:
        """Whether this visitor's image can be taken now; if so, `done` must follow."""
        if key in self._busy or len(self._busy) >= _MOST_AT_ONCE:
            return False
        self._busy.add(key)
        return True

    def done(self, key: str) -> None:
        """Their image has been answered."""
        self._busy.discard(key)


async def drop(request: Request) -> Response:
    """What would become of an image, as HTML for the page or as JSON."""
    visitor = door(request).visitor(request)
    why_not = _why_not(request, visitor)
    if why_not is not None:
        return _refusal(request, why_not, 403)
    desk: Desk = request.app.state.desk
    if not desk.takes(visitor.key):
        return _refusal(request, "Another image is still being looked at; try again in a moment", 429)
    name = _name(request)
    try:
        with await _read(request) as content:
            trial = await try_image(
                served(request).workshop,
                served(request).settings,
                content,
                name=name,
                instance_name=request.query_params.get("instance", "default"),
                local_only=not visitor.may_act,
            )
    except AutotagError as error:
        return _refusal(request, str(error), _status(error))
    except TimeoutError:
        return _refusal(request, f"It did not arrive within {_READ_WITHIN_S:g} s", 408)
    finally:
        desk.done(visitor.key)
    if _wants_json(request):
        return JSONResponse(_as_json(trial))
    return HTMLResponse(explanation.tried(trial, name, served(request).settings))


def _why_not(request: Request, visitor: Visitor) -> str | None:
    if not visitor.enters:
        return "Sign in first"
    if not visitor.sees_assets:
        return "Images can be tried on the machine itself, or by those who have signed in"
    if not visitor.bearer and (is_from_elsewhere(request) or NAME_HEADER not in request.headers):
        return "The request did not come from this page"
    return None


async def _read(request: Request) -> Content:
    """The body, in memory and sealed. Raises CannotBeDone when it is too large or empty, and TimeoutError."""
    most = served(request).settings.sources.inline_maximum_bytes
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
    return HTMLResponse(explanation.refused(f"{message}."), status)


def _wants_json(request: Request) -> bool:
    return "text/html" not in request.headers.get("accept", "")


def _as_json(trial: Trial) -> dict[str, object]:
    return {
        "result": result_data(trial.result),
        "took_s": round(trial.took_s, 4),
        "thresholds": trial.thresholds,
        "not_asked": trial.left_out,
        "explained": [
            {
                "label": each.label,
                "tag": each.name,
                "confidence": each.confidence,
                "provider": each.provider,
                "verdict": each.verdict,
            }
            for each in trial.choices
        ],
    }


routes = [Route("/try", drop, methods=["POST"], middleware=[Middleware(Guard)])]
