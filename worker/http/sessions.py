"""Who may see and do what on the status page.

With `http.token` set, everything on the page is for those who carry it or have signed in with it. Without one, health
is for everybody who reaches the page; assets, and trying an image, are for those on this machine; nobody may act.

Signing in gives a cookie with a random number, never the token, that scripts cannot read and that no other site's
request carries. Cookies do not tell ports apart, so a second service on this host is "the same site": what changes
anything must besides come from this very page, by the browser's own word and with a proof that only the page holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from worker.http.bearer_token import admitted

SIGNED_IN_FOR_S = 12 * 3600.0
PROOF_HEADER = "x-autotag-proof"

_MOST_SESSIONS = 32
_WRONG_TOKEN_COSTS_S = 1.0
_MOST_AT_THE_DOOR = 4


@dataclass(frozen=True, slots=True)
class Requester:
    """One who asks. `session`: of a browser that has signed in. `bearer`: a program that carries the token."""

    address: str
    enters: bool
    sees_assets: bool
    may_act: bool
    session: str | None = None
    bearer: bool = False

    @property
    def key(self) -> str:
        """Tells visitors apart, as far as that goes."""
        return self.session or self.address


class Sessions:
    """Knows who has signed in. Forgets it at the end, as does `autotag run`."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._at_the_door = 0

    @property
    def has_token(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    def requester(self, request: Request) -> Requester:
        """Who asks."""
        address = request.client.host if request.client else ""
        if self._token is None:
            return Requester(address, enters=True, sees_assets=_is_this_machine(address), may_act=False)
        if admitted(request):
            return Requester(address, enters=True, sees_assets=True, may_act=True, bearer=True)
        session = request.cookies.get(_cookie_name(request), "")
        if self._knows(session):
            return Requester(address, enters=True, sees_assets=True, may_act=True, session=session)
        return Requester(address, enters=False, sees_assets=False, may_act=False)

    def refuses_host(self, request: Request) -> bool:
        """Whether a name that the page was asked for under might be a stranger's, pointed at this machine.

        Without a token a browser here is all it takes to see assets, so another site must not be able to pose as this
        one. It needs a name of its own for that: an address, or `localhost`, cannot be pointed anywhere else.
        """
        if self._token is not None:
            return False
        host = _host(request.headers.get("host", ""))
        return not (host == "localhost" or host.endswith(".localhost") or _is_address(host))

    # ── signing in and out ───────────────────────────────────────────────────────────────────────────────────────────

    async def sign_in(self, token: str, request: Request, response: Response) -> bool:
        """Let in who has the token. A wrong one costs a second, and few can try at the same time."""
        if self._token is None or self._at_the_door >= _MOST_AT_THE_DOOR:
            return False
        self._at_the_door += 1
        try:
            if not hmac.compare_digest(token.encode(), self._token.get_secret_value().encode()):
                await asyncio.sleep(_WRONG_TOKEN_COSTS_S)
                return False
        finally:
            self._at_the_door -= 1
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = time.monotonic() + SIGNED_IN_FOR_S
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        _set_cookie(request, response, session, round(SIGNED_IN_FOR_S))
        return True

    def sign_out(self, request: Request, response: Response) -> None:
        """Forget a session."""
        self._sessions.pop(_digest(request.cookies.get(_cookie_name(request), "")), None)
        _set_cookie(request, response, "", 0)

    def _knows(self, session: str) -> bool:
        expires_s = self._sessions.get(_digest(session))
        return expires_s is not None and time.monotonic() < expires_s

    # ── what changes anything ────────────────────────────────────────────────────────────────────────────────────────

    def proof(self, requester: Requester) -> str | None:
        """What this requester's forms carry; None for those who may not act from a page."""
        if requester.session is None:
            return None
        return hmac.new(requester.session.encode(), b"autotag form", hashlib.sha256).hexdigest()

    def why_not(self, request: Request, requester: Requester, proof: str) -> str | None:
        """Why a request that would change something is refused; None when it may."""
        if not self.has_token:
            return "Set http.token and sign in to act from here; on the machine the command line does the same"
        if not requester.may_act:
            return "Sign in first"
        if requester.bearer:  # no browser adds this header by itself
            return None
        if is_from_elsewhere(request):
            return "The request did not come from this page"
        expected = self.proof(requester)
        if expected is None or not hmac.compare_digest(proof.encode(), expected.encode()):
            return "The page is out of date; load it again"
        return None


def is_from_elsewhere(request: Request) -> bool:
    """Whether another site, or nobody can tell who, has made the browser send this.

    `Sec-Fetch-Site` is the browser's own word, and comes wherever the page is on a trustworthy address. Elsewhere, and
    from older browsers, there is `Origin`, which must name the host that was asked.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("origin", "")
    return urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower() or not origin


def _cookie_name(request: Request) -> str:
    server = request.scope.get("server")
    name = f"autotag_{server[1] if server else 0}"
    return f"__Host-{name}" if request.url.scheme == "https" else name


def _set_cookie(request: Request, response: Response, value: str, lasts_s: int) -> None:
    response.set_cookie(
        _cookie_name(request),
        value,
        max_age=lasts_s,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _digest(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()


def _host(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    return (urlsplit(f"//{header}").hostname or "") if header.isascii() else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_this_machine(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
