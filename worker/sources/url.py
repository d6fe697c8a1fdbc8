"""Fetches images from http and https URLs on allowed hosts.

Built on httpcore, the transport of httpx, and not on `httpx.AsyncClient`: nothing between this module and the network
may follow a redirect, keep a cookie, use a proxy from the environment, decompress a body or log a URL with its secrets.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import certifi
import httpcore
import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from worker.errors import CannotBeDone, TryLater
from worker.images.content import Content, MemoryFile
from worker.messages import DEFAULT_INSTANCE
from worker.operations.certificates import distrust
from worker.settings import SourcesSettings
from worker.sources.breaker import SourceBreakers, SourceFailed
from worker.sources.hosts import host_of, matches
from worker.sources.network import CheckedNetwork, Resolver
from worker.sources.proxy import Route, hint

_HEADERS = [("User-Agent", "autotag"), ("Accept", "image/*, */*;q=0.1"), ("Accept-Encoding", "identity")]
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429})
_MAXIMUM_PAUSE_S = 2.0
_DEFAULTS = SourcesSettings()
_UNREACHABLE, _STATUS = "content_unreachable", "content_http_status"


class UrlFetcher:
    """Fetches URLs over pooled connections to checked addresses. `close` it when done.

    A host that does not answer is left alone for a while, by the circuits of `breakers`.
    """

    def __init__(
        self, resolve: Resolver, breakers: SourceBreakers | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._resolve = resolve
        self._breakers = breakers or SourceBreakers(_DEFAULTS.failures_to_open_circuit, _DEFAULTS.circuit_open_s)
        self._tls = tls
        # One pool for each set of these settings, because a reload can change them.
        self._pools: dict[tuple[object, ...], httpcore.AsyncConnectionPool] = {}

    async def open_url(self, url: str, settings: SourcesSettings, instance: str = DEFAULT_INSTANCE) -> Content:
        """The image at `url`, in memory; the caller closes it.

        Raises CannotBeDone for what must not be fetched, TryLater when the host did not deliver it within the timeout
        and the few immediate attempts, or, uncounted, while its circuit is open for this instance.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(1 + settings.retries) | stop_after_delay(settings.total_timeout_s),
            wait=wait_random_exponential(multiplier=0.2, max=_MAXIMUM_PAUSE_S),
            reraise=True,
        )
        deadline_s = asyncio.get_running_loop().time() + settings.total_timeout_s
        failed: SourceFailed | None = None

        async def fetch() -> Content:
            nonlocal failed
            try:
                return await self._fetch(url, settings, instance, deadline_s)
            except SourceFailed as error:
                failed = error
                raise

        try:
            return await retrying(fetch)
        except TryLater as error:
            if failed is not None and not error.counted:
                raise failed from None  # the circuit has opened meanwhile, but this URL was tried: that is an attempt
            raise

    async def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    async def _fetch(self, url: str, settings: SourcesSettings, instance: str, deadline_s: float) -> Content:
        """Follow redirects from the URL to an image; every hop is checked, and goes through its host's circuit."""
        hop = url
        for _ in range(1 + settings.maximum_redirects):
            checked = check_url(hop, settings)
            breaker = self._breakers.of(instance, checked.netloc.decode("ascii").lower())
            response = await breaker.call(partial(self._get_by, deadline_s, checked, settings))
            if isinstance(response, Content):
                return response
            hop = response
        raise CannotBeDone(
            f"{without_secrets(url)} was redirected more than {settings.maximum_redirects} times "
            "(`sources.maximum_redirects`)",
            reason="url_too_many_redirects",
        )

    async def _get_by(self, deadline_s: float, url: httpx.URL, settings: SourcesSettings) -> Content | str:
        """The same as `_get`, by a deadline on the loop's clock."""
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._get(url, settings)
        except TimeoutError as error:
            raise SourceFailed(
                f"{without_secrets(url)} was not fetched within {settings.total_timeout_s:g} s "
                "(`sources.total_timeout_s`)",
                reason=_UNREACHABLE,
                at_once=False,
            ) from error

    async def _get(self, url: httpx.URL, settings: SourcesSettings) -> Content | str:
        """The image at one URL, or the URL it redirects to."""
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        timeout = {
            "connect": settings.connect_timeout_s,
            "pool": settings.total_timeout_s,
            "read": settings.read_timeout_s,
            "write": settings.read_timeout_s,
        }
        pool = self._pool(settings)
        try:
            async with pool.stream("GET", target, headers=_HEADERS, extensions={"timeout": timeout}) as response:
                headers = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status in _REDIRECTS and "location" in headers:
                    return _join(url, _as_text(headers["location"].encode("latin-1")))
                _check_status(response.status, headers, url)
                _check_headers(headers, url, settings)
                return await _read(response.aiter_stream(), url, settings)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
            why = distrust(error, address="the event", authority="the file of `SSL_CERT_FILE`")
            why = why or (str(error) or type(error).__name__) + hint("sources.proxy", settings.proxy)
            raise SourceFailed(f"{without_secrets(url)} cannot be reached: {why}", reason=_UNREACHABLE) from error

    def _pool(self, settings: SourcesSettings) -> httpcore.AsyncConnectionPool:
        allow_private = settings.url_allow_private_addresses
        key = (allow_private, settings.proxy, settings.no_proxy, settings.proxy_resolves_names)
        if key not in self._pools:
            self._pools[key] = httpcore.AsyncConnectionPool(
                ssl_context=self._tls or _default_tls(),
                max_connections=None,  # `Sources` limits the number of fetches
                max_keepalive_connections=20,
                keepalive_expiry=15.0,
                network_backend=CheckedNetwork(
                    self._resolve,
                    allow_private=allow_private,
                    route=Route.of(settings.proxy, settings.no_proxy, by_name=settings.proxy_resolves_names),
                ),
            )
        return self._pools[key]


