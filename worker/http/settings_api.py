"""The endpoints of the Settings tab and of its editor, which needs the token and `http.editor`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from worker.errors import AutotagError, exhausted
from worker.http import settings_edits
from worker.http.json_response import JsonResponse
from worker.http.page import document, settings_form, settings_tab
from worker.http.page.settings_view import EditorView, SettingsOutcome, SettingsView, Shown
from worker.http.pages import WHY_NO_ASSETS, read_form, sessions_of
from worker.http.security_headers import SecurityHeadersMiddleware
from worker.http.service_api import ServiceApi, service_of
from worker.http.sessions import CSRF_FIELD, CSRF_HEADER, Requester
from worker.http.settings_edits import Outcomes, why_no_editor
from worker.messages.fields import is_instance_name
from worker.settings.in_force import ReloadPreview, preview
from worker.settings.overlay.change import in_use, to_undo
from worker.settings.overlay.form import all_of, digest, fields_of
from worker.settings.overlay.secret_files import why_no_secrets
from worker.settings.overlay.versions import read_versions
from worker.settings.schema import SettingKey, dotted

_log = structlog.get_logger(__name__)

_MAXIMUM_FORM_BYTES = 256 * 1024
_MAXIMUM_FIELDS = 100
_MAXIMUM_NAME_LENGTH = 100


async def settings(request: Request) -> Response:
    """The tab, or the form that asks for the token."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return HTMLResponse(document.sign_in())
    csrf_token = sessions_of(request).csrf_token(requester)
    if not requester.may_see_assets:
        why = WHY_NO_ASSETS.replace("Names, tags and pictures of assets", "Settings")
        return HTMLResponse(settings_tab.hidden(why, signed_in=requester.signed_in, csrf_token=csrf_token))
    return HTMLResponse(settings_tab.page(_view(request, requester)))


async def as_json(request: Request) -> Response:
    """The settings in force, and what a reload would change, for programs; `instance`: those of one."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_assets:
        return JsonResponse({"error": "Sign in first, or send the token as a bearer token"}, 401)
    view = _view(request, requester)
    return JsonResponse(
        {
            "settings": {dotted(each.key): each.to_json() for each in view.rows},
            "would_change": [dotted(each.key) for each in view.changes],
            "would_be_refused": view.preview.refused,
        }
    )


async def editor(request: Request) -> Response:
    """The editor's form for the service, the defaults or one instance."""
    requester = sessions_of(request).identify(request)
    if not requester.may_see_page:
        return HTMLResponse(document.sign_in())
    if not requester.may_act:
        return HTMLResponse(
            settings_tab.hidden(
                why_no_editor(service_of(request), None) or _sign_in_first(requester),
                signed_in=requester.signed_in,
                csrf_token=None,
            )
        )
    scope = _scope(request)
    if scope is None:
        return PlainTextResponse("No instance can have that name\n", 404)
    return HTMLResponse(settings_form.page(_editor_view(request, requester, scope)))


async def save(request: Request) -> Response:
    """Write what the form changes, reload, and lead to what became of it; a form that is refused is shown again."""
    scope = _scope(request)
    if scope is None:
        return PlainTextResponse("No instance can have that name\n", 404)

    def again(form: Mapping[str, str], message: SettingsOutcome) -> str:
        requester = sessions_of(request).identify(request)
        return settings_form.page(_editor_view(request, requester, scope, form, message))

    return await _act(
        request, "save", lambda form, by: settings_edits.save(service_of(request), scope, form, by), again
    )


async def undo(request: Request) -> Response:
    """Take an earlier version of the overlay again."""

    async def act(form: Mapping[str, str], by: str) -> SettingsOutcome:
        service = service_of(request)
        to = form.get("to", "")
        if (why := why_no_editor(service, preview(service.load).loaded)) is not None:
            return SettingsOutcome(False, why)
        number = int(to) if to.isascii() and to.isdigit() and len(to) < 10 else None
        return await settings_edits.undo(service, number, form.get("seen", ""), by)

    return await _act(request, "undo", act)


async def reload(request: Request) -> Response:
    """Put the settings in force as they are now."""
    return await _act(request, "reload", lambda _form, _by: settings_edits.reload(service_of(request)))


