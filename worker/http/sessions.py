"""Authorization on the status page: who may see what, who may act, and the sessions of signed-in browsers.

With `http.token` set, everything on the page needs the token or a session that was opened with it. Without one, any
client that reaches the page sees the service's health, clients on this machine see assets and may try an image, and
no client may act.

Signing in sets a cookie with a random number, never the token; scripts cannot read it and requests from other sites do
not carry it. Cookies are shared between ports, so a second service on this host is "the same site". A request that
changes anything must therefore also come from this very page: according to the browser's request headers, and with a
CSRF token that only the page holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from worker.http.bearer_token import is_authorized
from worker.sources.hosts import matches

SESSION_LIFETIME_S = 12 * 3600.0

CSRF_HEADER = "x-autotag-csrf"
CSRF_FIELD = "csrf_token"
"""Where the page's script and its forms put the CSRF token."""

_MAXIMUM_SESSIONS = 32
_WRONG_TOKEN_DELAY_S = 1.0
_MAXIMUM_PENDING_SIGN_INS = 4


@dataclass(frozen=True, slots=True)
class Requester:
    """The client that sent a request, and what it may see and do.

    `session`: the session id of a signed-in browser. `bearer`: the request carries the token, as those of programs do.
    """

    address: str
    may_see_page: bool
    may_see_assets: bool
    may_act: bool
    session: str | None = None
    bearer: bool = False

    @property
    def key(self) -> str:
        """Identifies the client for rate limits: its session, or its address, which others may share."""
        return self.session or self.address


_INSIDE = (".svc", ".cluster.local", ".internal", ".local", ".lan", ".home.arpa", ".intranet")
"""Ends of names that are looked up inside a network only (RFC 6762, RFC 8375, RFC 6761's registry, ICANN's `.internal`,
and what clusters and routers use)."""


class Sessions:
    """The sessions of signed-in browsers, in memory only: they end with the process."""

    def __init__(self, token: SecretStr | None, allowed_hosts: Collection[str] = ()) -> None:
        self._token = token
        self._allowed_hosts = allowed_hosts
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._pending_sign_ins = 0

    @property
    def requires_token(self) -> bool:
        """Whether `http.token` is set."""
        return self._token is not None

    def identify(self, request: Request) -> Requester:
        """The client that sent the request, by its bearer token, session cookie or address."""
        address = request.client.host if request.client else ""
        if self._token is None:
            return Requester(address, may_see_page=True, may_see_assets=_is_loopback(address), may_act=False)
        if is_authorized(request):
            return Requester(address, may_see_page=True, may_see_assets=True, may_act=True, bearer=True)
        session = request.cookies.get(_cookie_name(request), "")
        if self._is_valid(session):
            return Requester(address, may_see_page=True, may_see_assets=True, may_act=True, session=session)
        return Requester(address, may_see_page=False, may_see_assets=False, may_act=False)

    def is_untrusted_host(self, request: Request) -> bool:
        """Whether the request's Host header could be a foreign name that was made to resolve to this machine.

        Without a token a browser on this machine is enough to see assets, so another site must not be able to pose as
        this one by DNS rebinding. It would need a host name for that: an address, or `localhost`, cannot be rebound.
        """
        if self._token is not None:
            return False
        host = _host(request.headers.get("host", ""))
        if host == "localhost" or host.endswith(".localhost") or _is_address(host):
            return False
        return not any(matches(host, allowed) for allowed in self._allowed_hosts)

    def is_public_name(self, request: Request) -> bool:
        """Whether the Host header is a name that anybody could own, and none that is allowed.

        What scrapes metrics asks by the name of a service. Such names have no dot, or end in what nobody can register.
        """
        host = _host(request.headers.get("host", "")).rstrip(".")
        inside = not host or "." not in host or host.endswith(_INSIDE)
        return not inside and self.is_untrusted_host(request)

    # ── signing in and out ───────────────────────────────────────────────────────────────────────────────────────────

    async def sign_in(self, token: str, request: Request, response: Response) -> bool:
        """Open a session if the token is right. A wrong one costs a second, unless too many are being made to wait.

        The right one is let in at once, however many wrong ones come: nobody can lock an operator out.
        """
        if self._token is None:
            return False
        if not hmac.compare_digest(token.encode(errors="replace"), self._token.get_secret_value().encode()):
            if self._pending_sign_ins < _MAXIMUM_PENDING_SIGN_INS:
                self._pending_sign_ins += 1
                try:
                    await asyncio.sleep(_WRONG_TOKEN_DELAY_S)
                finally:
                    self._pending_sign_ins -= 1
            return False
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = time.monotonic() + SESSION_LIFETIME_S
        if len(self._sessions) > _MAXIMUM_SESSIONS:
            self._sessions.popitem(last=False)
        _set_cookie(request, response, session, round(SESSION_LIFETIME_S))
        return True

    def sign_out(self, request: Request, response: Response) -> None:
        """End the request's session."""
        self._sessions.pop(_digest(request.cookies.get(_cookie_name(request), "")), None)
        _set_cookie(request, response, "", 0)

    def _is_valid(self, session: str) -> bool:
        expires_s = self._sessions.get(_digest(session))
        return expires_s is not None and time.monotonic() < expires_s

    # ── requests that change something ───────────────────────────────────────────────────────────────────────────────

    def csrf_token(self, requester: Requester) -> str | None:
        """The CSRF token for this requester's forms; None without a session, since only the page's forms need one."""
        if requester.session is None:
            return None
        return hmac.new(requester.session.encode(), b"autotag form", hashlib.sha256).hexdigest()

    def refusal_reason(self, request: Request, requester: Requester, csrf_token: str) -> str | None:
        """Why a request that would change something is refused, for people; None if it is allowed."""
        if not self.requires_token:
            return "Set http.token and sign in to act from here; on the machine the command line does the same"
        if not requester.may_act:
            return "Sign in first"
        if requester.bearer:  # no browser adds an Authorization header by itself
            return None
        if is_cross_site(request):
            return "The request did not come from this page"
        expected = self.csrf_token(requester)
        if expected is None or not hmac.compare_digest(csrf_token.encode(errors="replace"), expected.encode()):
            return "The page is out of date; load it again"
        return None


def is_cross_site(request: Request) -> bool:
    """Whether another site made the browser send this request, or its origin is unknown.

    `Sec-Fetch-Site` is set by the browser itself, wherever the page is on a trustworthy address. Elsewhere, and from
    older browsers, there is `Origin`, which must name the requested host.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("origin", "")
    try:
        named = urlsplit(origin).netloc.lower()
    except ValueError:  # brackets without an address between them
        return True
    return named != request.headers.get("host", "").lower() or not origin


def _cookie_name(request: Request) -> str:
    server = request.scope.get("server")
    name = f"autotag_{server[1] if server else 0}"
    return f"__Host-{name}" if request.url.scheme == "https" else name


def _set_cookie(request: Request, response: Response, value: str, max_age_s: int) -> None:
    is_https = request.url.scheme == "https"
    response.set_cookie(
        _cookie_name(request),
        value,
        max_age=max_age_s,
        # Without a path, the cookie is for where the browser sees the page: below whatever path a proxy serves it
        # (RFC 6265 section 5.1.4). The prefix of its name for HTTPS demands the whole host.
        path="/" if is_https else None,
        secure=is_https,
        httponly=True,
        samesite="strict",
    )


def _digest(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()


def _host(header: str) -> str:
    """The name or address in a Host header, without port and brackets."""
    try:
        return (urlsplit(f"//{header}").hostname or "") if header.isascii() else ""
    except ValueError:  # brackets without an address between them
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
