"""The endpoints of the dead letters tab: list, show, replay and purge, by the same operations as the command's.

The queue is looked through by one request at a time, within bounds, and an answer is given again for a few seconds: a
page that is loaded by several people does not keep the letters in hand all the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import structlog
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from worker.amqp.dead_letters import Bounds, DeadLetter, DeadLetters, Looked, Selection
from worker.amqp.topology import Lane, topology
from worker.errors import AutotagError
from worker.http.actions import refusals
from worker.http.dead_letter_image import thumbnail_of
from worker.http.json_response import JsonResponse
from worker.http.page import dead_letters as page
from worker.http.page import document
from worker.http.page.markup import Html
from worker.http.page.tables import address
from worker.http.page.view import View
from worker.http.pages import read_form, sessions_of, view_of
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import service_of
from worker.http.sessions import CSRF_FIELD, CSRF_HEADER, Requester
from worker.settings import Settings

_log = structlog.get_logger(__name__)

_BOUNDS = Bounds(letters=1000, size_bytes=64 << 20, within_s=5.0)
"""Of one look at the queue, and of one press of a button."""

_KEPT_S = 3.0
_MAXIMUM_TEXT_LENGTH = 1024
_MAXIMUM_FIELDS = 20
_MAXIMUM_FORM_BYTES = 16 << 10
_NO_IMAGE = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128"><text x="64" y="69" text-anchor="middle"
 font-family="sans-serif" font-size="14" fill="#808389">no picture</text></svg>"""
_FILTERS = ("id", "reason", "asset", "instance", "lane")

Operation = Literal["replay", "purge"]


class DeadLetterQueue:
    """The queue for all requests: one operation at a time."""

    def __init__(self, settings: Settings) -> None:
        names = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
        self._letters = DeadLetters(settings.amqp, names, _BOUNDS)
        self._turn = asyncio.Lock()
        self._looked: Looked | None = None
        self._looked_at_s = 0.0

    async def look(self) -> Looked:
        """What is in the queue, as far as the bounds reach; a few seconds old at most."""
        async with self._turn:
            if self._looked is None or time.monotonic() > self._looked_at_s + _KEPT_S:
                self._looked = await self._letters.look()
                self._looked_at_s = time.monotonic()
            return self._looked

    async def show(self, key: str) -> DeadLetter | None:
        """One letter with its body; None if it is not there, or beyond the bounds."""
        async with self._turn:
            return await self._letters.show(key)

    async def change(self, operation: Operation, selection: Selection) -> _Outcome:
        """Replay or purge the selected letters, the oldest first, as far as the bounds reach."""
        async with self._turn:
            self._looked = None
            if operation == "purge":
                return _Outcome(await self._letters.purge(selection))
            replayed = await self._letters.replay(selection)
            return _Outcome(replayed.number, len(replayed.without_image))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How many letters were replayed or purged, and how many could not be, as they lack their image."""

    number: int
    without_image: int = 0


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def dead_letters(request: Request) -> Response:
    """The list; with `confirm`, the question whether those that match are to be replayed or purged."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return HTMLResponse(document.sign_in())
    view = await view_of(request, requester)
    wanted = _wanted(request.query_params)
    if not requester.may_see_assets:
        return _tab(view, page.hidden(view))
    try:
        looked = await _queue_of(request).look()
    except AutotagError as error:
        return _tab(view, page.unreadable(view, str(error)), 503)
    found = [letter for letter in looked.letters if _selection(wanted).matches(letter)]
    confirm = request.query_params.get("confirm", "")
    if confirm in ("replay", "purge") and view.csrf_token is not None and found:
        return _tab(view, page.question(view, confirm, wanted, found, looked))
    number = request.query_params.get("page", "")
    number = number if number.isascii() and number.isdigit() and len(number) < 6 else "1"
    done = {name: request.query_params[name] for name in page.OUTCOMES if name in request.query_params}
    return _tab(view, page.listing(view, wanted, found, looked, int(number), done))


async def dead_letter(request: Request) -> Response:
    """One letter whole."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return HTMLResponse(document.sign_in())
    view = await view_of(request, requester)
    if not requester.may_see_assets:
        return _tab(view, page.hidden(view))
    key = request.query_params.get("id", "")[:_MAXIMUM_TEXT_LENGTH]
    try:
        letter = await _queue_of(request).show(key)
    except AutotagError as error:
        return _tab(view, page.unreadable(view, str(error)), 503)
    if letter is None:
        return _tab(view, page.missing(key), 404)
    return _tab(view, page.whole(view, letter, has_thumbnail=_may_have_thumbnail(request)))


async def image(request: Request) -> Response:
    """A thumbnail of the image of one letter's event, fetched and decoded now."""
    requester = sessions_of(request).identify(request)
    active = service_of(request).active
    jpeg = None
    if requester.may_see_assets and _may_have_thumbnail(request) and active is not None:
        try:
            letter = await _queue_of(request).show(request.query_params.get("id", "")[:_MAXIMUM_TEXT_LENGTH])
        except AutotagError:
            letter = None
        if letter is not None:
            jpeg = await thumbnail_of(letter, active)
    if jpeg is None:
        return Response(_NO_IMAGE, media_type="image/svg+xml")
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})


