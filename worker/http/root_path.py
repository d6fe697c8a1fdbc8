"""Below a path of a reverse proxy: `http.root_path`.

The page's own addresses are all relative, so that it works below any path whose proxy removes that path from requests,
with no setting; the setting is for proxies that do not. What a client or a proxy writes into headers
(`X-Forwarded-Prefix`) is never believed, as it would decide where links lead.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def below(app: ASGIApp, root_path: str) -> ASGIApp:
    """The application for requests below `root_path`, and for those without it, since probes ask directly."""
    if not root_path:
        return app

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        if path == root_path:  # relative addresses need the slash
            await RedirectResponse(f"{root_path}/", 308)(scope, receive, send)
            return
        inner = path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path
        await app({**scope, "path": inner, "raw_path": inner.encode()}, receive, send)

    return serve


def hint(path: str, known: Collection[str]) -> str:
    """What to do where a proxy seems to have passed on a path of its own before one that is known; else empty."""
    found = max((each for each in known if path.endswith(each) and path != each), key=len, default="")
    prefix = path.removesuffix(found).rstrip("/") if found else ""
    if not prefix:
        return ""
    return (
        f"Nothing is at {path}. If a proxy serves Autotag below {prefix}, have it remove that from requests, or set "
        f'http.root_path = "{prefix}".\n'
    )
