"""What is sent to an image host so that it lets an image be fetched: to exactly the origin it was set for.

An origin is a scheme, host and port. A credential is used for what an event names itself, and for redirects within the
same origin. A redirect to another drops it for the rest of the fetch, also if that leads back: a host must not be able
to have us fetch from a second one what only we may.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from worker.settings import CredentialSettings, SourcesSettings
from worker.settings.origins import origin_url
from worker.sources.access_tokens import AccessToken, AccessTokens
from worker.sources.aws_signature import SigningKeys, signed_headers
from worker.sources.hosts import host_of, port_of

WebOrigin = tuple[str, str, int]
_SETTING = "sources.credentials"


class Credential(Protocol):
    """What shows to one origin that a fetch may be made."""

    @property
    def setting(self) -> str:
        """Where it is set, for people."""
        ...

    def address(self, url: httpx.URL) -> httpx.URL:
        """The URL to ask for, with what is shown in its query."""
        ...

    async def headers(self, url: httpx.URL, method: str = "GET", body: bytes = b"") -> Mapping[str, str]:
        """What to send with a request for the URL. Raises TryLater where that cannot be got now."""
        ...

    def is_renewed_after_refusal(self) -> bool:
        """The origin has answered 401: whether another request would be sent with something else."""
        ...


@dataclass(slots=True)
class Access:
    """The credential of one fetch, for as long as that stays at the origin it began with."""

    origin: WebOrigin
    credential: Credential | None

    def at(self, url: httpx.URL) -> Credential | None:
        """What to send to the URL that the fetch goes on at: dropped, for good, once that is another origin."""
        if origin_of(url) != self.origin:
            self.credential = None
        return self.credential


def origin_of(url: httpx.URL) -> WebOrigin:
    """Scheme, host and port of an http or https URL."""
    return url.scheme, host_of(url), port_of(url)


def credential_for(url: httpx.URL, instance: str, settings: SourcesSettings, tokens: AccessTokens) -> Credential | None:
    """What is to be sent to a URL that an event of an instance names; None where nothing is set for its origin."""
    origin = origin_of(url)
    found = next((each for name, each in settings.credentials.items() if _named_origin(name) == origin), None)
    if found is None or (found.instances is not None and instance not in found.instances):
        return None
    return credential_of(found, settings, tokens)


@lru_cache(maxsize=1024)
def _named_origin(name: str) -> WebOrigin:
    return origin_of(httpx.URL(origin_url(name)))


def credential_of(settings: CredentialSettings, sources: SourcesSettings, tokens: AccessTokens) -> Credential:
    """The credential that these settings describe."""
    match settings:
        case CredentialSettings(kind="basic"):
            pair = f"{settings.username or ''}:{_text(settings.password)}"
            return _Fixed({"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()})
        case CredentialSettings(kind="bearer"):
            return _Fixed({"Authorization": f"Bearer {_text(settings.token)}"})
        case CredentialSettings(kind="header"):
            return _Fixed({settings.header or "": _text(settings.value)})
        case CredentialSettings(kind="sigv4"):
            keys = SigningKeys(
                settings.access_key or "",
                _text(settings.secret_key),
                _text(settings.session_token) or None,
                settings.region or "us-east-1",
                settings.service or "s3",
            )
            return Signed(keys)
        case CredentialSettings(kind="signed_query"):
            return _SignedQuery(settings.username or "", _text(settings.secret_key))
        case _:
            return _OfToken(settings, sources, tokens)


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


class _InHeaders:
    """What is shown in headers alone."""

    __slots__ = ()

    def address(self, url: httpx.URL) -> httpx.URL:
        return url


@dataclass(frozen=True, slots=True)
class _Fixed(_InHeaders):
    """The same header in every request."""

    _headers: Mapping[str, str] = field(repr=False)
    setting: str = _SETTING

    async def headers(self, url: httpx.URL, method: str = "GET", body: bytes = b"") -> Mapping[str, str]:
        return self._headers

    def is_renewed_after_refusal(self) -> bool:
        return False


@dataclass(slots=True)
class _OfToken(_InHeaders):
    """An access token, asked for at its endpoint: once more, if the first is refused."""

    _settings: CredentialSettings
    _sources: SourcesSettings
    _tokens: AccessTokens
    setting: str = _SETTING
    _sent: AccessToken | None = None
    _renewed: bool = False

    async def headers(self, url: httpx.URL, method: str = "GET", body: bytes = b"") -> Mapping[str, str]:
        self._sent = await self._tokens.get(self._settings, self._sources)
        return {"Authorization": f"Bearer {self._sent.value}"}

    def is_renewed_after_refusal(self) -> bool:
        if self._sent is None or self._renewed:
            return False
        self._tokens.forget(self._settings, self._sent)
        self._renewed = True
        return True


@dataclass(frozen=True, slots=True)
class Signed(_InHeaders):
    """A signature of each request."""

    keys: SigningKeys
    setting: str = _SETTING
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def headers(self, url: httpx.URL, method: str = "GET", body: bytes = b"") -> Mapping[str, str]:
        """A signature of the request, now."""
        digest = hashlib.sha256(body).hexdigest()
        target = url.raw_path.decode("ascii")
        return signed_headers(self.keys, method, _host_header(url), target, self.now(), body_sha256=digest)

    def is_renewed_after_refusal(self) -> bool:
        """It would be the same."""
        return False


@dataclass(frozen=True, slots=True)
class _SignedQuery:
    """The user's name in the query, and the SHA-256 of key and query behind it, as ResourceSpace has it.

    https://www.resourcespace.com/knowledge-base/api
    """

    _user: str
    _key: str = field(repr=False)
    setting: str = _SETTING

    def address(self, url: httpx.URL) -> httpx.URL:
        query = f"user={quote(self._user, safe='')}"
        if url.query:
            query += f"&{url.query.decode('ascii')}"
        sign = hashlib.sha256(f"{self._key}{query}".encode()).hexdigest()
        return url.copy_with(query=f"{query}&sign={sign}".encode())

    async def headers(self, url: httpx.URL, method: str = "GET", body: bytes = b"") -> Mapping[str, str]:
        return {}

    def is_renewed_after_refusal(self) -> bool:
        return False


def _host_header(url: httpx.URL) -> str:
    """The value of `Host`, as httpcore writes it: without the port that the scheme means."""
    host = url.raw_host.decode("ascii")
    return host if url.port is None else f"{host}:{url.port}"
