"""The status page's endpoints: the page, its live sections, JSON, thumbnails, static files, signing in and out."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from urllib.parse import parse_qs

from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from worker import __version__
from worker.http.json_response import JsonResponse
from worker.http.page import document
from worker.http.page.report import report
from worker.http.page.view import View, build_view
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import ServiceApi, service_of
from worker.http.sessions import CSRF_FIELD, Requester, Sessions, is_cross_site

_MAXIMUM_FORM_BYTES = 4096
_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC = ("autotag.css", "autotag.js", "mark.svg")

WHY_NO_ASSETS = (
    "Names, tags and pictures of assets are shown on the machine itself only, or to those who have signed in: "
    "set http.token."
)


def sessions_of(request: Request) -> Sessions:
    """The application's sessions."""
    sessions: Sessions = request.app.state.sessions
    return sessions


async def page(request: Request) -> Response:
    """The page, or the form that asks for the token."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return HTMLResponse(document.sign_in())
    return HTMLResponse(document.page(await view_of(request, requester)))


async def live(request: Request) -> Response:
    """The sections that change while the page is open, as an HTML fragment."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return PlainTextResponse("Sign in first\n", 401)
    return HTMLResponse(document.live(await view_of(request, requester)))


async def version(request: Request) -> Response:
    """The version that runs, by which an open page finds out that the service is there, and still the same."""
    if not sessions_of(request).identify(request).may_see_page:
        return PlainTextResponse("Sign in first\n", 401)
    return PlainTextResponse(__version__)


async def as_json(request: Request) -> Response:
    """Status and recent history, for programs."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return JsonResponse({"error": "Sign in first, or send the token as a bearer token"}, 401)
    status = await service_of(request).status()
    return JsonResponse({"status": status.to_json()} | report(await view_of(request, requester)))


async def thumbnail(request: Request) -> Response:
    """The thumbnail of one of the last results. A number is never reused, so that a browser may cache the image."""
    requester = sessions_of(request).identify(request)
    number = request.query_params.get("n", "")
    jpeg = None
    if requester.may_see_assets and number.isascii() and number.isdigit() and len(number) < 16:
        jpeg = _jpeg(service_of(request), int(number))
    if jpeg is None:
        return PlainTextResponse("No such thumbnail\n", 404)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


def _jpeg(service: ServiceApi, number: int) -> bytes | None:
    """Of a recent result, or of an image whose tags would be others with a candidate model."""
    jpeg = service.history.results.thumbnail(number)
    shadow = service.active.engine.shadow if service.active is not None else None
    return shadow.comparisons.thumbnail(number) if jpeg is None and shadow is not None else jpeg


async def sign_in(request: Request) -> Response:
    """Check the token and set the session cookie."""
    if is_cross_site(request):
        return PlainTextResponse("The request did not come from this page\n", 403)
    form = await read_form(request)
    response = RedirectResponse("./", 303)
    if await sessions_of(request).sign_in(form.get("token", ""), request, response):
        return response
    return HTMLResponse(document.sign_in("That is not the token."), 403)


async def sign_out(request: Request) -> Response:
    """End the session and delete its cookie."""
    form = await read_form(request)
    sessions = sessions_of(request)
    refusal_reason = sessions.refusal_reason(request, sessions.identify(request), form.get(CSRF_FIELD, ""))
    if refusal_reason is not None:
        return PlainTextResponse(f"{refusal_reason}\n", 403)
    response = RedirectResponse("./", 303)
    sessions.sign_out(request, response)
    return response


async def read_form(
    request: Request, *, maximum_bytes: int = _MAXIMUM_FORM_BYTES, maximum_fields: int = 10
) -> dict[str, str]:
    """The fields of a small form, empty ones too; an oversized, malformed or incomplete form counts as empty."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > maximum_bytes:
                return {}
    except ClientDisconnect:
        return {}
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=maximum_fields)
        return {name: values[0] for name, values in found.items()}
    except ValueError:
        return {}


async def view_of(request: Request, requester: Requester) -> View:
    """The service now, as one client may see it."""
    why_not = sessions_of(request).why_may_not_act(requester)
    return await build_view(
        service_of(request),
        may_see_assets=requester.may_see_assets,
        why_no_assets=WHY_NO_ASSETS,
        csrf_token=sessions_of(request).csrf_token(requester),
        why_no_actions=f"{why_not}." if why_not is not None else "",
        signed_in=requester.signed_in,
    )


def _static(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A static file. It is small and read for every request; browsers revalidate it by its ETag."""

    async def serve(request: Request) -> Response:
        body = files("worker.http.page").joinpath("static", name).read_bytes()
        tag = f'"{zlib.crc32(body):08x}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=_MEDIA_TYPES[name.rpartition(".")[2]], headers=headers)

    return serve


_SECURED = [Middleware(SecurityHeadersMiddleware)]

routes = [
    Route("/", page, middleware=_SECURED),
    Route("/live", live, middleware=_SECURED),
    Route("/page/version", version, middleware=_SECURED),
    Route("/status.json", as_json, middleware=_SECURED),
    Route("/thumbnail", thumbnail, middleware=_SECURED),
    Route("/sign-in", sign_in, methods=["POST"], middleware=_SECURED),
    Route("/sign-out", sign_out, methods=["POST"], middleware=_SECURED),
    *(Route(f"/page/{name}", _static(name), middleware=_SECURED) for name in _STATIC),
]
