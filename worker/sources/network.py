"""The network backend of httpcore that connects to checked addresses only.

It resolves the name itself and connects to exactly the address that it has checked, so that a name server that answers
differently the second time (DNS rebinding) gains nothing. TLS still verifies the host's name.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable

import httpcore

from worker.errors import CannotBeDone, exhausted
from worker.sources.addresses import why_refused
from worker.sources.blocking import BlockingCalls
from worker.sources.proxy import DIRECT, Proxy, ProxyFailed, Route

_MINIMUM_CONNECT_S = 0.001
_DEFAULT_TIMEOUT_S = 60.0
"""For callers that set no timeout."""

Resolver = Callable[[str, int, float], Awaitable[list[str]]]
"""From host, port and timeout in seconds to at least one numeric address. Raises OSError."""


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """httpcore's network backend without the addresses that `why_refused` refuses.

    Where the way out is a proxy, that is asked for a connection to the address that was checked, not to the name: it
    must not look the name up again. Unless it alone can (`Route.by_name`): then what the name leads to is its affair.
    """

    def __init__(self, resolve: Resolver, *, allow_private: bool, route: Route = DIRECT) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._route = route
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first allowed address that answers.

        Raises CannotBeDone when all of them are refused, ResourceExhausted without a descriptor for a socket, and
        ProxyFailed when the proxy is at fault.
        """
        limit_s = timeout or _DEFAULT_TIMEOUT_S
        started_s = time.monotonic()
        proxy = self._route.proxy_for(host)
        try:
            if proxy is not None and self._route.by_name and not _is_address(host):
                return await proxy.connect(self._network, host, port, limit_s, socket_options)
            async with asyncio.timeout(limit_s):
                addresses = await self._addresses_through(proxy, host, port, limit_s)
            left_s = max(_MINIMUM_CONNECT_S, limit_s - (time.monotonic() - started_s))
            return await self._connect_to_first(addresses, port, left_s / len(addresses), socket_options, proxy)
        except (TimeoutError, httpcore.ConnectTimeout) as error:
            raise httpcore.ConnectTimeout(f"no connection within {limit_s:g} s") from error
        except (OSError, httpcore.ConnectError) as error:
            if (shortage := exhausted(error)) is not None:
                raise shortage from error
            if isinstance(error, httpcore.ConnectError):
                raise
            raise httpcore.ConnectError(str(error)) from error

    async def _addresses_through(self, proxy: Proxy | None, host: str, port: int, timeout_s: float) -> list[str]:
        try:
            return await self._allowed_addresses(host, port, timeout_s)
        except socket.gaierror as error:
            if proxy is None:
                raise
            what_may_help = "where only the proxy can look names up, set `sources.proxy_resolves_names`"
            raise httpcore.ConnectError(f"{error} ({what_may_help})") from error

    async def _allowed_addresses(self, host: str, port: int, timeout_s: float) -> list[str]:
        addresses = await self._resolve(host, port, timeout_s)
        refusals = {address: why_refused(address, allow_private=self._allow_private) for address in addresses}
        allowed = [address for address, why in refusals.items() if why is None]
        if not allowed:
            address, why = next(iter(refusals.items()))
            raise CannotBeDone(
                f"the host {host} leads to {address}, {why}, which events may not reach; "
                "set `sources.url_allow_private_addresses` if they should",
                reason="url_address_refused",
            )
        return allowed

    async def _connect_to_first(
        self,
        addresses: list[str],
        port: int,
        timeout_each_s: float,
        options: Iterable[httpcore.SOCKET_OPTION] | None,
        proxy: Proxy | None,
    ) -> httpcore.AsyncNetworkStream:
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port, timeout_each_s, options, proxy)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # a host may be reachable at only one of its addresses
            except ProxyFailed as error:
                if error.reason != "proxy_refused":  # a proxy may let us go to addresses of one family only
                    raise
        return await self._connect(addresses[-1], port, timeout_each_s, options, proxy)

    async def _connect(
        self,
        address: str,
        port: int,
        timeout_s: float,
        options: Iterable[httpcore.SOCKET_OPTION] | None,
        proxy: Proxy | None,
    ) -> httpcore.AsyncNetworkStream:
        if proxy is not None:
            return await proxy.connect(self._network, address, port, timeout_s, options)
        return await self._network.connect_tcp(address, port, timeout_s, socket_options=options)


def _is_address(host: str) -> bool:
    """Whether the host is written as an address, in any form that resolvers take: `127.1` and `2130706433` too."""
    try:
        socket.getaddrinfo(host.strip("[]"), None, flags=socket.AI_NUMERICHOST)  # asks no name server
    except (OSError, UnicodeError):
        return False
    return True


def system_resolver(calls: BlockingCalls) -> Resolver:
    """A resolver that asks the system's, in a thread of `calls`; each host has its share of them."""

    async def resolve(host: str, port: int, timeout_s: float) -> list[str]:
        def getaddrinfo() -> list[str]:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except UnicodeError as error:  # a label of more than 63 characters
                raise OSError(f"no valid host name: {error}") from error
            except OSError:
                # The resolver does not report that it had no descriptor for its socket, only that it found nothing, or
                # what one of its modules says of that (EBUSY).
                os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                raise
            return list(dict.fromkeys(str(address[0]) for *_, address in found))

        return await calls.call(getaddrinfo, timeout_s=timeout_s, discard=lambda _: None, holder=host)

    return resolve
