"""The endpoint of the results tab: a search in the history that is kept on disk."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from worker.errors import Unavailable
from worker.http.page import document
from worker.http.page import results as page
from worker.http.pages import sessions_of, view_of
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.operations.history.kept import STATUSES, HistoryPage, HistoryQuery

_MAXIMUM_TEXT_LENGTH = 1024
_FIELDS = ("asset", "instance", "status", "tag", "before")


async def results(request: Request) -> Response:
    """The search form, and what it has found."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return HTMLResponse(document.sign_in())
    view = await view_of(request, requester)
    wanted = _wanted(request)
    found: HistoryPage | None = None
    problem: str | None = None
    if requester.may_see_assets and view.history.writer is not None:
        try:
            found = await view.history.writer.search(_query(wanted))
        except Unavailable as error:
            problem = str(error)
    return HTMLResponse(
        document.tab(
            "Results",
            page.PATH,
            page.section(view, wanted, found, problem),
            csrf_token=view.csrf_token,
            signed_in=view.signed_in,
            script=True,
        )
    )


def _wanted(request: Request) -> dict[str, str]:
    """What the query says, as far as it can mean anything."""
    given = {name: request.query_params.get(name, "").strip()[:_MAXIMUM_TEXT_LENGTH] for name in _FIELDS}
    if given["status"] not in STATUSES:
        given["status"] = ""
    if not (given["before"].isascii() and given["before"].isdigit() and len(given["before"]) < 16):
        given["before"] = ""
    return {name: value for name, value in given.items() if value}


def _query(wanted: dict[str, str]) -> HistoryQuery:
    return HistoryQuery(
        asset=wanted.get("asset"),
        instance=wanted.get("instance"),
        status=wanted.get("status"),
        tag=wanted.get("tag"),
        before=int(wanted["before"]) if "before" in wanted else None,
        limit=page.PER_PAGE,
    )


routes = [Route(f"/{page.PATH}", results, middleware=[Middleware(SecurityHeadersMiddleware)])]
