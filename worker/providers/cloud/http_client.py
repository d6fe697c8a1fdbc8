"""HTTP requests to a service that cannot leak the key.

Built on httpcore, the engine of httpx, for the reasons given in worker/sources/url.py, and one more: exceptions of
httpx reference the request and so the header with the key. Redirects are returned like any other response: a key must
not follow one to another host.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import certifi
import httpcore
from pydantic import SecretStr

from worker.errors import AutotagError, CannotBeDone, Misconfigured, exhausted
from worker.operations.certificates import distrust
from worker.operations.printable import printable
from worker.providers.cloud.errors import (
    CONNECTION_LOST,
    GARBLED_ANSWER,
    TIMED_OUT,
    UNREACHABLE,
    CallNotMade,
    ServiceFailed,
)
from worker.settings import CloudCallsSettings
from worker.sources.blocking import BlockingCalls, NoThreadFree
from worker.sources.network import CheckedNetwork, Resolver, system_resolver
from worker.sources.proxy import ProxyFailed, Route, hint

_MAXIMUM_RESPONSE_BYTES = 4 * 1024 * 1024
_MAXIMUM_QUOTE_LENGTH = 300
_MAXIMUM_CONCURRENT_LOOKUPS = 32
_LOOKUP_POLL_S = 0.05
_KEEPALIVE_S = 15.0


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """The header that authenticates a request: its name, and the key as its value."""

    name: str
    value: SecretStr

    def redact(self, text: str) -> str:
        """A service's text for logs and results: on one line, at most 300 characters, any copy of the key replaced."""
        plain = " ".join(text.replace(self.value.get_secret_value(), "[key]").split())
        return printable(plain, maximum=_MAXIMUM_QUOTE_LENGTH)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response of any status, with its whole body. Header names are in lower case; values have the key redacted."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any] | None:
        """The body as a JSON object, or None if it is anything else."""
        try:
            tree = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return tree if isinstance(tree, dict) else None

    @property
    def content_type(self) -> str:
        """The media type, without parameters; for messages."""
        return self.headers.get("content-type", "").partition(";")[0].strip()[:100] or "no content type"


