"""Google Cloud Vision: labels from `images:annotate`, several images of one instance a call where they wait together.

Requests, answers and limits: https://cloud.google.com/vision/docs/reference/rest/v1/images/annotate and
https://cloud.google.com/vision/quotas.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from worker.errors import AutotagError, Misconfigured
from worker.images.requests import JpegLimits
from worker.providers.base import GOOGLE_CLOUD_VISION, Answer
from worker.providers.cloud.account_client import Account, AccountClient, AccountRules
from worker.providers.cloud.batching import Batcher, BatchLimits
from worker.providers.cloud.budget import CallBudget
from worker.providers.cloud.faults import GARBLED_ANSWER, ServiceFailed
from worker.providers.cloud.http_client import KeyHeader
from worker.providers.cloud.payload import Payload, ServiceLimits
from worker.providers.cloud.provider import CloudProvider, Target
from worker.providers.cloud.suggestions import suggestions_of
from worker.providers.google_errors import call_error, image_error
from worker.settings import GoogleCloudVisionSettings, InstanceSettings

MODEL = "builtin/stable"
"""The model that Vision uses when a request names none (`Feature.model`)."""

MAXIMUM_IMAGES = 16
MAXIMUM_JSON_BYTES = 10_000_000
"""The quota page says 10 MB; the service's own error speaks of 10 485 760 bytes. The smaller of the two is safe."""

_REQUEST_BYTES = 256
"""More than one request takes besides its image."""
_MAXIMUM_IMAGE_BYTES = (MAXIMUM_JSON_BYTES - 2 * _REQUEST_BYTES) // 4 * 3

