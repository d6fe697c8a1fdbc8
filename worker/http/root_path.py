"""Below a path of a reverse proxy: `http.root_path`.

The page's own addresses are all relative, so that it works below any path whose proxy removes that path from requests,
with no setting; the setting is for proxies that do not. What a client or a proxy writes into headers
(`X-Forwarded-Prefix`) is never believed, as it would decide where links lead.
"""

from __future__ import annotations

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
