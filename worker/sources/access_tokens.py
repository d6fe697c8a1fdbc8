"""Access tokens by OAuth2's client credentials (RFC 6749 section 4.4), kept for as long as they are good.

One request is made for all who wait. A token is renewed when four fifths of its time are over: while that fails, the
old one is used to its end. Redirects of the endpoint are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import httpcore
import httpx

from worker.errors import TryLater
from worker.operations.certificates import distrust
from worker.settings import CredentialSettings, SourcesSettings
from worker.sources.breaker import SourceBreakers, SourceFailed
from worker.sources.network import CheckedNetwork, Resolver
from worker.sources.proxy import Route, hint
from worker.sources.retry_after import retry_after_s

_RENEWED_AT: Final = 0.8
_LIFE_S: Final = 600.0
"""Of a token whose endpoint names none."""
_LONGEST_LIFE_S: Final = 86_400.0
_MAXIMUM_BYTES: Final = 64 * 1024
_MAXIMUM_TOKENS: Final = 1000
_FOR_ALL: Final = "all instances"
_TRANSIENT: Final = frozenset({408, 425, 429})
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, and until when it is good; both times are monotonic."""

    value: str = field(repr=False)
    renew_at_s: float
    ends_at_s: float


class AccessTokens:
    """The tokens of all credentials. `now_s` is a monotonic clock."""

    def __init__(
        self,
        resolve: Resolver,
        breakers: SourceBreakers,
        tls: Callable[[], ssl.SSLContext],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._breakers = breakers
        self._tls = tls
        self._now_s = now_s
        self._tokens: OrderedDict[CredentialSettings, AccessToken] = OrderedDict()
        self._requests: dict[CredentialSettings, asyncio.Task[AccessToken]] = {}

    async def get(self, credential: CredentialSettings, settings: SourcesSettings) -> AccessToken:
        """A token that is good now. Raises TryLater where there is none: SourceFailed if asking again may help."""
        kept = self._tokens.get(credential)
        if kept is not None and self._now_s() < kept.renew_at_s:
            return kept
        try:
            return await asyncio.shield(self._request(credential, settings))
        except TryLater:
            if kept is not None and self._now_s() < kept.ends_at_s:
                return kept
            raise

    def forget(self, credential: CredentialSettings, token: AccessToken) -> None:
        """This token was refused. A newer one, that another has got meanwhile, is kept."""
        if self._tokens.get(credential) is token:
            del self._tokens[credential]

    def close(self) -> None:
        """End the requests that are under way."""
        for request in self._requests.values():
            request.cancel()

    def _request(self, credential: CredentialSettings, settings: SourcesSettings) -> asyncio.Task[AccessToken]:
        """The request for a token that is under way, or a new one. Those who wait may go; it goes on for the others."""
        request = self._requests.get(credential)
        if request is None:
            request = asyncio.create_task(self._renew(credential, settings), name="access token")
            self._requests[credential] = request
            request.add_done_callback(lambda done: self._on_done(credential, done))
        return request

    def _on_done(self, credential: CredentialSettings, done: asyncio.Task[AccessToken]) -> None:
        del self._requests[credential]
        if not done.cancelled():
            done.exception()  # seen, also where nobody waits any more

    async def _renew(self, credential: CredentialSettings, settings: SourcesSettings) -> AccessToken:
        url = httpx.URL(credential.token_url or "")
        limit_s = settings.connect_timeout_s + settings.read_timeout_s

        async def ask() -> AccessToken:
            try:
                async with asyncio.timeout(limit_s):
                    return await self._ask(url, credential, settings)
            except TimeoutError as error:
                raise _unreachable(url, f"no answer within {limit_s:g} s") from error

        token = await self._breakers.of(_FOR_ALL, f"the token endpoint {url}").call(ask)
        self._tokens[credential] = token
        self._tokens.move_to_end(credential)
        if len(self._tokens) > _MAXIMUM_TOKENS:
            self._tokens.popitem(last=False)
        return token

    async def _ask(self, url: httpx.URL, credential: CredentialSettings, settings: SourcesSettings) -> AccessToken:
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers, form = _who_asks(credential)
        # The address is the operator's own, not an event's: it may be a private one.
        network = CheckedNetwork(
            self._resolve,
            allow_private=True,
            route=Route.of(settings.proxy, settings.no_proxy, by_name=settings.proxy_resolves_names),
        )
        timeout = {"connect": settings.connect_timeout_s, "read": settings.read_timeout_s}
        asked_at_s = self._now_s()
        try:
            async with (
                httpcore.AsyncHTTPConnection(
                    target.origin, ssl_context=self._tls(), network_backend=network
                ) as connection,
                connection.stream(
                    "POST", target, headers=headers, content=form, extensions={"timeout": timeout}
                ) as response,
            ):
                body = b""
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > _MAXIMUM_BYTES:
                        raise _garbled(url, "it is too long")
                answer_headers = {name.lower(): value for name, value in response.headers}
                return _token_in(url, response.status, answer_headers, body, asked_at_s)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
            why = distrust(error, address="`token_url`", authority="the file of `SSL_CERT_FILE`")
            why = why or (str(error) or type(error).__name__) + hint("sources.proxy", settings.proxy)
            raise _unreachable(url, why) from error


def _who_asks(credential: CredentialSettings) -> tuple[list[tuple[str, str]], bytes]:
    """The headers and the form of a request for a token."""
    secret = credential.client_secret.get_secret_value() if credential.client_secret else ""
    client = credential.client_id or ""
    form = {"grant_type": "client_credentials"}
    headers = [
        ("User-Agent", "autotag"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Connection", "close"),
    ]
    if credential.scope is not None:
        form["scope"] = credential.scope
    if credential.client_in == "body":
        form |= {"client_id": client, "client_secret": secret}
    else:  # RFC 6749 section 2.3.1: both are encoded as in a form before they are joined
        pair = f"{quote_plus(client)}:{quote_plus(secret)}"
        headers.append(("Authorization", "Basic " + base64.b64encode(pair.encode()).decode()))
    body = urlencode(form).encode()
    return [*headers, ("Content-Length", str(len(body)))], body


def _token_in(url: httpx.URL, status: int, headers: dict[bytes, bytes], body: bytes, asked_at_s: float) -> AccessToken:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    fields: dict[str, Any] = answer if isinstance(answer, dict) else {}
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _TRANSIENT:
        after_s = retry_after_s(headers.get(b"retry-after", b"").decode("latin-1") or None)
        raise _unreachable(url, f"it answered {status}", after_s)
    if status != httpx.codes.OK:
        code = fields.get("error")
        shown = f" ({code})" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""
        raise TryLater(
            f"the token endpoint {url} answered {status}{shown}: are `client_id`, `client_secret` and `scope` of "
            "`sources.credentials` right?",
            reason="token_refused",
        )
    value, kind = fields.get("access_token"), fields.get("token_type", "bearer")
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        raise _garbled(url, "it has no `access_token`")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _garbled(url, "the token is not of the type Bearer")
    life_s = _life_s(fields.get("expires_in"))
    return AccessToken(value, asked_at_s + _RENEWED_AT * life_s, asked_at_s + life_s)


def _life_s(expires_in: object) -> float:
    """How long a token is good, as some endpoints write it as a text."""
    try:
        life_s = float(expires_in) if isinstance(expires_in, int | float | str) else _LIFE_S
    except (ValueError, OverflowError):
        return _LIFE_S
    return min(life_s, _LONGEST_LIFE_S) if life_s > 0 else _LIFE_S


def _unreachable(url: httpx.URL, why: str, after_s: float = 0.0) -> SourceFailed:
    message = f"there is no access token: the token endpoint {url} cannot be used: {why}"
    return SourceFailed(message, reason="token_unreachable", after_s=after_s, at_once=not after_s)


def _garbled(url: httpx.URL, why: str) -> TryLater:
    return TryLater(f"the answer of the token endpoint {url} cannot be used: {why}", reason="token_garbled")
