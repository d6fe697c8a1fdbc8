"""The cookie of a signed-in browser: a random session id, which scripts cannot read and other sites cannot have sent.

It has no path, so that it is for where the browser sees the page: below whatever path a proxy serves it (RFC 6265
section 5.1.4). Where the browser speaks HTTPS, though perhaps to a proxy only, it is `Secure`, and its name says so.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

_SECURE = "__Secure-"


def read(request: Request) -> str:
    """The session id that the request carries; empty without one."""
    name = _name(request)
    return request.cookies.get(f"{_SECURE}{name}") or ("" if _is_https(request) else request.cookies.get(name, ""))


def write(request: Request, response: Response, session: str, max_age_s: int) -> None:
    """Give the browser a session id, for `max_age_s` seconds."""
    secure = _is_https(request)
    name = _name(request)
    response.set_cookie(
        f"{_SECURE}{name}" if secure else name,
        session,
        max_age=max_age_s,
        path=None,
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def _name(request: Request) -> str:
    """Cookies are shared between ports: each has one of its own."""
    server = request.scope.get("server")
    return f"autotag_{server[1] if server else 0}"


def _is_https(request: Request) -> bool:
    """Whether the browser speaks HTTPS, by this server's or a trusted proxy's word, or by its own.

    A browser names the page's scheme itself in the `Origin` of every form that it sends, whatever the proxy passes on.
    """
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
