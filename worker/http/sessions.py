"""Authorization on the status page: who may see what, who may act, and the sessions of signed-in browsers.

With `http.token` set, everything on the page needs the token or a session that was opened with it; with `http.sso`, a
trusted proxy's word for who somebody is does as well. Without either, any client that reaches the page sees the
service's health, clients on this machine see assets and may try an image, no client may act, and what a proxy passes on
is refused, since nobody knows who is behind it.

Signing in sets a cookie with a random number, never the token; scripts cannot read it and requests from other sites do
not carry it. Cookies are shared between ports, so a second service on this host is "the same site". A request that
changes anything must therefore also come from this very page: according to the browser's request headers, and with a
CSRF token that only the page holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from worker.http import session_cookie
from worker.http.bearer_token import is_authorized
from worker.http.forwarding import forwarding_of, is_address, is_loopback
from worker.settings import HttpSettings
from worker.sources.hosts import matches

SESSION_LIFETIME_S = 12 * 3600.0

CSRF_HEADER = "x-autotag-csrf"
CSRF_FIELD = "csrf_token"
"""Where the page's script and its forms put the CSRF token."""

_MAXIMUM_SESSIONS = 32
_WRONG_TOKEN_DELAY_S = 1.0
_MAXIMUM_PENDING_SIGN_INS = 4


@dataclass(frozen=True, slots=True)
class SignedIn:
    """How somebody is signed in. `person`: as a proxy names them; None for one who has given the token.

    `sign_out_url`: where the proxy ends its own session.
    """

    person: str | None
    by_token: bool
    sign_out_url: str | None = None


