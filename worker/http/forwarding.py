"""Requests that a reverse proxy passes on: from whom they come, how they reached it, and whom it has signed in.

Proxies say so in headers, and any client can write those. They are believed only of a request whose connection comes
from one of `http.trusted_proxies`. That others have them is still worth knowing: without a token, everybody behind a
proxy on this machine would be taken for somebody on this machine.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from worker.settings import HttpSettings

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_log = structlog.get_logger(__name__)

_SIGNS = frozenset(
    {
        b"forwarded",  # RFC 7239
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-original-forwarded-for",
        b"x-envoy-external-address",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
    }
)
_SIGN_PREFIX = b"x-forwarded-"
_LONGEST_NAME = 200
"""Characters of a person's name; longer ones are nobody's."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """How a request came here.

    `sign`: what shows that a proxy passed it on, for people; None where nothing does. `proxy`: the address that the
    connection comes from. `trusted`: it is one of `http.trusted_proxies`. `person`: whom a trusted one has signed in.
    """

    sign: str | None
    proxy: str
    trusted: bool
    person: str | None = None


_DIRECT = Forwarding(None, "", trusted=False)


class ForwardingMiddleware:
    """Notes how each request came here, and takes client, scheme and host from a trusted proxy's headers.

    The first of several values of `X-Forwarded-Host` is the name that the browser asked for. `X-Forwarded-For` is read
    from its end, as far as its addresses are trusted proxies themselves.
    """

    def __init__(self, app: ASGIApp, http: HttpSettings) -> None:
        self._app = app
        self._user_header = (http.sso.user_header or "").lower().encode()
        self._networks = tuple(ipaddress.ip_network(each) for each in http.trusted_proxies)
        self._rewritten = ProxyHeadersMiddleware(
            cast("ASGI3Application", self._only_with_an_address), [str(each) for each in self._networks]
        )
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer = _unmapped(scope["client"][0]) if scope.get("client") else ""
        trusted = self._is_trusted(peer)
        # A trusted proxy need not say that it is one: what comes from its address is taken for what it passes on.
        sign = _sign_of(scope) or (f"{peer} is one of http.trusted_proxies" if trusted else None)
        person = self._person(scope) if trusted else None
        if trusted:
            scope = {**scope, "client": (peer, scope["client"][1]), "headers": _asked_host(scope["headers"])}
        elif sign is not None:
            self._warn(sign, peer)
        scope.setdefault("state", {})["forwarding"] = Forwarding(sign, peer, trusted, person)
        if trusted:
            await self._rewritten(cast("dict", scope), receive, send)  # type: ignore[arg-type, type-arg]
        else:
            await self._app(scope, receive, send)

    async def _only_with_an_address(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A client that is no address (`unknown`, RFC 7239's `_hidden`) is known by its proxy's."""
        if not is_address(scope["client"][0]):
            scope["client"] = (forwarding_of(HTTPConnection(scope)).proxy, 0)
        await self._app(scope, receive, send)

    def _is_trusted(self, peer: str) -> bool:
        if not self._networks or not is_address(peer):
            return False
        address = ipaddress.ip_address(peer)
        return any(address in network for network in self._networks)

    def _person(self, scope: Scope) -> str | None:
        """The one value of `http.sso.user_header`; two are none, since one of them may be the client's own."""
        values = [value for name, value in scope["headers"] if name == self._user_header and self._user_header]
        if len(values) != 1:
            return None
        try:
            person = values[0].decode().strip()
        except UnicodeDecodeError:
            return None
        return person if 0 < len(person) <= _LONGEST_NAME and person.isprintable() else None

    def _warn(self, sign: str, peer: str) -> None:
        if not self._warned:  # once: anybody can write a header
            self._warned = True
            _log.info("a request came by way of a proxy that is not in `http.trusted_proxies`", sign=sign, address=peer)


def forwarding_of(request: HTTPConnection) -> Forwarding:
    """How the request came here."""
    found: Forwarding = request.scope.get("state", {}).get("forwarding", _DIRECT)
    return found


def is_loopback(address: str) -> bool:
    """Whether it is an address of this machine itself."""
    return is_address(address) and ipaddress.ip_address(_unmapped(address)).is_loopback


def _sign_of(scope: Scope) -> str | None:
    for name, _ in scope["headers"]:
        if name in _SIGNS or name.startswith(_SIGN_PREFIX):
            return f"the header {name.decode('latin-1').title()}"
    # Browsers have not spoken it for twenty years; nginx does with what it passes on, unless configured otherwise.
    return "HTTP/1.0" if scope.get("http_version") == "1.0" else None


def _asked_host(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with the host that the browser asked for, where the proxy asks by another one."""
    asked = next((value for name, value in headers if name == b"x-forwarded-host"), b"").partition(b",")[0].strip()
    if not asked:
        return headers
    return [*((name, value) for name, value in headers if name != b"host"), (b"host", asked)]


def is_address(text: str) -> bool:
    """Whether it is an address of IPv4 or IPv6, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _unmapped(address: str) -> str:
    """An IPv4 address that a socket for both families shows as IPv6, as IPv4."""
    if not is_address(address):
        return address
    mapped = getattr(ipaddress.ip_address(address), "ipv4_mapped", None)
    return str(mapped) if mapped is not None else address
