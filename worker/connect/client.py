"""HTTP to the system of one connection: its origin alone, with its credential, bounded in time and size.

Redirects are not followed: what stands elsewhere has to be named by the settings. Nothing of the environment (proxies,
`.netrc`) is used, and no cookie is kept.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import certifi
import httpx

from worker.errors import CannotBeDone, TryLater
from worker.operations.certificates import distrust
from worker.settings import ConnectionSettings, SourcesSettings
from worker.sources.access_tokens import AccessTokens
from worker.sources.blocking import BlockingCalls
from worker.sources.breaker import SourceBreakers
from worker.sources.credentials import Credential, credential_for, credential_of, origin_of
from worker.sources.network import system_resolver

MAXIMUM_ANSWER_BYTES: Final = 16 << 20
_LOOKUPS: Final = 4
_CONNECTIONS: Final = 8
_EXCERPT_BYTES: Final = 500


class NotAnswered(TryLater):
    """The system could not be reached, or did not answer in time."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="system_not_answering")


class OtherOrigin(CannotBeDone):
    """An address that is not below the connection's `url`: nothing of ours is sent there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="other_origin")


class NotReadable(CannotBeDone):
    """An answer that is not what was asked for: a page of HTML, half a document, far too much."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="answer_not_readable")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the system has answered; names of `headers` are in lower case."""

    request: str
    """Method and path, for people; without a query."""
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The document; None for an empty body. Raises NotReadable."""
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NotReadable(f"{self}: the answer is no JSON: {self.excerpt()}") from None

    def excerpt(self) -> str:
        """The beginning of the body, for people."""
        return self.body[:_EXCERPT_BYTES].decode("utf-8", "replace")

    def __str__(self) -> str:
        return f"{self.request}: {self.status}"


class SystemClient:
    """Requests to one system. `name` is the connection's."""

    def __init__(self, name: str, settings: ConnectionSettings, sources: SourcesSettings) -> None:
        self.name = name
        self._settings = settings
        self._sources = sources
        self._tls = _tls(settings)
        resolve = system_resolver(BlockingCalls(_LOOKUPS))
        breakers = SourceBreakers(sources.failures_to_open_circuit, sources.circuit_open_s)
        self._tokens = AccessTokens(resolve, breakers, lambda: self._tls)
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        self._client = httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, limits=limits)
        self._origin = origin_of(httpx.URL(settings.url)) if settings.url else None

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str = "application/json",
        maximum_bytes: int = MAXIMUM_ANSWER_BYTES,
    ) -> Answer:
        """One request; once more where an access token was refused.

        Raises NotAnswered, NotReadable (too much), OtherOrigin, or TryLater where no access token can be got.
        """
        target = self._checked(url)
        credential = self._credential(target)
        sent = {"User-Agent": "autotag", "Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = content_type
        while True:
            shown = await credential.headers(target) if credential is not None else {}
            answer = await self._send(method, target, {**sent, **shown}, content, timeout_s, maximum_bytes)
            if answer.status == 401 and credential is not None and credential.is_renewed_after_refusal():
                continue
            return answer

    async def close(self) -> None:
        """Close all connections."""
        self._tokens.close()
        await self._client.aclose()

    def _checked(self, url: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
            is_ours = origin_of(target) == self._origin
        except (httpx.InvalidURL, ValueError) as error:
            raise OtherOrigin(f"{url!r} is no address: {error}") from None
        if not is_ours:
            raise OtherOrigin(f"{url!r} is not at {self._settings.url}, the url of the connection {self.name}")
        return target

    def _credential(self, target: httpx.URL) -> Credential | None:
        if self._settings.credential.kind is not None:
            return credential_of(self._settings.credential, self._sources, self._tokens)
        return credential_for(target, self._settings.instance, self._sources, self._tokens)

    async def _send(
        self,
        method: str,
        target: httpx.URL,
        headers: Mapping[str, str],
        content: bytes | None,
        timeout_s: float,
        maximum_bytes: int,
    ) -> Answer:
        what = f"{method} {target.path}"
        try:
            async with self._client.stream(
                method, target, headers=headers, content=content, timeout=timeout_s
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > maximum_bytes:
                        raise NotReadable(f"{what}: the answer has more than {maximum_bytes:,} bytes")
                names = {name.lower(): value for name, value in response.headers.items()}
                return Answer(what, response.status_code, names, bytes(body))
        except httpx.TimeoutException:
            raise NotAnswered(f"{what}: no answer within {timeout_s:g} s from {self._settings.url}") from None
        except httpx.HTTPError as error:
            why = distrust(error, address="`url`", authority="`ca_file`") or str(error) or type(error).__name__
            raise NotAnswered(f"{what}: {self._settings.url} can't be reached: {why}") from None


def _tls(settings: ConnectionSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certifi.where())
    if settings.ca_file is not None:
        context.load_verify_locations(settings.ca_file)
    return context
