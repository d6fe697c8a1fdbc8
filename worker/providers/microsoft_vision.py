"""Microsoft's vision service in its three generations; the endpoint's path selects one.

- `/vision/v2.0` and the other retired versions: `POST …/tag`, which Autotag's predecessor used;
- `/vision/v3.2`: the same with a model version;
- no path, as the resource's page shows the endpoint: Image Analysis 4.0.

https://learn.microsoft.com/azure/ai-services/computer-vision/overview-image-analysis
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

from worker.errors import Misconfigured
from worker.images.requests import JpegLimits
from worker.providers.base import MICROSOFT_VISION, Answer
from worker.providers.cloud.account_client import Account, AccountClient, AccountRules
from worker.providers.cloud.budget import CallBudget
from worker.providers.cloud.errors import GARBLED_ANSWER, ServiceFailed, answer_read
from worker.providers.cloud.http_client import HttpResponse, KeyHeader
from worker.providers.cloud.payload import Payload, ServiceLimits
from worker.providers.cloud.places import Places
from worker.providers.cloud.provider import CloudProvider, Endpoint
from worker.providers.cloud.sharing import Interest
from worker.providers.cloud.suggestions import parse_suggestions
from worker.providers.microsoft_errors import SERVICE, call_error
from worker.settings import InstanceSettings, MicrosoftVisionSettings

API_VERSION = "2023-10-01"
"""The API version of Image Analysis 4.0: the newest in its reference and in Microsoft's own clients."""

RETIRED = frozenset({"1.0", "2.0", "2.1", "3.0", "3.1"})
RETIRED_ON = "2026-09-13"
CURRENT = frozenset({"3.2"})
LANGUAGES_BEFORE_3_2 = frozenset({"en", "es", "ja", "pt", "zh"})

_PATH_3 = re.compile(r"(?P<base>.*/vision/v(?P<version>[0-9]+\.[0-9]+))(?:/(?:tag|analyze))?/*")
_PATH_4 = re.compile(r"(?P<base>(?:/[^/]+)*?)(?:/computervision(?:/imageanalysis:analyze)?)?/*")

_LESS_THAN_4_MB = 4 * 1024 * 1024 - 1
_JPEG = JpegLimits(_LESS_THAN_4_MB, 2048, 2048, minimum_width=64, minimum_height=64)
"""Within the limits of every generation."""

_MIME_TYPES_3 = frozenset({"image/bmp", "image/gif", "image/jpeg", "image/png"})
_LIMITS_3 = ServiceLimits(
    service=SERVICE,
    formats=frozenset({"BMP", "GIF", "JPEG", "PNG"}),
    maximum_bytes=_LESS_THAN_4_MB,
    minimum_side=50,
    maximum_side=1_000_000,  # these versions document none
    jpeg=_JPEG,
)
_LIMITS_4 = ServiceLimits(
    service=SERVICE,
    formats=frozenset({"BMP", "GIF", "ICO", "JPEG", "MPO", "PNG", "TIFF", "WEBP"}),
    maximum_bytes=20 * 1024 * 1024 - 1,  # "less than 20 MB"
    minimum_side=50,
    maximum_side=16_000,
    jpeg=_JPEG,
)


@dataclass(frozen=True, slots=True)
class Api:
    """One generation of the service: its version, and the URL to POST to, without the query."""

    version: str
    url: str

    @property
    def retired(self) -> bool:
        """Whether Microsoft has retired this version."""
        return self.version in RETIRED


