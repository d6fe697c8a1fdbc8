"""The base class of providers that call a service over HTTP: cache, payload, retries, accounts, checks.

A subclass implements what is specific to its service: the abstract methods.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Generic, TypeVar
from urllib.parse import SplitResult, urlsplit

import structlog
from pydantic import SecretStr

from worker.errors import AutotagError, CannotBeDone, Misconfigured, TryLater, Unavailable
from worker.images.content import Content
from worker.images.requests import JpegLimits, PixelRecipe
from worker.messages import ImageFacts
from worker.providers.base import Answer, Image
from worker.providers.checks import CircuitState, ProviderCheck, Severity
from worker.providers.cloud.account_client import Account, AccountClient, AccountRules
from worker.providers.cloud.budget import CallBudget, make_budget
from worker.providers.cloud.cache import AnswerCache
from worker.providers.cloud.check_image import GREY_SIDE, grey_png
from worker.providers.cloud.errors import NOT_WANTED, TIMED_OUT
from worker.providers.cloud.http_client import HttpClient, silence_http_libraries
from worker.providers.cloud.payload import Payload, ServiceLimits, prepare_payload
from worker.providers.cloud.places import Places
from worker.providers.cloud.retries import RetryPolicy, call_with_retries
from worker.providers.cloud.sharing import Interest, SharedCalls, kept_s
from worker.providers.registry import ProviderContext
from worker.settings import DEFAULTS, InstanceSettings
from worker.settings.instance import CloudSettings
from worker.settings.schema import dotted, secret_name

_log = structlog.get_logger(__name__)
_KEY = re.compile(r"[\x21-\x7e]+")
_MAXIMUM_ACCOUNT_CLIENTS = 1000
"""Events name their instance, so without a bound any event could add a client. The least recently used is removed."""

_REFUSALS_OF_THE_FILE = frozenset({"image_refused", "image_too_large"})
"""The reasons of a service that may take a JPEG of the same picture.

The formats that services document say nothing of their varieties: an animated WebP, a TIFF in CMYK or of the BigTIFF
kind are answered with "Bad image data." and the like.
"""

_MIME_TYPE_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "image/x-bmp": "image/bmp",
    "image/vnd.microsoft.icon": "image/x-icon",
    "image/ico": "image/x-icon",
    "image/x-png": "image/png",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL that given settings select, and what the API there accepts.

    `api_version` names the API's version, and the model if it is fixed; it is a part of the cache key.
    `retirement_warning` is a message for people about an API version that was retired, None for a current one.
    """

    url: str
    api_version: str
    limits: ServiceLimits
    mime_types: frozenset[str]
    retirement_warning: str | None = None


S = TypeVar("S", bound=CloudSettings)
C = TypeVar("C", bound=AccountClient)