def check_url(text: str, settings: SourcesSettings) -> httpx.URL:
    """The parsed URL, if events may name it. Raises CannotBeDone with the reason if not, and nothing else."""
    try:
        return _checked(httpx.URL(text), settings)
    except CannotBeDone:
        raise
    except Exception as error:  # not only InvalidURL: names that no codec takes, halves of surrogates
        why = str(error) if isinstance(error, httpx.InvalidURL) else type(error).__name__
        raise CannotBeDone(f"{without_secrets(text)} is no valid url: {why}", reason="url_invalid") from error


def _checked(url: httpx.URL, settings: SourcesSettings) -> httpx.URL:
    schemes = ("https",) if settings.url_require_https else ("http", "https")
    if url.scheme not in schemes or not url.raw_host:
        raise CannotBeDone(
            f"{without_secrets(url)} is not an absolute url of the kind {' or '.join(schemes)}",
            reason="url_scheme_refused",
        )
    if url.port is not None and not 0 < url.port < 65536:
        raise CannotBeDone(f"{without_secrets(url)} has a port that no host has", reason="url_invalid")
    if url.userinfo:
        raise CannotBeDone(
            f"{without_secrets(url)} holds a user name or password, which have no place in events; publish it without",
            reason="url_userinfo_refused",
        )
    host = host_of(url)
    if not any(matches(host, allowed) for allowed in settings.url_allowed_hosts):
        raise CannotBeDone(
            f"{without_secrets(url)} is on the host {host}, which is not open to events; "
            "add it to `sources.url_allowed_hosts` in the settings if it should be",
            reason="url_host_not_allowed",
        )
    return url


def without_secrets(url: httpx.URL | str) -> str:
    """A URL to show: without user, password, query and fragment, any of which may contain a key."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))[:200]
    except Exception:  # noqa: BLE001 - `check_url` says what is wrong with it
        return "the url"


def _as_text(location: bytes) -> str:
    """A `Location` as the text of a URL.

    The standard wants ASCII. What servers send beside it is UTF-8; other bytes are quoted one by one, as browsers do.
    """
    try:
        return location.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in location)


def _join(url: httpx.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except Exception as error:
        why = str(error) if isinstance(error, httpx.InvalidURL) else type(error).__name__
        raise CannotBeDone(
            f"{without_secrets(url)} redirects to what is no url: {why}", reason="url_invalid"
        ) from error


def _check_status(status: int, headers: Mapping[str, str], url: httpx.URL) -> None:
    answer = f"{host_of(url)} answered {status} for {without_secrets(url)}"
    if status == httpx.codes.OK:
        return
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        raise TryLater(f"{answer}: the image is not there; has it been deleted?", reason="content_missing")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise TryLater(
            f"{answer}: access refused; the url must hold all that is needed to fetch it, and must not have expired",
            reason="content_refused",
        )
    after_s = _retry_after_s(headers)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise SourceFailed(answer, reason=_STATUS, after_s=after_s, at_once=after_s <= _MAXIMUM_PAUSE_S)
    if status in _TRANSIENT:
        raise TryLater(answer, reason=_STATUS, after_s=after_s)
    raise CannotBeDone(f"{answer}, which is no image", reason=_STATUS)


def _check_headers(headers: Mapping[str, str], url: httpx.URL, settings: SourcesSettings) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise CannotBeDone(
            f"{without_secrets(url)} came with the content encoding {encoding[:50]!r} though none was asked for; "
            "serve images as they are",
            reason="content_encoding_refused",
        )
    length = headers.get("content-length", "")
    # As a float: Python refuses an integer of more than 4,300 digits.
    if length.isascii() and length.isdigit() and float(length) > settings.maximum_bytes:
        raise _too_large(url, settings)


async def _read(chunks: AsyncIterable[bytes], url: httpx.URL, settings: SourcesSettings) -> Content:
    with MemoryFile() as memory:
        async for chunk in chunks:
            if memory.size_bytes + len(chunk) > settings.maximum_bytes:
                raise _too_large(url, settings)
            memory.write(chunk)
        if not memory.size_bytes:
            raise CannotBeDone(f"{without_secrets(url)} is empty: upload it again", reason="content_empty")
        return memory.seal(f"url {without_secrets(url)}")


def _too_large(url: httpx.URL, settings: SourcesSettings) -> CannotBeDone:
    return CannotBeDone(
        f"{without_secrets(url)} has more than {settings.maximum_bytes:,} bytes (`sources.maximum_bytes`)",
        reason="content_too_large",
    )


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that a host asks clients to wait (`Retry-After`, RFC 9110 section 10.2.3); 0 when it does not."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _is_transient(error: BaseException) -> bool:
    """Whether an immediate further attempt is worth while, rather than a delayed retry of the event."""
    if isinstance(error, SourceFailed):
        return error.at_once
    return isinstance(error, TryLater) and error.reason == _STATUS and error.after_s <= _MAXIMUM_PAUSE_S


def _default_tls() -> ssl.SSLContext:
    """Trusts the system's authorities (`SSL_CERT_FILE` adds to them) and certifi's, for containers without any."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
