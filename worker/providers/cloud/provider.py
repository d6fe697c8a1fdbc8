"""What a provider does whose answers come from a service: find out how to ask, ask with retries, report what is wrong.

A service's own module says what is particular to it: the methods that are abstract here.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar
from urllib.parse import SplitResult, urlsplit

import structlog
from pydantic import SecretStr

from worker.errors import AutotagError, Misconfigured
from worker.images.content import Content
from worker.images.requests import JpegLimits, PixelRecipe
from worker.messages import ImageFacts
from worker.providers.base import Answer, Image
from worker.providers.checks import CircuitState, ProviderCheck, Severity
from worker.providers.cloud.account_client import Account, AccountClient, AccountRules
from worker.providers.cloud.budget import CallBudget
from worker.providers.cloud.cache import ResultCache
from worker.providers.cloud.http_client import HttpClient, quiet_http_libraries
from worker.providers.cloud.payload import Payload, ServiceLimits, prepared_payload
from worker.providers.cloud.retries import RetryPolicy, call_with_retries
from worker.providers.registry import ProviderContext
from worker.settings import InstanceSettings
from worker.settings.instance import CloudSettings
from worker.settings.schema import dotted, secret_name

_log = structlog.get_logger(__name__)
_KEY = re.compile(r"[\x21-\x7e]+")
_MOST_ACCOUNTS = 1000
_MIME_TYPES_OF_OTHER_NAMES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "image/x-bmp": "image/bmp",
    "image/vnd.microsoft.icon": "image/x-icon",
    "image/ico": "image/x-icon",
    "image/x-png": "image/png",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how a service is asked under given settings.

    `identity` names the API and its version; it stands in the result cache's key. `retired` is a warning for people.
    """

    url: str
    identity: str
    limits: ServiceLimits
    mime_types: frozenset[str]
    retired: str | None = None


S = TypeVar("S", bound=CloudSettings)
L = TypeVar("L", bound=AccountClient)