class CloudProvider(ABC, Generic[S, C]):
    """A provider that calls a service over HTTP, with each instance's own key.

    `S` is the type of the provider's table in the settings, `C` of its account clients.
    """

    name: str
    service: ClassVar[str]
    """The service's name in messages for people."""

    def __init__(self, context: ProviderContext) -> None:
        cloud = context.settings.cloud
        self._cloud = cloud
        self._rules = AccountRules(
            cloud.maximum_calls_at_once,
            cloud.turn_maximum_wait_s,
            context.settings.retry.delays_s,
            cloud.failures_to_open_circuit,
            cloud.circuit_open_s,
            cloud.refused_key_pause_s,
            cloud.retry_maximum_wait_s,
            context.call_observer,
        )
        self._budget = make_budget(context.settings)
        self._places = Places(shared=cloud.maximum_connections, each=cloud.maximum_calls_at_once)
        self._shared = SharedCalls(kept_s(context.settings))
        self._cache_dir = context.cache_dir / "cloud-answers" / self.name
        self._cache: AnswerCache | None = None
        self._http_client: HttpClient | None = None
        self._account_clients: OrderedDict[str, C] = OrderedDict()

    @abstractmethod
    def section(self, instance: InstanceSettings) -> S:
        """The provider's own table of an instance's settings."""

    @abstractmethod
    def endpoint(self, section: S) -> Endpoint:
        """The endpoint that the settings select. Raises Misconfigured if it can't be one of this service."""

    @abstractmethod
    def answer_settings(self, section: S) -> list[object]:
        """Settings besides the endpoint that influence the service's answer, as JSON values for the cache key."""

    @abstractmethod
    def make_account_client(self, account: Account, rules: AccountRules, budget: CallBudget, places: Places) -> C:
        """A new client for an account."""

    @abstractmethod
    async def request_tags(
        self, client: C, endpoint: Endpoint, section: S, payload: Payload, interest: Interest
    ) -> Answer:
        """One attempt for one image. Raises one of the errors of `worker.errors`."""

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has enabled the service."""
        return self.section(instance).enabled

    def pixel_recipe(self) -> PixelRecipe | None:
        """None: the service gets a file, not pixels."""
        return None

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """Why the service does not accept this format, or None if it does or the image may be converted."""
        section = self.section(instance)
        mime_type = _MIME_TYPE_ALIASES.get(mime_type, mime_type)
        try:
            accepted = self.endpoint(section).mime_types
        except Misconfigured:
            return None  # `tag` raises it for each image
        if mime_type in accepted or (section.resize and mime_type.startswith("image/")):
            return None
        return f"{self.service} takes {', '.join(sorted(accepted))}, not {mime_type}"

    def unusable(self, instance: InstanceSettings) -> str | None:
        """None: a service fails for one instance or for a while only; `tag` raises that for each image."""
        return None

    def why_wait(self, asset_id: str, instance_name: str, instance: InstanceSettings) -> TryLater | Unavailable | None:
        """Why no call could be made for an instance now; None promises one. What is set wrong, `tag` raises.

        None too where it may not take a call: an answer may be in the cache, or has been paid for already.
        """
        client = self._client_of(instance_name, instance)
        if client is None:
            return None
        if self._cache is not None or self._shared.has_for((client.account, asset_id)):
            client.let_in()
            return None
        why = client.why_wait()
        if why is not None:
            self._rules.observer.put_off(self.name, instance_name, why.reason)
        return why

    def not_asked(self, instance_name: str, instance: InstanceSettings) -> None:
        """What `why_wait` has promised is not needed: the image could not be read, say."""
        if (client := self._client_of(instance_name, instance)) is not None:
            client.keep_promise()

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """Request tags for an image. Raises CannotBeDone, TryLater, Misconfigured or Unavailable."""
        with ExitStack() as promised:
            if (client := self._client_of(image.instance, instance)) is not None:
                promised.callback(client.keep_promise)
            return await self._answer(image, instance, promised)

    def answer_depends_on(self, instance: InstanceSettings) -> str:
        """What the cache's key has besides the image."""
        section = self.section(instance)
        try:
            return json.dumps(self._determining(section, self.endpoint(section)))
        except Misconfigured:
            return ""  # `tag` raises it for each image

    def cpu_s_per_answer(self) -> float:
        """0: it is the service's."""
        return 0.0

    def _determining(self, section: S, endpoint: Endpoint) -> list[object]:
        return [endpoint.url, endpoint.api_version, section.resize, *self.answer_settings(section)]

    async def _answer(self, image: Image, instance: InstanceSettings, promised: ExitStack) -> Answer:
        """The answer for one who was `promised` a call: the promise is kept when that has its turn, or is not made."""
        section = self.section(instance)
        endpoint = self.endpoint(section)
        key = AnswerCache.key(await digest(image.content), *self._determining(section, endpoint))
        if self._cache is not None and (cached := await self._cache.get(key)) is not None:
            return cached
        client = self._account_client(image.instance, section, endpoint)
        shared_as = (client.account, key)
        while True:
            if (kept := self._shared.kept(shared_as)) is not None:
                return kept
            call = self._shared.running(shared_as)
            if call is None:
                payload = await prepare_payload(image, endpoint.limits, resize=section.resize)
                # Another may have begun it, or even ended it, meanwhile.
                if (kept := self._shared.kept(shared_as)) is not None:
                    return kept
                call = self._shared.running(shared_as)
            if call is None:
                owned = payload.owned()
                call = self._shared.begin(
                    shared_as,
                    partial(self._call, client, endpoint, section, owned, key),
                    whom=(client.account, image.asset_id),
                )
                call.on_end(owned.close)
                call.turn_came = promised.pop_all().close  # does something once only
                call.on_end(call.turn_came)
            promised.close()  # who joins a call needs none
            try:
                return await call.answer()
            except TryLater as error:
                if error.reason == NOT_WANTED:  # it was joined at the moment when it was given up for want of anybody
                    continue
                if not error.counted:
                    self._rules.observer.put_off(self.name, image.instance, error.reason)
                raise

    async def _call(
        self, client: C, endpoint: Endpoint, section: S, payload: Payload, key: str, interest: Interest
    ) -> Answer:
        """The answer for an image, for all who wait for it; repeated where that may help."""
        image = payload.image
        try:
            answer = await self._request(client, endpoint, section, payload, interest)
        except CannotBeDone as refusal:
            if refusal.reason not in _REFUSALS_OF_THE_FILE or payload.jpeg is not None or not interest.wanted:
                raise
            if not section.resize:
                message = f"{refusal}; with `resize` it would be asked once more, with a JPEG made of it"
                raise CannotBeDone(message, reason=refusal.reason) from refusal
            _log.info(
                "the service refuses the file; it is asked once more, with a JPEG",
                provider=self.name,
                instance=image.instance,
                asset_id=image.asset_id,
                format=image.facts.format,
                error=str(refusal),
            )
            as_jpeg = await payload.as_jpeg(endpoint.limits)
            answer = await self._request(client, endpoint, section, as_jpeg, interest)
        if answer.note is not None:
            _log.warning("answer is not whole", provider=self.name, asset_id=image.asset_id, note=answer.note)
        elif self._cache is not None:
            with interest.sending():  # what has been paid for is not called off while it is written
                await self._cache.put(key, answer)
        return answer

    async def _request(self, client: C, endpoint: Endpoint, section: S, payload: Payload, interest: Interest) -> Answer:
        """The answer to what is sent for an image, asked for again where that may help."""
        image = payload.image
        return await call_with_retries(
            lambda: self.request_tags(client, endpoint, section, payload, interest),
            RetryPolicy(
                section.maximum_number_of_attempts,
                section.retry_total_s,
                self._cloud.retry_minimum_wait_s,
                self._cloud.retry_maximum_wait_s,
            ),
            on_retry=lambda: self._rules.observer.retried(self.name, image.instance),
            interest=interest,
            provider=self.name,
            instance=image.instance,
            asset_id=image.asset_id,
        )

    async def start(self) -> None:
        """Create the connection pool, without a connection yet, and the cache if it is enabled."""
        silence_http_libraries()
        self._http_client = HttpClient(self.service, self._cloud)
        if self._cloud.cache.enabled:
            self._cache = AnswerCache(
                self._cache_dir,
                maximum_bytes=self._cloud.cache.maximum_bytes,
                maximum_age_s=self._cloud.cache.maximum_age_s,
            )

    async def close(self) -> None:
        """Close all connections; calls in flight end with TryLater."""
        await self._shared.close()
        for client in self._account_clients.values():
            await client.close()
        if self._http_client is not None:
            await self._http_client.close()
            self._http_client = None
        await self._budget.close()

    def review(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """Problems visible in the settings of the instance `name` alone. Makes no call."""
        section = self.section(instance)
        if not section.enabled:
            return []
        try:
            endpoint = self.endpoint(section)
            self._account(name, section, endpoint)
        except Misconfigured as error:
            return [self._check(name, Severity.ERROR, error.reason, str(error))]
        if endpoint.retirement_warning is not None:
            return [self._check(name, Severity.WARNING, "api_retired", endpoint.retirement_warning)]
        return []

    async def check(self, name: str, instance: InstanceSettings) -> list[ProviderCheck]:
        """`review`, and one real call with a small grey image, without cache and retries; it counts in the budget."""
        checks = self.review(name, instance)
        section = self.section(instance)
        if not section.enabled or any(check.severity is Severity.ERROR for check in checks):
            return checks
        endpoint = self.endpoint(section)
        client = self._new_client(self._account(name, section, endpoint))
        started_s = time.monotonic()
        with Content.from_bytes(grey_png(), "check") as content:
            facts = ImageFacts(format="PNG", width=GREY_SIDE, height=GREY_SIDE, sha256="0" * 64)
            image = Image("the check's own image", name, content, facts, "image/png", None, _refuse_to_shrink)
            try:
                async with asyncio.timeout(section.timeout_s + self._cloud.connect_timeout_s):
                    answer = await self.request_tags(client, endpoint, section, Payload(image, None), Interest())
            except TimeoutError:
                message = f"{self.service} gave no answer within {section.timeout_s:g} s"
                return [*checks, self._check(name, Severity.ERROR, TIMED_OUT, message)]
            except AutotagError as error:
                return [*checks, self._check(name, Severity.ERROR, error.reason, str(error))]
        took_s = time.monotonic() - started_s
        message = f"{self.service} answered in {took_s:.2f} s ({answer.model})"
        return [*checks, self._check(name, Severity.OK, "answered", message)]

    @property
    def http_client(self) -> HttpClient:
        """The connection pool. Raises RuntimeError before `start` and after `close`."""
        if self._http_client is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._http_client

    def circuits(self) -> dict[str, CircuitState]:
        """State of each instance's circuit breaker. Instances without calls are absent."""
        return {instance: client.circuit_state for instance, client in self._account_clients.items()}

    def calls_limit(self, instance: InstanceSettings) -> int | None:
        """Calls that an instance may make in a month; None without a limit."""
        return self.section(instance).calls_per_month

    async def calls_used(self, instance: str) -> int:
        """Calls of an instance this month, counted only under a limit. Raises TryLater if the count can't be read."""
        return await self._budget.used(self.name, instance)

    def parse_endpoint(self, url: str, setting: str) -> SplitResult:
        """Split the URL of an endpoint. Raises Misconfigured if it is no endpoint or would expose the key.

        `setting` is the name of the setting that holds it, for the message.
        """
        parts = urlsplit(url)
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

    def _client_of(self, instance_name: str, instance: InstanceSettings) -> C | None:
        """The client of an instance's account; None where it is set wrong."""
        section = self.section(instance)
        try:
            return self._account_client(instance_name, section, self.endpoint(section))
        except Misconfigured:
            return None

    def _account_client(self, instance: str, section: S, endpoint: Endpoint) -> C:
        account = self._account(instance, section, endpoint)
        client = self._account_clients.get(instance)
        if client is None or client.account != account:
            client = self._account_clients[instance] = self._new_client(account)
        self._account_clients.move_to_end(instance)
        if len(self._account_clients) > _MAXIMUM_ACCOUNT_CLIENTS:
            self._account_clients.popitem(last=False)
        return client

    def _new_client(self, account: Account) -> C:
        return self.make_account_client(account, self._rules, self._budget, self._places)

    def _account(self, instance: str, section: S, endpoint: Endpoint) -> Account:
        key = section.api_key or SecretStr("")
        if not key.get_secret_value():
            raise Misconfigured(
                f"{self.service} is switched on for instance {instance} without a key; "
                f"{_how_to_set_the_key(instance, self.name)}",
                reason="key_missing",
            )
        if not _KEY.fullmatch(key.get_secret_value()):
            raise Misconfigured(
                f"`{self.name}.api_key` of instance {instance} holds blanks, line breaks or characters that no key has",
                reason="key_malformed",
            )
        return Account(self.name, instance, endpoint.url, key, section.calls_per_second, section.calls_per_month)

    def _check(self, instance: str, severity: Severity, reason: str, message: str) -> ProviderCheck:
        return ProviderCheck(self.name, instance, severity, reason, message)


async def digest(content: Content) -> str:
    """The digest of an image's bytes, made by us: a decoder that an image has taken over could name another image's."""
    if content.is_hashed_at_once:
        return content.sha256()
    own = content.duplicate()  # the caller's may be closed meanwhile
    hashing = asyncio.ensure_future(asyncio.to_thread(own.sha256))
    hashing.add_done_callback(lambda _: own.close())
    return await asyncio.shield(hashing)


def _how_to_set_the_key(instance: str, provider: str) -> str:
    key = (*(("instances", instance) if instance != DEFAULTS else (DEFAULTS,)), provider, "api_key")
    return f"set {dotted(key)} or the secret {secret_name(key)}, or switch it off"


async def _refuse_to_shrink(content: Content, limits: JpegLimits) -> bytes:
    raise AssertionError("the check's image fits every service")
