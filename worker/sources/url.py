"""Fetches images from http and https URLs on allowed hosts.

Built on httpcore, the transport of httpx, and not on `httpx.AsyncClient`: nothing between this module and the network
may follow a redirect, keep a cookie, use a proxy from the environment, decompress a body or log a URL with its secrets.

What a host is shown so that it lets us fetch is in `credentials`; what of its answer is an image, in
`responses`.

Every fetch has a connection of its own. On one that is kept, a host that sends more than its answer, at once or later,
would have the rest taken for the answer to the next request, which may be another instance's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial

import certifi
import httpcore
import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from worker.errors import CannotBeDone, TryLater
from worker.images.content import Content
from worker.messages import DEFAULT_INSTANCE
from worker.messages.s3_notifications import S3Content
from worker.operations.certificates import distrust
from worker.settings import SourcesSettings
from worker.sources.access_tokens import AccessTokens
from worker.sources.breaker import Breaker, SourceBreakers, SourceFailed
from worker.sources.credentials import Access, Credential, credential_for, origin_of
from worker.sources.hosts import allows_host, allows_port, host_of, port_of, without_secrets
from worker.sources.network import CheckedNetwork, Resolver
from worker.sources.proxy import Route, hint
from worker.sources.responses import (
    LONGEST_PAUSE_S,
    REFUSED,
    STATUS,
    WHO_MAY,
    Unauthorized,
    check_headers,
    check_status,
    read_image,
)
from worker.sources.s3 import object_url, service_for, signed_by
from worker.sources.web_page import looks_like_signing_in

_HEADERS = [
    ("User-Agent", "autotag"),
    ("Accept", "image/*, */*;q=0.1"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
]
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULTS = SourcesSettings()
_UNREACHABLE = "content_unreachable"


class UrlFetcher:
    """Fetches URLs over connections to checked addresses.

    A host that does not answer is left alone for a while, by the circuits of `breakers`.
    """

    def __init__(
        self, resolve: Resolver, breakers: SourceBreakers | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._resolve = resolve
        self._breakers = breakers or SourceBreakers(_DEFAULTS.failures_to_open_circuit, _DEFAULTS.circuit_open_s)
        self._given_tls = tls
        self._tokens = AccessTokens(resolve, self._breakers, lambda: self.tls)

    async def open_url(self, url: str, settings: SourcesSettings, instance: str = DEFAULT_INSTANCE) -> Content:
        """The image at `url`, in memory; the caller closes it.

        Raises CannotBeDone for what must not be fetched, TryLater when the host did not deliver it within the timeout
        and the few immediate attempts, or, uncounted, while its circuit is open for this instance.
        """
        return await self._with_attempts(partial(self._fetch, url, settings, instance), settings)

    async def open_object(self, content: S3Content, settings: SourcesSettings, instance: str) -> Content:
        """The object that a notification names, in memory; the caller closes it.

        Its service is the operator's own, not the event's: it may have a private address. Raises as `open_url` does.
        """
        return await self._with_attempts(partial(self._fetch_object, content, settings, instance), settings)

    async def _with_attempts(
        self, fetch_by: Callable[[float], Awaitable[Content]], settings: SourcesSettings
    ) -> Content:
        """Fetch, by a deadline on the loop's clock, with a few immediate attempts."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(1 + settings.retries) | stop_after_delay(settings.total_timeout_s),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
            reraise=True,
        )
        deadline_s = asyncio.get_running_loop().time() + settings.total_timeout_s
        failed: SourceFailed | None = None

        async def fetch() -> Content:
            nonlocal failed
            try:
                return await fetch_by(deadline_s)
            except SourceFailed as error:
                failed = error
                raise

        try:
            return await retrying(fetch)
        except TryLater as error:
            if failed is not None and not error.counted:
                raise failed from None  # the circuit has opened meanwhile, but this URL was tried: that is an attempt
            raise

    def close(self) -> None:
        """End requests for access tokens that are under way."""
        self._tokens.close()

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """What hosts' certificates are checked with. Read once: it takes longer than most fetches."""
        return self._given_tls or _default_tls()

    async def _fetch(self, url: str, settings: SourcesSettings, instance: str, deadline_s: float) -> Content:
        """Follow redirects from the URL to an image; every hop is checked, and goes through its host's circuit."""
        hop = check_url(url, settings)
        access = Access(origin_of(hop), credential_for(hop, instance, settings, self._tokens))
        for _ in range(1 + settings.maximum_redirects):
            breaker = self._breakers.of(instance, hop.netloc.decode("ascii").lower())
            response = await self._get_with(access.at(hop), breaker, deadline_s, hop, settings)
            if isinstance(response, Content):
                return response
            hop = _check_redirect(response, hop, settings)
        raise CannotBeDone(
            f"{without_secrets(url)} was redirected more than {settings.maximum_redirects} times "
            "(`sources.maximum_redirects`)",
            reason="url_too_many_redirects",
        )

    async def _fetch_object(
        self, content: S3Content, settings: SourcesSettings, instance: str, deadline_s: float
    ) -> Content:
        service = service_for(content, instance, settings)
        url = object_url(content, service)
        breaker = self._breakers.of(instance, url.netloc.decode("ascii").lower())
        own = settings.model_copy(update={"url_allow_private_addresses": True})
        response = await self._get_with(signed_by(service), breaker, deadline_s, url, own)
        if isinstance(response, Content):
            return response
        raise CannotBeDone(
            f"{without_secrets(url)} redirects to {without_secrets(response)}: are `endpoint`, `region` and "
            "`path_style` of `sources.s3` right?",
            reason=STATUS,
        )

    async def _get_with(
        self,
        credential: Credential | None,
        breaker: Breaker[TryLater],
        deadline_s: float,
        url: httpx.URL,
        settings: SourcesSettings,
    ) -> Content | str:
        """Get the URL with a credential: once more, where that can be renewed and the host did not take it."""
        breaker.raise_if_open()  # before anything is done for it
        headers = await _headers_by(deadline_s, credential, url, settings)
        asked, setting = (url, None) if credential is None else (credential.address(url), credential.setting)
        get = partial(self._get_by, deadline_s, asked, settings, setting)
        try:
            return await breaker.call(partial(get, headers))
        except Unauthorized:
            if credential is None or not credential.is_renewed_after_refusal():
                raise
        headers = await _headers_by(deadline_s, credential, url, settings)
        return await breaker.call(partial(get, headers))

    async def _get_by(
        self,
        deadline_s: float,
        url: httpx.URL,
        settings: SourcesSettings,
        setting: str | None,
        credentials: Mapping[str, str],
    ) -> Content | str:
        """The same as `_get`, by a deadline on the loop's clock."""
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._get(url, settings, setting, credentials)
        except TimeoutError as error:
            raise _too_late(url, settings) from error

    async def _get(
        self, url: httpx.URL, settings: SourcesSettings, setting: str | None, credentials: Mapping[str, str]
    ) -> Content | str:
        """The image at one URL, or the URL it redirects to.

        `credentials` are headers for this URL alone, and `setting` is where they are set.
        """
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        timeout = {
            "connect": settings.connect_timeout_s,
            "read": settings.read_timeout_s,
            "write": settings.read_timeout_s,
        }
        try:
            async with (
                self._connection(target.origin, settings) as connection,
                connection.stream(
                    "GET", target, headers=[*_HEADERS, *credentials.items()], extensions={"timeout": timeout}
                ) as response,
            ):
                headers = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status in _REDIRECTS and "location" in headers:
                    return _join(url, _as_text(headers["location"].encode("latin-1")))
                check_status(response.status, headers, url, setting)
                check_headers(headers, url, settings)
                return await read_image(response.aiter_stream(), headers.get("content-type", ""), url, settings)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
            why = distrust(error, address="the event", authority="the file of `SSL_CERT_FILE`")
            why = why or (str(error) or type(error).__name__) + hint("sources.proxy", settings.proxy)
            raise SourceFailed(f"{without_secrets(url)} cannot be reached: {why}", reason=_UNREACHABLE) from error

    def _connection(self, origin: httpcore.Origin, settings: SourcesSettings) -> httpcore.AsyncHTTPConnection:
        network = CheckedNetwork(
            self._resolve,
            allow_private=settings.url_allow_private_addresses,
            route=Route.of(settings.proxy, settings.no_proxy, by_name=settings.proxy_resolves_names),
        )
        return httpcore.AsyncHTTPConnection(origin, ssl_context=self.tls, network_backend=network)


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
    host, port = host_of(url), port_of(url)
    allowed = [each for each in settings.url_allowed_hosts if allows_host(each, host)]
    if not allowed:
        raise CannotBeDone(
            f"{without_secrets(url)} is on the host {host}, which is not open to events; "
            "add it to `sources.url_allowed_hosts` in the settings if it should be",
            reason="url_host_not_allowed",
        )
    if not any(allows_port(each, port, settings.url_allowed_ports) for each in allowed):
        raise CannotBeDone(
            f"{without_secrets(url)} is on port {port}, which is not open to events; if it should be, write "
            f"{host}:{port} in `sources.url_allowed_hosts`, or add it to `sources.url_allowed_ports` for all hosts",
            reason="url_port_not_allowed",
        )
    return url


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