def _may_have_thumbnail(request: Request) -> bool:
    return service_of(request).settings.http.shows_thumbnails


def _tab(view: View, section: Html, status: int = 200) -> Response:
    return HTMLResponse(
        document.tab(
            "Dead letters", page.PATH, section, csrf_token=view.csrf_token, signed_in=view.signed_in, script=True
        ),
        status,
    )


# ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _endpoint(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def act(request: Request) -> Response:
        form = await read_form(request, maximum_bytes=_MAXIMUM_FORM_BYTES, maximum_fields=_MAXIMUM_FIELDS)
        sessions = sessions_of(request)
        requester = sessions.identify(request)
        csrf_token = request.headers.get(CSRF_HEADER) or form.get(CSRF_FIELD, "")
        why_not = sessions.refusal_reason(request, requester, csrf_token)
        if why_not is not None:
            refusals.log(time.monotonic(), action=f"{operation} dead letters", who=requester.who, why=why_not)
            return PlainTextResponse(f"{why_not}\n", 403)
        wanted = _wanted(form)
        # A form that is empty, or was cut, would mean all of them.
        is_one_replay = operation == "replay" and "id" in wanted
        if not is_one_replay and form.get("confirmed") != "yes":
            return PlainTextResponse("Not done: send `confirmed=yes` with what is meant\n", 400)
        limit = form.get("limit", "")
        if limit and not (limit.isascii() and limit.isdigit() and int(limit[:9]) > 0):
            return PlainTextResponse("Not done: `limit` is no number above 0\n", 400)
        selection = _selection(wanted, int(limit[:9]) if limit else None)
        return await _change(request, requester, operation, wanted, selection)

    return act


async def _change(
    request: Request, requester: Requester, operation: Operation, wanted: Mapping[str, str], selection: Selection
) -> Response:
    _log.info("an operator acts from the status page", action=f"{operation} dead letters", who=requester.who, **wanted)
    try:
        outcome = await _queue_of(request).change(operation, selection)
    except AutotagError as error:
        _log.error("dead letters were not all handled", action=operation, why=str(error))
        if _wants_json(request):
            return JsonResponse({"error": str(error)}, 503)
        return _tab(
            await view_of(request, requester), page.unreadable(await view_of(request, requester), str(error)), 503
        )
    name = "replayed" if operation == "replay" else "purged"
    counts = {name: outcome.number, "without_image": outcome.without_image}
    if _wants_json(request):
        return JsonResponse(counts)
    rest = {name: value for name, value in wanted.items() if name != "id"}
    return RedirectResponse(
        address(page.PATH, rest | {name: str(n) for name, n in counts.items() if n or name != "without_image"}), 303
    )


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _wanted(given: Mapping[str, str]) -> dict[str, str]:
    """The filters that are filled in. An unknown lane matches nothing rather than everything."""
    found = {name: given.get(name, "").strip()[:_MAXIMUM_TEXT_LENGTH] for name in _FILTERS}
    return {name: value for name, value in found.items() if value}


def _selection(wanted: Mapping[str, str], limit: int | None = None) -> Selection:
    lane = wanted.get("lane")
    if lane is not None and lane not in set(Lane):
        return Selection(key="", limit=limit)  # no letter has an empty key
    return Selection(
        key=wanted.get("id"),
        reason=wanted.get("reason"),
        asset=wanted.get("asset"),
        instance=wanted.get("instance"),
        lane=Lane(lane) if lane is not None else None,
        limit=limit,
    )


def _queue_of(request: Request) -> DeadLetterQueue:
    """The application's queue of dead letters, with the settings that the service was started with."""
    state = request.app.state
    if not hasattr(state, "dead_letters"):
        state.dead_letters = DeadLetterQueue(service_of(request).settings)
    queue: DeadLetterQueue = state.dead_letters
    return queue


_SECURED = [Middleware(SecurityHeadersMiddleware)]

routes = [
    Route(f"/{page.PATH}", dead_letters, middleware=_SECURED),
    Route(f"/{page.ONE}", dead_letter, middleware=_SECURED),
    Route(f"/{page.IMAGE}", image, middleware=_SECURED),
    Route(f"/{page.REPLAY}", _endpoint("replay"), methods=["POST"], middleware=_SECURED),
    Route(f"/{page.PURGE}", _endpoint("purge"), methods=["POST"], middleware=_SECURED),
]