class MicrosoftVision(CloudProvider[MicrosoftVisionSettings, AccountClient]):
    """Suggests the tags that Microsoft's vision service detects."""

    name: str = MICROSOFT_VISION
    service: ClassVar[str] = SERVICE

    def section(self, instance: InstanceSettings) -> MicrosoftVisionSettings:
        """The table `microsoft_vision` of an instance."""
        return instance.microsoft_vision

    def endpoint(self, section: MicrosoftVisionSettings) -> Endpoint:
        """The address and limits of the generation that `api_endpoint` selects, with the language in the query."""
        api = self._api(section)
        if api.version == "4.0":
            query = {"api-version": API_VERSION, "features": "tags", "language": section.language}
            mime_types = _MIME_TYPES_3 | {"image/tiff", "image/webp", "image/x-icon", "image/mpo"}
            return Endpoint(f"{api.url}?{urlencode(query)}", f"4.0 {API_VERSION}", _LIMITS_4, mime_types)
        if api.retired and section.language not in LANGUAGES_BEFORE_3_2:
            raise Misconfigured(
                f"`microsoft_vision.language` is {section.language}; version {api.version} knows "
                f"{', '.join(sorted(LANGUAGES_BEFORE_3_2))}",
                reason="language_not_supported",
            )
        warning = (
            f"{SERVICE} {api.version} was retired on {RETIRED_ON}: calls to `{section.api_endpoint}` may be refused "
            "at any time; use the resource's endpoint without a path (Image Analysis 4.0) or with /vision/v3.2"
            if api.retired
            else None
        )
        url = f"{api.url}?{urlencode({'language': section.language})}"
        return Endpoint(url, api.version, _LIMITS_3, _MIME_TYPES_3, warning)

    def answer_settings(self, section: MicrosoftVisionSettings) -> list[object]:
        """None: the language is a part of the endpoint's URL."""
        return []

    def make_account_client(
        self, account: Account, rules: AccountRules, budget: CallBudget, places: Places
    ) -> AccountClient:
        """A plain client: the service accepts one image a call."""
        return AccountClient(account, rules, budget, places)

    async def request_tags(
        self,
        client: AccountClient,
        endpoint: Endpoint,
        section: MicrosoftVisionSettings,
        payload: Payload,
        interest: Interest,
    ) -> Answer:
        """Send the bytes of one image."""
        return await client.call(payload.read, lambda data: self._analyze(client.account, section, data), interest)

    async def _analyze(self, account: Account, section: MicrosoftVisionSettings, image: bytes) -> Answer:
        api = self._api(section)
        key = KeyHeader("Ocp-Apim-Subscription-Key", account.key)
        response = await self.http_client.post(
            account.url,
            key,
            image,
            content_type="application/octet-stream",
            timeout_s=section.timeout_s,
        )
        with answer_read(SERVICE):
            return self._read(response, key, account, api)

    def _read(self, response: HttpResponse, key: KeyHeader, account: Account, api: Api) -> Answer:
        if response.status != 200:
            raise call_error(response, key, instance=account.instance, retired=api.retired)
        tree = response.json_object() or {}
        tags = _tags(tree, api)
        if tags is None:
            raise ServiceFailed(
                f"{SERVICE} answered 200 with {response.content_type} that holds no tags of version {api.version}; "
                "is `microsoft_vision.api_endpoint` right?",
                reason=GARBLED_ANSWER,
            )
        suggestions, note = parse_suggestions(SERVICE, tags)
        return Answer(suggestions, _model(tree, api), note)

    def _api(self, section: MicrosoftVisionSettings) -> Api:
        if not section.api_endpoint:
            raise Misconfigured(
                f"{SERVICE} is switched on without an endpoint; set `microsoft_vision.api_endpoint`",
                reason="endpoint_missing",
            )
        parts = self.parse_endpoint(section.api_endpoint, "api_endpoint")
        origin = f"{parts.scheme}://{parts.netloc}"
        if versioned := _PATH_3.fullmatch(parts.path):
            version = versioned["version"]
            if version in RETIRED | CURRENT:
                return Api(version, f"{origin}{versioned['base']}/tag")
        elif "/vision" not in parts.path and (bare := _PATH_4.fullmatch(parts.path)):
            return Api("4.0", f"{origin}{bare['base']}/computervision/imageanalysis:analyze")
        raise Misconfigured(
            f"`microsoft_vision.api_endpoint` can't be used: {parts.path!r} is no path of the service; leave it out "
            "for Image Analysis 4.0, or write /vision/v3.2",
            reason="endpoint_unknown",
        )


def _tags(tree: dict[str, Any], api: Api) -> list[tuple[object, object]] | None:
    """Pairs of name and confidence, or None if the body is not in this version's format."""
    holder = tree.get("tagsResult") if api.version == "4.0" else tree
    tags = holder.get("values" if api.version == "4.0" else "tags") if isinstance(holder, dict) else None
    if not isinstance(tags, list):
        return None
    return [(tag.get("name"), tag.get("confidence")) if isinstance(tag, dict) else (None, None) for tag in tags]


def _model(tree: dict[str, Any], api: Api) -> str:
    """The provider, the API version, and the model version where the service reports one."""
    version = tree.get("modelVersion")
    known = isinstance(version, str) and re.fullmatch(r"[0-9A-Za-z.-]{1,40}", version)
    return f"{MicrosoftVision.name}/{api.version}" + (f" {version}" if known else "")