async def _headers_by(
    deadline_s: float, credential: Credential | None, url: httpx.URL, settings: SourcesSettings
) -> Mapping[str, str]:
    """What to send to the URL, by a deadline on the loop's clock."""
    if credential is None:
        return {}
    try:
        async with asyncio.timeout_at(deadline_s):
            return await credential.headers(url)
    except TimeoutError as error:
        raise _too_late(url, settings) from error


def _too_late(url: httpx.URL, settings: SourcesSettings) -> SourceFailed:
    return SourceFailed(
        f"{without_secrets(url)} was not fetched within {settings.total_timeout_s:g} s (`sources.total_timeout_s`)",
        reason=_UNREACHABLE,
        at_once=False,
    )


def _check_redirect(location: str, url: httpx.URL, settings: SourcesSettings) -> httpx.URL:
    """Where a URL redirects to. Raises CannotBeDone where events may not name that."""
    try:
        return check_url(location, settings)
    except CannotBeDone as error:
        shown = without_secrets(location)
        if error.reason != "url_host_not_allowed" or not looks_like_signing_in(shown):
            raise
        raise CannotBeDone(
            f"{without_secrets(url)} redirects to {shown}, which looks like a login page: {WHO_MAY}", reason=REFUSED
        ) from error


def _is_transient(error: BaseException) -> bool:
    """Whether an immediate further attempt is worth while, rather than a delayed retry of the event."""
    if isinstance(error, SourceFailed):
        return error.at_once
    return isinstance(error, TryLater) and error.reason == STATUS and error.after_s <= LONGEST_PAUSE_S


def _default_tls() -> ssl.SSLContext:
    """Trusts the system's authorities (`SSL_CERT_FILE` adds to them) and certifi's, for containers without any."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