class CloudProvider(ABC, Generic[S, L]):
    """A provider that asks a service over HTTP with each instance's own key."""

    name: ClassVar[str]
    service: ClassVar[str]
    """The service's name for people."""

    def __init__(self, context: ProviderContext) -> None:
        cloud = context.settings.cloud
        self._cloud = cloud
        self._rules = AccountRules(
            cloud.maximum_calls_at_once,
            cloud.failures_to_open_circuit,
            cloud.circuit_open_s,
            cloud.refused_key_pause_s,
            cloud.retry_maximum_wait_s,
            context.calls,
        )
        self._budget = CallBudget(context.state_dir / "cloud-calls.sqlite3")
        self._cache_dir = context.cache_dir / "cloud-answers" / self.name
        self._answers: ResultCache | None = None
        self._http: HttpClient | None = None
        self._account_clients: OrderedDict[str, L] = OrderedDict()

    @abstractmethod
    def section(self, instance: InstanceSettings) -> S:
        """The provider's own table of an instance's settings."""

    @abstractmethod
    def target(self, section: S) -> Target:
        """Where to ask. Raises Misconfigured for an endpoint that can't be one of this service."""

    @abstractmethod
    def influences(self, section: S) -> list[object]:
        """Settings besides the target that decide what the service answers, as JSON values."""

    @abstractmethod
    def make_account_client(self, account: Account, rules: AccountRules, budget: CallBudget) -> L:
        """A new client for an account."""

    @abstractmethod
    async def ask(self, client: L, target: Target, section: S, payload: Payload) -> Answer:
        """One attempt for one image."""

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has switched the service on."""
        return self.section(instance).enabled

    def pixel_recipe(self) -> PixelRecipe | None:
        """None: the service gets a file."""
        return None

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """Formats that the service does not take, where they may not be converted either."""
        section = self.section(instance)
        mime_type = _MIME_TYPES_OF_OTHER_NAMES.get(mime_type, mime_type)
        try:
            taken = self.target(section).mime_types
        except Misconfigured:
            return None  # said in full when the image is to be tagged
        if mime_type in taken or (section.resize and mime_type.startswith("image/")):
            return None
        return f"{self.service} takes {', '.join(sorted(taken))}, not {mime_type}"

    def unusable(self, instance: InstanceSettings) -> str | None:
        """None: a service is down for one instance or for a while; `tag` says so for each image."""
        return None

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """Ask the service about an image. Raises CannotBeDone, TryLater, Misconfigured or Unavailable."""
        section = self.section(instance)
        target = self.target(section)
        key = ""
        if self._answers is not None:
            key = ResultCache.key(
                image.facts.sha256, target.url, target.identity, section.resize, *self.influences(section)
            )
            if (kept := await self._answers.get(key)) is not None:
                return kept
        client = self._account_client(image.instance, section, target)
        payload = await prepared_payload(image, target.limits, resize=section.resize)
        answer = await call_with_retries(
            lambda: self.ask(client, target, section, payload),
            RetryPolicy(
                section.maximum_number_of_attempts,
                section.retry_total_s,
                self._cloud.retry_minimum_wait_s,
                self._cloud.retry_maximum_wait_s,
            ),
            on_retry=lambda: self._rules.calls.retried(self.name, image.instance),
            provider=self.name,
            instance=image.instance,
            asset_id=image.asset_id,
        )
        if answer.note is not None:
            _log.warning("answer is not whole", provider=self.name, asset_id=image.asset_id, note=answer.note)
        elif self._answers is not None:
            await self._answers.put(key, answer)
        return answer

    async def start(self) -> None:
        """Open the pool of connections; none is made yet."""
        quiet_http_libraries()
        self._http = HttpClient(self.service, self._cloud)
        if self._cloud.cache.enabled:
            self._answers = ResultCache(
                self._cache_dir,
                maximum_bytes=self._cloud.cache.maximum_bytes,
                maximum_age_s=self._cloud.cache.maximum_age_s,
            )

    async def close(self) -> None:
        """Close all connections; calls under way end as TryLater."""
        for client in self._account_clients.values():
            await client.close()
        if self._http is not None:
            await self._http.close()
            self._http = None

    def review(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """What is wrong with the settings of the instance called `name`, as far as they alone show it."""
        section = self.section(instance)
        if not section.enabled:
            return []
        try:
            target = self.target(section)
            self._account(name, section, target)
        except Misconfigured as error:
            return [self._finding(name, Severity.ERROR, error.reason, str(error))]
        if target.retired is not None:
            return [self._finding(name, Severity.WARNING, "api_retired", target.retired)]
        return []

    async def check(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """One real call with a small grey image, once and without the cache; it counts towards the month's budget."""
        findings = self.review(name, instance)
        section = self.section(instance)
        if not section.enabled or any(finding.severity is Severity.ERROR for finding in findings):
            return findings
        target = self.target(section)
        client = self.make_account_client(self._account(name, section, target), self._rules, self._budget)
        started_s = time.monotonic()
        with Content.from_bytes(grey_png(), "check") as content:
            facts = ImageFacts(format="PNG", width=GREY_SIDE, height=GREY_SIDE, sha256="0" * 64)
            image = Image("the check's own image", name, content, facts, "image/png", None, _never_shrunk)
            try:
                async with asyncio.timeout(section.timeout_s + self._cloud.connect_timeout_s):
                    answer = await self.ask(client, target, section, Payload(image, None))
            except TimeoutError:
                late = f"{self.service} gave no answer within {section.timeout_s:g} s"
                return [*findings, self._finding(name, Severity.ERROR, "timed_out", late)]
            except AutotagError as error:
                return [*findings, self._finding(name, Severity.ERROR, error.reason, str(error))]
        took_s = time.monotonic() - started_s
        said = f"{self.service} answered in {took_s:.2f} s ({answer.model})"
        return [*findings, self._finding(name, Severity.OK, "answered", said)]

    @property
    def http(self) -> HttpClient:
        """The pool of connections, between `start` and `close`."""
        if self._http is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._http

    def circuits(self) -> dict[str, CircuitState]:
        """State of each instance's circuit breaker."""
        return {instance: client.circuit_state for instance, client in self._account_clients.items()}

    def calls_limit(self, instance: InstanceSettings) -> int | None:
        """Calls that an instance may make in a month; None where nothing limits them."""
        return self.section(instance).calls_per_month

    async def calls_used(self, instance: str) -> int:
        """Calls of an instance this month, as far as they are counted. Raises TryLater when the count can't be read."""
        return await self._budget.used(self.name, instance)

    def parsed_endpoint(self, endpoint: str, setting: str) -> SplitResult:
        """An endpoint taken apart. Raises Misconfigured for one that no service has or that gives the key away."""
        parts = urlsplit(endpoint)
        wrong = None
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            wrong = "it must begin with https:// and a host name"
        elif parts.username is not None or parts.query or parts.fragment:
            wrong = "it must be an address only: no user, no `?`, no `#`"
        elif parts.scheme == "http" and not self._cloud.allow_plain_http_endpoints:
            wrong = "with http:// key and images would travel in the clear (`cloud.allow_plain_http_endpoints`)"
        if wrong is not None:
            raise Misconfigured(f"`{self.name}.{setting}` can't be used: {wrong}", reason="endpoint_not_allowed")
        return parts

    def _account_client(self, instance: str, section: S, target: Target) -> L:
        account = self._account(instance, section, target)
        client = self._account_clients.get(instance)
        if client is None or client.account != account:
            client = self._account_clients[instance] = self.make_account_client(account, self._rules, self._budget)
        self._account_clients.move_to_end(instance)
        if (
            len(self._account_clients) > _MOST_ACCOUNTS
        ):  # events name instances; their number must not grow without bound
            self._account_clients.popitem(last=False)
        return client

    def _account(self, instance: str, section: S, target: Target) -> Account:
        key = section.api_key or SecretStr("")
        if not key.get_secret_value():
            raise Misconfigured(
                f"{self.service} is switched on for instance {instance} without a key; "
                f"{_where_it_goes(instance, self.name)}",
                reason="key_missing",
            )
        if not _KEY.fullmatch(key.get_secret_value()):
            raise Misconfigured(
                f"`{self.name}.api_key` of instance {instance} holds blanks, line breaks or characters that no key has",
                reason="key_malformed",
            )
        return Account(self.name, instance, target.url, key, section.calls_per_second, section.calls_per_month)

    def _finding(self, instance: str, severity: Severity, reason: str, message: str) -> ProviderCheck:
        return ProviderCheck(self.name, instance, severity, reason, message)


def _where_it_goes(instance: str, provider: str) -> str:
    key = (*(("instances", instance) if instance != "defaults" else ("defaults",)), provider, "api_key")
    return f"set {dotted(key)} or the secret {secret_name(key)}, or switch it off"


GREY_SIDE = 64
"""Of the image that `check` sends: above the least that any of the services takes (50 pixels)."""


def grey_png() -> bytes:
    """A grey square as a PNG, made here because this process has no image library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", GREY_SIDE, GREY_SIDE, 8, 0, 0, 0, 0)  # 8 bits a sample, greyscale
    rows = (b"\x00" + b"\x80" * GREY_SIDE) * GREY_SIDE  # each row begins with its filter: none
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def _never_shrunk(limits: JpegLimits) -> bytes:
    raise AssertionError("the check's image fits every service")
