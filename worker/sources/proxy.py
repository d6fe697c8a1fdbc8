"""Connections through a forward proxy, where only that leads out of the network.

Every connection is a tunnel (`CONNECT`, RFC 9110 section 9.3.6), also for `http://`: what is fetched through it does
not differ from what is fetched without, and TLS ends at the host. The environment's variables (`HTTPS_PROXY` and its
like) are not used: an image host or a cloud service is reached in the way that the settings say, and in no other. Where
that fails and such a variable is set, the error says so (`hint`).
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import certifi
import h11
import httpcore
from pydantic import SecretStr

from worker.errors import AutotagError, TryLater, exhausted
from worker.operations.certificates import distrust
from worker.sources.hosts import matches

_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
_READ_BYTES = 16 * 1024
_PORTS = {"http": 80, "https": 443}
_PAUSE_S = 10.0
_NOWHERE = "autotag.invalid"
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, ssl.SSLError, OSError)


class ProxyFailed(TryLater):
    """The way out is blocked for every host: neither the image, its host nor a service is at fault.

    `reason` is `proxy_unreachable`, `proxy_credentials_refused`, `proxy_refused` or `proxy_garbled`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason, after_s=_PAUSE_S, counted=False)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy. Written out, it is without its password."""

    scheme: str
    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    """The value of `Proxy-Authorization`."""

    @classmethod
    def of(cls, url: SecretStr) -> Proxy:
        """The proxy at a URL that the settings have accepted; user and password may be percent-encoded."""
        parts = urlsplit(url.get_secret_value())
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme], authorization)

    def __str__(self) -> str:
        return f"the proxy {self.scheme}://{_authority(self.host, self.port)}"

    async def connect(
        self,
        network: httpcore.AsyncNetworkBackend,
        host: str,
        port: int,
        timeout_s: float,
        options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to a host, or an address, by way of the proxy.

        Raises ProxyFailed where the proxy is at fault, httpcore.ConnectError where it could not reach the host, and
        ResourceExhausted without a descriptor for a socket. `timeout_s` bounds all steps together: a silent proxy is
        the proxy's fault, so its time ends here and not with the time for the host.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connect(network, host, port, timeout_s, options)
        except TimeoutError as error:
            raise self._unreachable(TimeoutError(f"no answer within {timeout_s:g} s")) from error

    async def _connect(
        self,
        network: httpcore.AsyncNetworkBackend,
        host: str,
        port: int,
        timeout_s: float,
        options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            stream = await network.connect_tcp(self.host, self.port, timeout_s, socket_options=options)
            if self.scheme == "https":
                stream = await stream.start_tls(_tls(), self.host, timeout_s)
        except _NETWORK_ERRORS as error:
            raise self._unreachable(error) from error
        try:
            response = await self._ask_for_tunnel(stream, _authority(host, port), timeout_s)
        except BaseException:
            await stream.aclose()
            raise
        if 200 <= response.status_code < 300:
            return stream
        await stream.aclose()
        raise self._refusal(response, host)

    async def check(self, timeout_s: float) -> None:
        """Ask for a tunnel to a host that does not exist. Raises ProxyFailed unless the proxy answers as one does."""
        try:
            stream = await self.connect(httpcore.AnyIOBackend(), _NOWHERE, 443, timeout_s)
        except httpcore.ConnectError:
            return
        except ProxyFailed as error:
            if error.reason != "proxy_refused":
                raise
            return
        await stream.aclose()

    async def _ask_for_tunnel(self, stream: httpcore.AsyncNetworkStream, target: str, timeout_s: float) -> h11.Response:
        headers = [("Host", target), ("User-Agent", "autotag")]
        if self.authorization is not None:
            headers.append(("Proxy-Authorization", self.authorization))
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ_BYTES)
        try:
            request = connection.send(h11.Request(method="CONNECT", target=target, headers=headers))
            await stream.write(request or b"", timeout_s)
            while (event := connection.next_event()) is h11.NEED_DATA or isinstance(event, h11.InformationalResponse):
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.read(_READ_BYTES, timeout_s))
        except h11.ProtocolError:  # its text quotes the answer, which may be an echo of the header with our password
            raise ProxyFailed(f"{self} gave no HTTP answer", reason="proxy_garbled") from None
        except _NETWORK_ERRORS as error:
            raise self._unreachable(error) from error
        if not isinstance(event, h11.Response):
            raise ProxyFailed(f"{self} ended the connection without an answer", reason="proxy_garbled")
        if event.status_code < 300 and connection.trailing_data[0]:  # a host never speaks first
            raise ProxyFailed(f"{self} sent more than its answer", reason="proxy_garbled")
        return event

    def _refusal(self, response: h11.Response, host: str) -> Exception:
        answer = f"{self} answered {response.status_code}"
        if response.status_code == 407:
            what = "does not accept the user and password" if self.authorization else "asks for a user and a password"
            return ProxyFailed(f"{answer}: it {what} of the setting `proxy`", reason="proxy_credentials_refused")
        if response.status_code >= 500:
            return httpcore.ConnectError(f"{answer}: it could not reach {host}")
        return ProxyFailed(f"{answer}: it does not let this service connect to {host}", reason="proxy_refused")

    def _unreachable(self, error: Exception) -> AutotagError:
        if (shortage := exhausted(error)) is not None:
            return shortage
        why = distrust(error, address="the setting `proxy`", authority="the file of `SSL_CERT_FILE`")
        why = why or f"{str(error) or type(error).__name__}; is the setting `proxy` right?"
        return ProxyFailed(f"{self} cannot be reached: {why}", reason="proxy_unreachable")


@dataclass(frozen=True, slots=True)
class Route:
    """How hosts are reached: through `proxy`, except those of `direct`, which are patterns of names.

    `by_name`: the proxy looks the names up, so that only what is given as an address can be checked here.
    """

    proxy: Proxy | None = None
    direct: tuple[str, ...] = ()
    by_name: bool = False

    @classmethod
    def of(cls, proxy: SecretStr | None, direct: tuple[str, ...], *, by_name: bool) -> Route:
        """The way that the settings name."""
        return cls(None if proxy is None else Proxy.of(proxy), direct, by_name)

    def proxy_for(self, host: str) -> Proxy | None:
        """The proxy for a host; None where it is reached directly."""
        name = host.lower().rstrip(".")
        return None if any(matches(name, pattern) for pattern in self.direct) else self.proxy


DIRECT = Route()


def unused_variable() -> str | None:
    """The variable of the environment that names a proxy, if there is one. It is not used."""
    return next((name for name in _VARIABLES if os.environ.get(name)), None)


def hint(setting: str, proxy: SecretStr | None) -> str:
    """What to add to the error of a host that could not be reached, where a proxy is named that is not used."""
    found = unused_variable()
    if proxy is not None or found is None:
        return ""
    return f" ({found} is set and not used: where only a proxy leads out, name it in `{setting}`)"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """For the connection to the proxy itself: the system's authorities, and certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