class HttpClient:
    """A connection pool to one service, with HTTP/2 where the service supports it, shared by all instances.

    Connections are made to checked addresses only. `service` is the service's name in messages for people.
    """

    def __init__(self, service: str, settings: CloudCallsSettings) -> None:
        self._service = service
        self._connect_timeout_s = settings.connect_timeout_s
        self._proxy = settings.proxy
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_ssl_context(settings),
            max_connections=None,  # calls are limited before they come here, fairly: see places.py
            max_keepalive_connections=settings.maximum_connections,
            keepalive_expiry=_KEEPALIVE_S,
            http2=True,
            network_backend=CheckedNetwork(
                _patient_resolver(BlockingCalls(_MAXIMUM_CONCURRENT_LOOKUPS)),
                allow_private=settings.allow_private_endpoints,
                route=Route.of(settings.proxy, settings.no_proxy, by_name=True),
            ),
        )

    async def post(self, url: str, key: KeyHeader, body: bytes, *, content_type: str, timeout_s: float) -> HttpResponse:
        """POST, and read the whole response.

        Raises ServiceFailed, Misconfigured for an address that is not allowed, or ResourceExhausted.

        `timeout_s` bounds each phase, and all of them together: a service that trickles bytes times out too.
        """
        connect_s = min(self._connect_timeout_s, timeout_s)
        phases = {"connect": connect_s, "pool": timeout_s, "read": timeout_s, "write": timeout_s}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._pool.stream(
                    "POST",
                    url,
                    headers={
                        "Accept": "application/json",
                        "Accept-Encoding": "identity",
                        "Content-Type": content_type,
                        "User-Agent": "autotag",
                        key.name: key.value.get_secret_value(),
                    },
                    content=body,
                    extensions={"timeout": phases},
                ) as response,
            ):
                headers = {
                    name.decode("latin-1").lower(): key.redact(value.decode("latin-1"))
                    for name, value in response.headers
                }
                return HttpResponse(response.status, headers, await self._read(response))
        except (TimeoutError, OSError, httpcore.TimeoutException, httpcore.NetworkError) as error:
            failure = self._translate(error, timeout_s)
        except ProxyFailed as error:
            failure = CallNotMade(
                f"{self._service} was not called: {error}", reason=error.reason, after_s=error.after_s
            )
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            failure = ServiceFailed(
                f"{self._service} broke the connection off ({type(error).__name__}: {error})", reason=CONNECTION_LOST
            )
        except CannotBeDone as error:  # raised by CheckedNetwork for an address that it refuses to connect to
            failure = Misconfigured(
                f"the endpoint of {self._service} is not on the public network, {_refused_address(error)}; "
                "set `cloud.allow_private_endpoints` if it should be",
                reason="endpoint_not_public",
            )
        raise failure  # outside the handlers, so that it has no reference to httpcore's exception

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _read(self, response: httpcore.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > _MAXIMUM_RESPONSE_BYTES:
                raise ServiceFailed(
                    f"{self._service} answered more than {_MAXIMUM_RESPONSE_BYTES} bytes", reason=GARBLED_ANSWER
                )
        return bytes(body)

    def _translate(self, error: Exception, timeout_s: float) -> AutotagError:
        if (shortage := exhausted(error)) is not None:
            return shortage
        message = str(error) or type(error).__name__
        if (distrusted := distrust(error, address="the endpoint", authority="`cloud.ca_file`")) is not None:
            return ServiceFailed(f"{self._service} could not be reached: {distrusted}", reason=UNREACHABLE)
        way_out = hint("cloud.proxy", self._proxy)
        match error:
            case httpcore.ConnectTimeout() | httpcore.PoolTimeout():
                return ServiceFailed(f"{self._service}: no connection in time ({message}){way_out}", reason=UNREACHABLE)
            case TimeoutError() | httpcore.TimeoutException():
                return ServiceFailed(f"{self._service} gave no answer within {timeout_s:g} s", reason=TIMED_OUT)
            case httpcore.ConnectError() | ssl.SSLError():
                return ServiceFailed(f"{self._service} could not be reached: {message}{way_out}", reason=UNREACHABLE)
            case _:
                return ServiceFailed(f"{self._service} broke the connection off ({message})", reason=CONNECTION_LOST)


def _patient_resolver(calls: BlockingCalls) -> Resolver:
    """A resolver that waits for a thread: that all are taken is no failure of the service whose name is looked up."""
    system = system_resolver(calls)

    async def resolve(host: str, port: int, timeout_s: float) -> list[str]:
        try:
            return [str(ip_address(host.strip("[]")))]
        except ValueError:
            pass  # a name
        deadline_s = time.monotonic() + timeout_s / 2
        while True:
            try:
                return await system(host, port, timeout_s)
            except NoThreadFree:
                if time.monotonic() > deadline_s:
                    break
            await asyncio.sleep(_LOOKUP_POLL_S)
        raise CallNotMade(f"too many names are being looked up to call {host}", reason="lookups_at_once")

    return resolve


def silence_http_libraries() -> None:
    """Keep requests and headers out of the log at every level: at DEBUG, hpack logs each header, keys included."""
    for name in ("httpx", "httpcore", "hpack", "h2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _ssl_context(settings: CloudCallsSettings) -> ssl.SSLContext:
    """Trusts the system's certificate authorities, certifi's (for minimal containers), and `cloud.ca_file`."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except OSError as error:
            raise Misconfigured(
                f"`cloud.ca_file` {settings.ca_file} can't be used: {error}", reason="ca_file_unusable"
            ) from error
    return context


def _refused_address(error: CannotBeDone) -> str:
    """The part of CheckedNetwork's message that names the address and why it is refused."""
    return str(error).partition(", which events")[0].removeprefix("the ")
