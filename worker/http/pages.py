"""The status page: the page, its moving part, the same as JSON, its thumbnails and files, signing in and out."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from urllib.parse import parse_qs

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from worker.http.page import document
from worker.http.page.report import report
from worker.http.page.view import View, view_of
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import service_of
from worker.http.sessions import Requester, Sessions, is_from_elsewhere

_LONGEST_FORM_BYTES = 4096
_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC = ("autotag.css", "autotag.js", "mark.svg")

_NOT_ON_THIS_MACHINE = (
    "Names, tags and pictures of assets are shown on the machine itself only, or to those who have signed in: "
    "set http.token."
)
_NO_ACTIONS = "Pause, resume and reset need http.token to be set; on the machine the command line does them too."


def door(request: Request) -> Sessions:
    """Who keeps the page's door."""
    kept: Sessions = request.app.state.door
    return kept


async def page(request: Request) -> Response:
    """The page, or the form that asks for the token."""
    requester = door(request).requester(request)
    if not requester.enters:
        return HTMLResponse(document.sign_in())
    return HTMLResponse(document.page(await _view(request, requester)))


async def live(request: Request) -> Response:
    """The sections that change, drawn anew."""
    requester = door(request).requester(request)
    if not requester.enters:
        return PlainTextResponse("Sign in first\n", 401)
    return HTMLResponse(document.live(await _view(request, requester)))


async def as_json(request: Request) -> Response:
    """All of it for programs."""
    requester = door(request).requester(request)
    if not requester.enters:
        return JSONResponse({"error": "Sign in first, or send the token as a bearer token"}, 401)
    status = await service_of(request).status()
    return JSONResponse({"status": status.to_json()} | report(await _view(request, requester)))


async def thumbnail(request: Request) -> Response:
    """The picture of one of the last results. Its number is never used again, so that a browser may keep it."""
    requester = door(request).requester(request)
    number = request.query_params.get("n", "")
    jpeg = None
    if requester.sees_assets and number.isascii() and number.isdigit() and len(number) < 16:
        jpeg = service_of(request).history.results.thumbnail(int(number))
    if jpeg is None:
        return PlainTextResponse("No such thumbnail\n", 404)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


async def sign_in(request: Request) -> Response:
    """Take the token, give a cookie."""
    if is_from_elsewhere(request):
        return PlainTextResponse("The request did not come from this page\n", 403)
    form = await read_form(request)
    response = RedirectResponse("/", 303)
    if await door(request).sign_in(form.get("token", ""), request, response):
        return response
    return HTMLResponse(document.sign_in("That is not the token."), 403)


async def sign_out(request: Request) -> Response:
    """Take the cookie back."""
    form = await read_form(request)
    kept = door(request)
    why_not = kept.why_not(request, kept.requester(request), form.get("proof", ""))
    if why_not is not None:
        return PlainTextResponse(f"{why_not}\n", 403)
    response = RedirectResponse("/", 303)
    kept.sign_out(request, response)
    return response


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a small form; one that is too large counts as empty."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM_BYTES:
            return {}
    try:
        return {name: values[0] for name, values in parse_qs(body.decode(), max_num_fields=10).items()}
    except ValueError:
        return {}


async def _view(request: Request, requester: Requester) -> View:
    kept = door(request)
    return await view_of(
        service_of(request),
        sees_assets=requester.sees_assets,
        why_no_assets=_NOT_ON_THIS_MACHINE,
        proof=kept.proof(requester),
        why_no_actions=_NO_ACTIONS,
        signed_in=requester.session is not None,
    )


def _static(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A file of the page. Small, and read for each request: browsers ask again only when it has changed."""

    async def serve(request: Request) -> Response:
        body = files("worker.http.page").joinpath("static", name).read_bytes()
        tag = f'"{zlib.crc32(body):08x}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=_MEDIA_TYPES[name.rpartition(".")[2]], headers=headers)

    return serve


_GUARDED = [Middleware(SecurityHeadersMiddleware)]

routes = [
    Route("/", page, middleware=_GUARDED),
    Route("/live", live, middleware=_GUARDED),
    Route("/status.json", as_json, middleware=_GUARDED),
    Route("/thumbnail", thumbnail, middleware=_GUARDED),
    Route("/sign-in", sign_in, methods=["POST"], middleware=_GUARDED),
    Route("/sign-out", sign_out, methods=["POST"], middleware=_GUARDED),
    *(Route(f"/page/{name}", _static(name), middleware=_GUARDED) for name in _STATIC),
]