@dataclass(frozen=True, slots=True)
class Requester:
    """The client that sent a request, and what it may see and do.

    `session`: the session id of a browser in which the token was given. `person`: whom a trusted proxy has signed in.
    `bearer`: the request carries the token, as those of programs do.
    """

    address: str
    may_see_page: bool
    may_see_assets: bool
    may_act: bool
    session: str | None = None
    person: str | None = None
    bearer: bool = False
    sign_out_url: str | None = None

    @property
    def key(self) -> str:
        """Identifies the client for rate limits: its session, its person, or its address, which others may share."""
        return self.session or self.person or self.address

    @property
    def signed_in(self) -> SignedIn | None:
        """How it is signed in; None for one that is not, and for programs."""
        if self.session is None and self.person is None:
            return None
        return SignedIn(self.person, self.session is not None, self.sign_out_url)

    @property
    def who(self) -> str:
        """Who it is, for logs and the history of settings."""
        return self.address if self.person is None else f"{self.person}, {self.address}"


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A request that the page does not answer. `status`: of HTTP; `why`: for people."""

    status: int
    why: str

    def answer(self) -> Response:
        """What is answered in place of the page."""
        return PlainTextResponse(f"{self.why}\n", self.status)


_INSIDE = (".svc", ".cluster.local", ".internal", ".local", ".lan", ".home.arpa", ".intranet")
"""Ends of names that are looked up inside a network only (RFC 6762, RFC 8375, RFC 6761's registry, ICANN's `.internal`,
and what clusters and routers use)."""


class Sessions:
    """The sessions of signed-in browsers, in memory only: they end with the process."""

    def __init__(self, http: HttpSettings) -> None:
        self._http = http
        self._token = http.token
        self._key = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._pending_sign_ins = 0

    def identify(self, request: Request) -> Requester:
        """The client that sent the request, by its bearer token, session cookie, trusted proxy or address."""
        address = request.client.host if request.client else ""
        person = forwarding_of(request).person
        if self._token is not None:
            if is_authorized(request):
                return Requester(address, True, True, True, bearer=True)
            session = session_cookie.read(request)
            if self._is_valid(session):
                return Requester(address, True, True, True, session=session, person=person)
        if person is not None:
            sso = self._http.sso
            may_act = "*" in sso.operators or person in sso.operators
            return Requester(address, True, True, may_act, person=person, sign_out_url=sso.sign_out_url)
        if self._token is not None:
            return Requester(address, False, False, False)
        # A connection from this machine that asks for another host is a proxy's, or a tunnel's end.
        return Requester(address, True, is_loopback(address) and self._is_local_name(request), False)

    def why_refused(self, request: Request) -> RequestRefused | None:
        """Why the page does not answer a request at all; None if it does.

        Without a token a browser on this machine is enough to see assets. Everybody behind a proxy on this machine
        would be taken for one, and so would another site whose name was made to resolve to this machine.
        """
        forwarding = forwarding_of(request)
        if self._token is not None or forwarding.person is not None:
            return None
        header = self._http.sso.user_header
        if forwarding.sign is not None:
            if header is None:
                why = (
                    f"This request was passed on by a proxy ({forwarding.sign}), and without http.token everybody "
                    "behind it would be taken for somebody on this machine. Set http.token, or http.sso.user_header if "
                    "the proxy signs people in."
                )
            elif not forwarding.trusted:
                why = (
                    f"This request was passed on by a proxy at {forwarding.proxy} ({forwarding.sign}), which is not in "
                    "http.trusted_proxies: its word for who you are is not taken."
                )
            else:
                why = (
                    f"The proxy at {forwarding.proxy} has not said who you are: it has to send one header {header} "
                    "(http.sso.user_header) with every request."
                )
            return RequestRefused(403, why)
        if header is not None and not is_loopback(forwarding.proxy):
            return RequestRefused(403, "People are signed in by the proxy here (http.sso): ask by way of it.")
        if self.is_untrusted_host(request):
            return RequestRefused(
                421,
                "Without http.token this page is shown under an address or localhost only, not under a host's name: "
                "any name could have been pointed here by another site. Ask by address, or set http.token or "
                "http.allowed_hosts.",
            )
        return None

    def is_untrusted_host(self, request: Request) -> bool:
        """Whether the request's Host header could be a foreign name that was made to resolve to this machine.

        It would need a host name for that: an address, or `localhost`, cannot be rebound.
        """
        if self._token is not None:
            return False
        host = _host(request.headers.get("host", ""))
        if _is_localhost(host) or is_address(host):
            return False
        return not self._is_allowed(host)

    def _is_local_name(self, request: Request) -> bool:
        """Whether the request asks for this machine by a name or address that means nothing on others."""
        host = _host(request.headers.get("host", ""))
        return _is_localhost(host) or is_loopback(host) or self._is_allowed(host)

    def _is_allowed(self, host: str) -> bool:
        return any(matches(host, allowed) for allowed in self._http.allowed_hosts)

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
        session_cookie.write(request, response, session, round(SESSION_LIFETIME_S))
        return True

    def sign_out(self, request: Request, response: Response) -> None:
        """End the request's session."""
        self._sessions.pop(_digest(session_cookie.read(request)), None)
        session_cookie.write(request, response, "", 0)

    def _is_valid(self, session: str) -> bool:
        expires_s = self._sessions.get(_digest(session))
        return expires_s is not None and time.monotonic() < expires_s

    # ── requests that change something ───────────────────────────────────────────────────────────────────────────────

    def csrf_token(self, requester: Requester) -> str | None:
        """The CSRF token for this requester's forms; None for one that may not act, or needs none."""
        if requester.session is not None:
            return hmac.new(requester.session.encode(), b"autotag form", hashlib.sha256).hexdigest()
        if requester.person is not None and requester.may_act:
            return hmac.new(self._key, f"autotag form of {requester.person}".encode(), hashlib.sha256).hexdigest()
        return None

    def why_may_not_act(self, requester: Requester) -> str | None:
        """Why a requester has no buttons, for people; None if it may act."""
        if requester.may_act:
            return None
        if requester.person is not None:
            return f"{requester.person} may look only: those who may act are in http.sso.operators"
        if self._http.signs_people_in:
            return "Sign in first"
        return "Set http.token and sign in to act from here; on the machine the command line does the same"

    def refusal_reason(self, request: Request, requester: Requester, csrf_token: str) -> str | None:
        """Why a request that would change something is refused, for people; None if it is allowed."""
        if not requester.may_act or requester.bearer:  # no browser adds an Authorization header by itself
            return self.why_may_not_act(requester)
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


def _digest(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()


def _host(header: str) -> str:
    """The name or address in a Host header, without port and brackets."""
    try:
        return (urlsplit(f"//{header}").hostname or "") if header.isascii() else ""
    except ValueError:  # brackets without an address between them
        return ""


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")
