"""HTTP requests to the system of one connection, with its credential; redirects are not followed.

Built on httpcore for the reasons given in worker/sources/url.py. Whatever is quoted of an answer is free of what was
sent to be let in.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import certifi
import httpcore
import httpx
from pydantic import SecretStr

from worker.connect.targets.base import TargetBusy, TargetRefused
from worker.errors import CannotBeDone, Misconfigured, TryLater, exhausted
from worker.operations.certificates import distrust
from worker.operations.printable import printable
from worker.settings import ConnectionSettings, SourcesSettings
from worker.sources.access_tokens import AccessTokens
from worker.sources.blocking import BlockingCalls, NoThreadFree
from worker.sources.breaker import SourceBreakers
from worker.sources.credentials import Credential, credential_for, credential_of
from worker.sources.network import CheckedNetwork, system_resolver
from worker.sources.proxy import ProxyFailed, Route, hint
from worker.sources.s3 import signed_by

_MAXIMUM_ANSWER_BYTES: Final = 8 * 1024 * 1024
_MAXIMUM_QUOTED: Final = 500
_KEEPALIVE_S: Final = 15.0
_CONNECTIONS: Final = 32
_LOOKUPS: Final = 2 * _CONNECTIONS
"""Threads that look names up, at most: one host may have half of them, and each connection that is opened needs one."""
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """An answer of any status. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    request: str
    """Method and path, for people: without the query, which may hold secrets."""
    quoted: str
    """The beginning of the body, on one line, without secrets."""

    @property
    def content_type(self) -> str:
        """The media type, in small letters, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def __str__(self) -> str:
        said = f": {self.quoted}" if self.quoted else ""
        return f"{self.request} was answered with {self.status}{said}"


class TargetClient:
    """A pool of connections to one system."""

    def __init__(self, name: str, connection: ConnectionSettings, sources: SourcesSettings) -> None:
        self._connection = connection
        self._sources = sources
        resolve = system_resolver(BlockingCalls(_LOOKUPS))
        tls = _tls(name, connection)
        breakers = SourceBreakers(sources.failures_to_open_circuit, sources.circuit_open_s)
        self._tokens = AccessTokens(resolve, breakers, lambda: tls)
        self._credential = _credential_of(connection, sources, self._tokens)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE_S,
            network_backend=CheckedNetwork(
                resolve,
                allow_private=connection.allow_private,
                route=Route.of(sources.proxy, sources.no_proxy, by_name=sources.proxy_resolves_names),
            ),
        )

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"", timeout_s: float
    ) -> TargetAnswer:
        """Make a request, once more with a new token where the first is refused, and read the whole answer.

        `timeout_s` bounds all of it. Raises TargetBusy, TargetRefused for a token that is not given, or
        ResourceExhausted.
        """
        parsed = httpx.URL(url)
        credential = self._credential(parsed)
        while True:
            sent = await self._sent(credential, parsed, method, body)
            asked = parsed if credential is None else credential.address(parsed)
            secrets = {*sent.values(), *(value for name, value in asked.params.items() if name not in parsed.params)}
            answer = await self._once(method, asked, {**(headers or {}), **sent}, secrets, body, timeout_s)
            again = answer.status == _UNAUTHORIZED and credential is not None and credential.is_renewed_after_refusal()
            if not again:
                return answer

    async def close(self) -> None:
        """Close all connections."""
        self._tokens.close()
        await self._pool.aclose()

    async def _sent(self, credential: Credential | None, url: httpx.URL, method: str, body: bytes) -> Mapping[str, str]:
        if credential is None:
            return {}
        try:
            return await credential.headers(url, method, body)
        except TryLater as error:
            if error.reason == "token_refused":
                raise TargetRefused(str(error), reason=error.reason) from None
            raise TargetBusy(str(error), reason=error.reason, after_s=error.after_s) from None

    async def _once(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        secrets: Collection[str],
        body: bytes,
        timeout_s: float,
    ) -> TargetAnswer:
        shown = printable(f"{method} {url.raw_path.decode('ascii').partition('?')[0]}", maximum=_MAXIMUM_QUOTED)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        all_headers: dict[bytes | str, bytes | str] = {"User-Agent": "autotag", "Accept-Encoding": "identity"}
        all_headers.update(headers.items())
        if body or method not in ("GET", "DELETE", "HEAD", "PROPFIND"):
            all_headers["Content-Length"] = str(len(body))
        phases = dict.fromkeys(("connect", "pool", "read", "write"), timeout_s)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._pool.stream(
                    method, target, headers=all_headers, content=body or None, extensions={"timeout": phases}
                ) as response,
            ):
                read = bytearray()
                async for chunk in response.aiter_stream():
                    read += chunk
                    if len(read) > _MAXIMUM_ANSWER_BYTES:
                        raise TargetBusy(
                            f"{shown} was answered with more than {_MAXIMUM_ANSWER_BYTES} bytes",
                            reason="answer_too_long",
                        )
                names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                return TargetAnswer(response.status, names, bytes(read), shown, self._quoted(read, secrets))
        except (
            TimeoutError,
            OSError,
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
        ) as error:
            failure = self._failure(error, shown, timeout_s)
        except NoThreadFree as error:
            failure = TargetBusy(f"{shown} was not sent: {error}", reason=error.reason)
        except ProxyFailed as error:
            failure = TargetBusy(f"{shown} was not sent: {error}", reason=error.reason, after_s=error.after_s)
        except CannotBeDone as error:  # an address that may not be connected to
            why = str(error).partition(", which events")[0]
            failure = TargetRefused(
                f"{shown} was not sent: {why}; set `allow_private` of the connection if it should be",
                reason="address_refused",
            )
        raise failure  # outside the handlers: httpcore's exceptions refer to the request, and so to the credential

    def _failure(self, error: Exception, shown: str, timeout_s: float) -> Exception:
        if (shortage := exhausted(error)) is not None:
            return shortage
        if (distrusted := distrust(error, address="`url`", authority="`ca_file` of the connection")) is not None:
            return TargetBusy(f"{shown} was not sent: {distrusted}", reason="not_trusted")
        way_out = hint("sources.proxy", self._sources.proxy)
        what = str(error) or type(error).__name__
        match error:
            case httpcore.ConnectError() | httpcore.ConnectTimeout() | httpcore.PoolTimeout() | ssl.SSLError():
                return TargetBusy(f"{shown} was not sent, no connection: {what}{way_out}", reason="unreachable")
            case TimeoutError() | httpcore.TimeoutException():
                return TargetBusy(f"{shown} was not answered within {timeout_s:g} s", reason="timed_out")
            case _:
                return TargetBusy(f"{shown}: the connection was broken off ({what})", reason="connection_lost")

    def _quoted(self, body: bytearray, sent: Collection[str]) -> str:
        text = bytes(body[: 4 * _MAXIMUM_QUOTED]).decode("utf-8", "replace")
        secrets = {
            secret.get_secret_value() for _, secret in self._connection.credential if isinstance(secret, SecretStr)
        }
        for value in sent:
            secrets |= {value, value.partition(" ")[2]}
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return printable(" ".join(text.split())[:_MAXIMUM_QUOTED])


def _credential_of(
    connection: ConnectionSettings, sources: SourcesSettings, tokens: AccessTokens
) -> Callable[[httpx.URL], Credential | None]:
    """Makes what is sent with one request: the keys of `s3`, the connection's own, or that of the origin."""
    if connection.s3 is not None:
        signature = signed_by(sources.s3[connection.s3])
        return lambda _url: signature
    own = connection.credential
    if own.kind is not None:
        return lambda _url: credential_of(own, sources, tokens)
    return lambda url: credential_for(url, connection.instance, sources, tokens)


def _tls(name: str, connection: ConnectionSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if connection.ca_file is not None:
        try:
            context.load_verify_locations(connection.ca_file)
        except OSError as error:
            raise Misconfigured(
                f"`connect.{name}.ca_file` {connection.ca_file} can't be used: {error}", reason="ca_file_unusable"
            ) from error
    return context
