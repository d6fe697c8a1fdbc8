"""One HTTP call to a service, and nothing of it that could give a key away.

Built on httpcore, the engine of httpx, for the reasons that worker/sources/url.py gives, and one more: what httpx
raises holds on to the request and so to the header with the key. Redirects are answers like any other: a key must not
follow one to another host.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from dataclasses import dataclass
from typing import Any

import certifi
import httpcore
from pydantic import SecretStr

from worker.errors import AutotagError, CannotBeDone, Misconfigured
from worker.providers.cloud.faults import CONNECTION_LOST, GARBLED_ANSWER, TIMED_OUT, UNREACHABLE, ServiceFailed
from worker.settings import CloudCallsSettings
from worker.sources.blocking import BlockingCalls
from worker.sources.network import CheckedNetwork, system_resolver

_LARGEST_ANSWER_BYTES = 4 * 1024 * 1024
_LONGEST_QUOTE = 300
_NAMES_LOOKED_UP_AT_ONCE = 8
_KEEPALIVE_S = 15.0


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """A key and the header that a service reads it from."""

    header: str
    key: SecretStr

    def without_key(self, text: str) -> str:
        """What a service said, short, on one line, and without the key should it have been repeated."""
        plain = " ".join(text.replace(self.key.get_secret_value(), "[key]").split())
        printable = "".join(character for character in plain if character.isprintable())
        return printable if len(printable) <= _LONGEST_QUOTE else printable[:_LONGEST_QUOTE] + "…"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back: any status, the whole body. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def tree(self) -> dict[str, Any] | None:
        """The body as a JSON object, or None when it is none."""
        try:
            tree = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return tree if isinstance(tree, dict) else None

    @property
    def content_type(self) -> str:
        """Its media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()[:100] or "no content type"


class HttpClient:
    """A pool of connections to one service, HTTP/2 where it is spoken, shared by all instances.

    Connections are made to checked addresses only. `service` names the service to people.
    """

    def __init__(self, service: str, settings: CloudCallsSettings) -> None:
        self._service = service
        self._connect_timeout_s = settings.connect_timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_trusted(settings),
            max_connections=settings.maximum_connections,
            keepalive_expiry=_KEEPALIVE_S,
            http2=True,
            network_backend=CheckedNetwork(
                system_resolver(BlockingCalls(_NAMES_LOOKED_UP_AT_ONCE)), allow_private=settings.allow_private_endpoints
            ),
        )

    async def post(self, url: str, key: KeyHeader, body: bytes, *, content_type: str, timeout_s: float) -> HttpAnswer:
        """POST, and read the answer whole. Raises ServiceFailed, or Misconfigured for an address that is not allowed.

        `timeout_s` bounds each phase, and all of them together: a service that sends a byte now and then is late too.
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
                        key.header: key.key.get_secret_value(),
                    },
                    content=body,
                    extensions={"timeout": phases},
                ) as response,
            ):
                headers = {
                    name.decode("latin-1").lower(): key.without_key(value.decode("latin-1"))
                    for name, value in response.headers
                }
                return HttpAnswer(response.status, headers, await self._read(response))
        except (TimeoutError, OSError, httpcore.TimeoutException, httpcore.NetworkError) as error:
            trouble = self._translated(error, timeout_s)
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            trouble = ServiceFailed(
                f"{self._service} broke the connection off ({type(error).__name__}: {error})", reason=CONNECTION_LOST
            )
        except CannotBeDone as error:  # the checked network's word for an address it does not connect to
            trouble = Misconfigured(
                f"the endpoint of {self._service} is not on the public network, {_address_of(error)}; "
                "set `cloud.allow_private_endpoints` if it should be",
                reason="endpoint_not_public",
            )
        raise trouble  # outside the handlers, so that it does not hang on to what httpcore raised

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _read(self, response: httpcore.Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_stream():
            body += piece
            if len(body) > _LARGEST_ANSWER_BYTES:
                raise ServiceFailed(
                    f"{self._service} answered more than {_LARGEST_ANSWER_BYTES} bytes", reason=GARBLED_ANSWER
                )
        return bytes(body)

    def _translated(self, error: Exception, timeout_s: float) -> AutotagError:
        said = str(error) or type(error).__name__
        match error:
            case httpcore.ConnectTimeout() | httpcore.PoolTimeout():
                return ServiceFailed(f"{self._service}: no connection in time ({said})", reason=UNREACHABLE)
            case TimeoutError() | httpcore.TimeoutException():
                return ServiceFailed(f"{self._service} gave no answer within {timeout_s:g} s", reason=TIMED_OUT)
            case httpcore.ConnectError() | ssl.SSLError():
                return ServiceFailed(f"{self._service} could not be reached: {said}", reason=UNREACHABLE)
            case _:
                return ServiceFailed(f"{self._service} broke the connection off ({said})", reason=CONNECTION_LOST)


def quiet_http_libraries() -> None:
    """Keep requests and headers out of the log at every level: hpack writes each header, keys too, at DEBUG."""
    for name in ("httpx", "httpcore", "hpack", "h2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _trusted(settings: CloudCallsSettings) -> ssl.SSLContext:
    """The system's certificate authorities, those of certifi for bare containers, and the operator's own."""
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


def _address_of(error: CannotBeDone) -> str:
    """The part of its message that names the address and why it is closed."""
    return str(error).partition(", which events")[0].removeprefix("the ")