_LIMITS = ServiceLimits(
    service="Google Cloud Vision",
    formats=frozenset({"BMP", "GIF", "ICO", "JPEG", "PNG", "TIFF", "WEBP"}),
    maximum_bytes=_MAXIMUM_IMAGE_BYTES,
    minimum_side=1,
    maximum_side=1_000_000,  # it resizes what has more than 75 megapixels by itself
    # 640 x 480 is enough for labels (https://cloud.google.com/vision/docs/supported-files); more only takes longer.
    jpeg=JpegLimits(maximum_bytes=_MAXIMUM_IMAGE_BYTES, maximum_width=2048, maximum_height=2048),
)
_MIME_TYPES = frozenset(
    {"image/bmp", "image/gif", "image/jpeg", "image/png", "image/tiff", "image/webp", "image/x-icon"}
)
_PATH = re.compile(r"(?:/v1(?P<parent>/projects/[^/]+(?:/locations/[^/]+)?)?(?:/images:annotate)?)?/?")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is wanted of one image."""

    payload: Payload
    maximum_number_of_results: int
    timeout_s: float


class GoogleAccountClient(AccountClient):
    """A client whose images travel together where they wait."""

    def __init__(
        self,
        account: Account,
        rules: AccountRules,
        budget: CallBudget,
        annotate: Callable[[Account, list[_Wanted]], Awaitable[list[Answer | AutotagError]]],
    ) -> None:
        super().__init__(account, rules, budget)
        self.batcher: Batcher[_Wanted, Answer] = Batcher(
            self,
            lambda wanted: annotate(account, wanted),
            BatchLimits(MAXIMUM_IMAGES, MAXIMUM_JSON_BYTES - _REQUEST_BYTES),
            maximum_calls=rules.maximum_calls_at_once,
        )

    async def close(self) -> None:
        """Break off its calls."""
        await self.batcher.close()


class GoogleCloudVision(CloudProvider[GoogleCloudVisionSettings, GoogleAccountClient]):
    """Names what Google Cloud Vision says of an image."""

    name: ClassVar[str] = GOOGLE_CLOUD_VISION
    service: ClassVar[str] = "Google Cloud Vision"

    def section(self, instance: InstanceSettings) -> GoogleCloudVisionSettings:
        """`google_cloud_vision` of an instance."""
        return instance.google_cloud_vision

    def target(self, section: GoogleCloudVisionSettings) -> Target:
        """The address of `images:annotate` at a plain, a regional or a project's own endpoint.

        `https://eu-vision.googleapis.com/v1/projects/NAME/locations/eu` keeps the work in the European Union.
        """
        parts = self.parsed_endpoint(section.endpoint, "endpoint")
        path = _PATH.fullmatch(parts.path)
        if path is None:
            raise Misconfigured(
                f"`google_cloud_vision.endpoint` can't be used: its path {parts.path!r} is not one of Cloud Vision's; "
                "leave it out, or write /v1/projects/NAME/locations/eu",
                reason="endpoint_unknown",
            )
        url = f"{parts.scheme}://{parts.netloc}/v1{path['parent'] or ''}/images:annotate"
        return Target(url, f"v1 {MODEL}", _LIMITS, _MIME_TYPES)

    def influences(self, section: GoogleCloudVisionSettings) -> list[object]:
        """How many labels are asked for."""
        return [section.maximum_number_of_results]

    def make_account_client(self, account: Account, rules: AccountRules, budget: CallBudget) -> GoogleAccountClient:
        """A client with a batcher."""
        return GoogleAccountClient(account, rules, budget, self._annotate)

    async def ask(
        self, client: GoogleAccountClient, target: Target, section: GoogleCloudVisionSettings, payload: Payload
    ) -> Answer:
        """Put the image among those that wait, and wait for its answer."""
        wanted = _Wanted(payload, section.maximum_number_of_results, section.timeout_s)
        return await client.batcher.submit(wanted, _json_bytes(payload.size_bytes))

    async def _annotate(self, account: Account, wanted: list[_Wanted]) -> list[Answer | AutotagError]:
        key = KeyHeader("X-Goog-Api-Key", account.key)
        images = await asyncio.gather(*(each.payload.read() for each in wanted))
        body = await asyncio.to_thread(_request, images, [each.maximum_number_of_results for each in wanted])
        timeout_s = max(each.timeout_s for each in wanted)
        answer = await self.http.post(account.url, key, body, content_type="application/json", timeout_s=timeout_s)
        tree = answer.tree()
        if answer.status != 200:
            raise call_error(answer, key, account.instance)
        responses = tree.get("responses") if tree is not None else None
        if not isinstance(responses, list) or len(responses) != len(wanted):
            raise ServiceFailed(
                f"Google Cloud Vision answered 200 with {answer.content_type} that is no annotation of {len(wanted)} "
                "images; is `google_cloud_vision.endpoint` right?",
                reason=GARBLED_ANSWER,
            )
        return [_read(each, one.payload.image.asset_id, key) for each, one in zip(responses, wanted, strict=True)]


def _json_bytes(image_bytes: int) -> int:
    return (image_bytes + 2) // 3 * 4 + _REQUEST_BYTES


def _request(images: list[bytes], maximum_numbers_of_results: list[int]) -> bytes:
    return json.dumps(
        {
            "requests": [
                {
                    "image": {"content": binascii.b2a_base64(image, newline=False).decode("ascii")},
                    "features": [{"type": "LABEL_DETECTION", "maxResults": most}],
                }
                for image, most in zip(images, maximum_numbers_of_results, strict=True)
            ]
        },
        separators=(",", ":"),
    ).encode("ascii")


def _read(response: object, asset_id: str, key: KeyHeader) -> Answer | AutotagError:
    """One image's part of an answer. Labels that came with an error are right all the same, says the service."""
    if not isinstance(response, dict):
        return ServiceFailed("Google Cloud Vision sent no annotation where one belongs", reason=GARBLED_ANSWER)
    labels = response.get("labelAnnotations")
    error = response.get("error")
    if error and not labels:
        return image_error(error if isinstance(error, dict) else {}, asset_id, key)
    if labels is not None and not isinstance(labels, list):
        return ServiceFailed("Google Cloud Vision sent labels in no known form", reason=GARBLED_ANSWER)
    try:
        # Proto3's JSON leaves a score of 0 out.
        pairs = [
            (label.get("description"), label.get("score", 0.0)) if isinstance(label, dict) else (None, None)
            for label in labels or []
        ]
        suggestions, note = suggestions_of("Google Cloud Vision", pairs)
    except ServiceFailed as fault:
        return fault
    if error:
        said = key.without_key(str(error.get("message", ""))) if isinstance(error, dict) else ""
        note = f"Google Cloud Vision gave only a part of its labels: {said}"
    return Answer(suggestions, f"{GoogleCloudVision.name}/v1 {MODEL}", note)