async def _act(
    request: Request,
    action: str,
    perform: Callable[[Mapping[str, str], str], Awaitable[SettingsOutcome]],
    again: Callable[[Mapping[str, str], SettingsOutcome], str] | None = None,
) -> Response:
    form = await read_form(request, maximum_bytes=_MAXIMUM_FORM_BYTES, maximum_fields=_MAXIMUM_FIELDS)
    sessions = sessions_of(request)
    requester = sessions.identify(request)
    csrf_token = request.headers.get(CSRF_HEADER) or form.get(CSRF_FIELD, "")
    refusal_reason = sessions.refusal_reason(request, requester, csrf_token)
    if refusal_reason is not None:
        return PlainTextResponse(f"{refusal_reason}\n", 403)
    _log.info("an operator acts on the settings", action=action, who=requester.who)
    try:
        outcome = await perform(form, f"status page, {requester.who}")
        status = 200 if outcome.done else 409
    except (AutotagError, OSError, RuntimeError) as error:
        known = error if isinstance(error, AutotagError) else exhausted(error)
        if known is None:
            raise
        first, *lines = str(known).splitlines()
        outcome, status = (
            SettingsOutcome(False, f"{first[0].upper()}{first[1:].rstrip(':')}", tuple(map(str.strip, lines))),
            422,
        )
    if "application/json" in request.headers.get("accept", ""):
        return JsonResponse({"done": outcome.done, "said": outcome.title, "lines": outcome.lines}, status)
    if status == 422 and again is not None:
        return HTMLResponse(again(form, outcome), status)
    place = settings_tab.address(
        settings_tab.PATH, outcome=_outcomes(request).keep(outcome), instance=_instance(request)
    )
    return RedirectResponse(place, 303)


def _view(request: Request, requester: Requester) -> SettingsView:
    service = service_of(request)
    found = preview(service.load)
    instance = _instance(request)
    named = list(service.settings.instances)
    query = request.query_params.get("q", "")[:_MAXIMUM_NAME_LENGTH]
    in_force = service.in_force
    own = instance is not None and (instance in named or not any(instance.lower() in name.lower() for name in named))
    rows = list(in_force.instance(instance, found) if own and instance else in_force.service(found))
    changes = in_force.would_change(found)
    if own:
        changes = [each for each in rows if each.changes is not None]
    overlay = found.loaded.overlay if found.loaded is not None else None
    versions = read_versions(overlay.path) if overlay is not None else []
    outcome = _outcomes(request).get(request.query_params.get("outcome", "")) if requester.may_act else None
    return SettingsView(
        rows=rows,
        changes=changes,
        preview=found,
        instance=instance,
        instances=named,
        query=query,
        shown=_shown(request, query),
        csrf_token=sessions_of(request).csrf_token(requester),
        signed_in=requester.signed_in,
        why_no_editor=_why_not(service, requester, found),
        versions=versions,
        in_use=in_use(overlay, versions) if overlay is not None else None,
        undo_to=to_undo(overlay, versions) if overlay is not None else None,
        fingerprint=overlay.fingerprint if overlay is not None else "",
        message=outcome,
    )


def _editor_view(
    request: Request,
    requester: Requester,
    scope: SettingKey,
    values: Mapping[str, str] | None = None,
    message: SettingsOutcome | None = None,
) -> EditorView:
    service = service_of(request)
    found = preview(service.load)
    loaded = found.loaded
    groups = fields_of(loaded, scope) if loaded is not None else {}
    return EditorView(
        scope=scope,
        groups=groups,
        seen=digest(all_of(groups)),
        csrf_token=sessions_of(request).csrf_token(requester),
        signed_in=requester.signed_in,
        why_no_editor=_why_not(service, requester, found),
        why_no_secrets=why_no_secrets(loaded) if loaded is not None else None,
        is_new=len(scope) > 1 and loaded is not None and scope[1] not in loaded.settings.instances,
        values=values or {},
        message=message,
    )


def _why_not(service: ServiceApi, requester: Requester, found: ReloadPreview) -> str | None:
    why = why_no_editor(service, found.loaded)
    return _sign_in_first(requester) if why is None and not requester.may_act else why


def _sign_in_first(requester: Requester) -> str:
    if requester.person is None:
        return "Sign in to change settings."
    return f"{requester.person} may look only: those who may change settings are in `http.sso.operators`."


def _scope(request: Request) -> SettingKey | None:
    """What is edited; None for an instance that cannot be named so."""
    instance = request.query_params.get("instance", "").strip()
    if instance:
        return ("instances", instance) if is_instance_name(instance) else None
    return ("defaults",) if request.query_params.get("of") == "defaults" else ()


def _instance(request: Request) -> str | None:
    name = request.query_params.get("instance", "").strip()[:_MAXIMUM_NAME_LENGTH]
    return name or None


def _shown(request: Request, query: str) -> Shown:
    match request.query_params.get("show"):
        case "all":
            return "all"
        case "changes":
            return "changes"
        case "set":
            return "set"
        case _:
            return "all" if query else "set"


def _outcomes(request: Request) -> Outcomes:
    outcomes: Outcomes = request.app.state.settings_outcomes
    return outcomes


_SECURED = [Middleware(SecurityHeadersMiddleware)]

routes = [
    Route("/settings", settings, middleware=_SECURED),
    Route("/settings.json", as_json, middleware=_SECURED),
    Route("/settings-edit", editor, middleware=_SECURED),
    Route("/settings-edit", save, methods=["POST"], middleware=_SECURED),
    Route("/settings-undo", undo, methods=["POST"], middleware=_SECURED),
    Route("/settings-reload", reload, methods=["POST"], middleware=_SECURED),
]
