"""The endpoint of the tenants tab."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from worker.http.page import document
from worker.http.page import tenants as page
from worker.http.pages import sessions_of, view_of
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import service_of

_FIELDS = ("name", "show", "sort", "page")
_MAXIMUM_TEXT_LENGTH = 200


async def tenants(request: Request) -> Response:
    """The table of instances: names of instances are shown to all who may see the page, as on the overview."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return HTMLResponse(document.sign_in())
    view = await view_of(request, requester)
    given = {name: request.query_params.get(name, "").strip()[:_MAXIMUM_TEXT_LENGTH] for name in _FIELDS}
    if not (given["page"].isascii() and given["page"].isdigit() and len(given["page"]) < 7):
        given["page"] = ""
    wanted = {name: value for name, value in given.items() if value}
    section = page.section(view, page.tenants(view, service_of(request).accounts()), wanted)
    return HTMLResponse(
        document.tab(
            "Tenants",
            page.PATH,
            section,
            csrf_token=view.csrf_token,
            signed_in=view.signed_in,
            note="Renews itself every few seconds. Times are those of the machine it runs on.",
            script=True,
            renew=True,
        )
    )


routes = [Route(f"/{page.PATH}", tenants, middleware=[Middleware(SecurityHeadersMiddleware)])]
