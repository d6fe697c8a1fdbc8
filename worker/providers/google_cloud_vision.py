"""Google Cloud Vision: labels from `images:annotate`. Queued images of one instance are sent in batches.

Requests, responses and limits: https://cloud.google.com/vision/docs/reference/rest/v1/images/annotate and
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
from worker.providers.cloud.errors import GARBLED_ANSWER, ServiceFailed, answer_read
from worker.providers.cloud.http_client import HttpResponse, KeyHeader
from worker.providers.cloud.payload import Payload, ServiceLimits
from worker.providers.cloud.places import Places
from worker.providers.cloud.provider import CloudProvider, Endpoint
from worker.providers.cloud.sharing import Interest
from worker.providers.cloud.suggestions import parse_suggestions
from worker.providers.google_errors import SERVICE, call_error, image_error
from worker.settings import GoogleCloudVisionSettings, InstanceSettings

MODEL = "builtin/stable"
"""The model that Vision uses when a request names none (`Feature.model`)."""

MAXIMUM_IMAGES = 16
MAXIMUM_JSON_BYTES = 10_000_000
"""The quota page documents 10 MB; the service's own error names 10 485 760 bytes. The smaller limit is safe."""

_REQUEST_BYTES = 256
"""An upper bound for the JSON of one image's request without the image."""
_MAXIMUM_IMAGE_BYTES = (MAXIMUM_JSON_BYTES - 2 * _REQUEST_BYTES) // 4 * 3

_LIMITS = ServiceLimits(
    service=SERVICE,
    formats=frozenset({"BMP", "GIF", "ICO", "JPEG", "PNG", "TIFF", "WEBP"}),
    maximum_bytes=_MAXIMUM_IMAGE_BYTES,
    minimum_side=1,
    maximum_side=1_000_000,  # the service itself scales down images of more than 75 megapixels
    # 640 x 480 is enough for labels (https://cloud.google.com/vision/docs/supported-files); more is only slower.
    jpeg=JpegLimits(maximum_bytes=_MAXIMUM_IMAGE_BYTES, maximum_width=2048, maximum_height=2048),
)
_MIME_TYPES = frozenset(
    {"image/bmp", "image/gif", "image/jpeg", "image/png", "image/tiff", "image/webp", "image/x-icon"}
)
_PATH = re.compile(r"(?:/v1(?P<parent>/projects/[^/]+(?:/locations/[^/]+)?)?(?:/images:annotate)?)?/?")


@dataclass(frozen=True, slots=True)
class _Annotation:
    """The request to annotate one image."""

    payload: Payload
    maximum_number_of_results: int
    timeout_s: float


class GoogleAccountClient(AccountClient):
    """A client that sends queued images of its account in batches."""

    images_per_call: ClassVar[int] = MAXIMUM_IMAGES

    def __init__(
        self,
        account: Account,
        rules: AccountRules,
        budget: CallBudget,
        places: Places,
        annotate: Callable[[Account, list[tuple[_Annotation, bytes]]], Awaitable[list[Answer | AutotagError]]],
    ) -> None:
        super().__init__(account, rules, budget, places)
        self.batcher: Batcher[_Annotation, Answer] = Batcher(
            self,
            lambda annotation: annotation.payload.read(),
            lambda annotations: annotate(account, annotations),
            BatchLimits(MAXIMUM_IMAGES, MAXIMUM_JSON_BYTES - _REQUEST_BYTES),
            maximum_calls=rules.maximum_calls_at_once,
        )

    def line_waited_s(self, now_s: float) -> float:
        """How long the first image in the queue has waited for a call, or such a call has hung."""
        return max(self.batcher.waited_s(now_s), super().line_waited_s(now_s))

    async def close(self) -> None:
        """Cancel the calls in flight; their images fail with TryLater."""
        await self.batcher.close()


class GoogleCloudVision(CloudProvider[GoogleCloudVisionSettings, GoogleAccountClient]):
    """Suggests the labels that Google Cloud Vision detects."""

    name: str = GOOGLE_CLOUD_VISION
    service: ClassVar[str] = SERVICE

    def section(self, instance: InstanceSettings) -> GoogleCloudVisionSettings:
        """The table `google_cloud_vision` of an instance."""
        return instance.google_cloud_vision

    def endpoint(self, section: GoogleCloudVisionSettings) -> Endpoint:
        """`images:annotate` at the global, a regional or a project's own endpoint.

        `https://eu-vision.googleapis.com/v1/projects/NAME/locations/eu` keeps the processing in the European Union.
        """
        parts = self.parse_endpoint(section.endpoint, "endpoint")
        path = _PATH.fullmatch(parts.path)
        if path is None:
            raise Misconfigured(
                f"`google_cloud_vision.endpoint` can't be used: its path {parts.path!r} is not one of Cloud Vision's; "
                "leave it out, or write /v1/projects/NAME/locations/eu",
                reason="endpoint_unknown",
            )
        url = f"{parts.scheme}://{parts.netloc}/v1{path['parent'] or ''}/images:annotate"
        return Endpoint(url, f"v1 {MODEL}", _LIMITS, _MIME_TYPES)

    def answer_settings(self, section: GoogleCloudVisionSettings) -> list[object]:
        """The number of labels requested."""
        return [section.maximum_number_of_results]

    def make_account_client(
        self, account: Account, rules: AccountRules, budget: CallBudget, places: Places
    ) -> GoogleAccountClient:
        """A client that batches images."""
        return GoogleAccountClient(account, rules, budget, places, self._annotate)

    async def request_tags(
        self,
        client: GoogleAccountClient,
        endpoint: Endpoint,
        section: GoogleCloudVisionSettings,
        payload: Payload,
        interest: Interest,
    ) -> Answer:
        """Queue the image for the next batch, and wait for its answer."""
        annotation = _Annotation(payload, section.maximum_number_of_results, section.timeout_s)
        return await client.batcher.submit(annotation, _json_bytes(payload.size_bytes), interest)

    async def _annotate(
        self, account: Account, annotations: list[tuple[_Annotation, bytes]]
    ) -> list[Answer | AutotagError]:
        key = KeyHeader("X-Goog-Api-Key", account.key)
        body = await asyncio.to_thread(
            _request_body,
            [image for _, image in annotations],
            [each.maximum_number_of_results for each, _ in annotations],
        )
        timeout_s = max(each.timeout_s for each, _ in annotations)
        response = await self.http_client.post(
            account.url, key, body, content_type="application/json", timeout_s=timeout_s
        )
        with answer_read(SERVICE):
            return self._read(response, key, account, annotations)

    def _read(
        self, response: HttpResponse, key: KeyHeader, account: Account, annotations: list[tuple[_Annotation, bytes]]
    ) -> list[Answer | AutotagError]:
        if response.status != 200:
            raise call_error(response, key, account.instance)
        tree = response.json_object()
        parts = tree.get("responses") if tree is not None else None
        if not isinstance(parts, list) or len(parts) != len(annotations):
            raise ServiceFailed(
                f"{SERVICE} answered 200 with {response.content_type} that is no annotation of {len(annotations)} "
                "images; is `google_cloud_vision.endpoint` right?",
                reason=GARBLED_ANSWER,
            )
        return [_annotation_or_failure(part, key) for part in parts]


def _json_bytes(image_bytes: int) -> int:
    return (image_bytes + 2) // 3 * 4 + _REQUEST_BYTES


def _request_body(images: list[bytes], maximum_numbers_of_results: list[int]) -> bytes:
    return json.dumps(
        {
            "requests": [
                {
                    "image": {"content": binascii.b2a_base64(image, newline=False).decode("ascii")},
                    "features": [{"type": "LABEL_DETECTION", "maxResults": maximum}],
                }
                for image, maximum in zip(images, maximum_numbers_of_results, strict=True)
            ]
        },
        separators=(",", ":"),
    ).encode("ascii")


def _annotation_or_failure(part: object, key: KeyHeader) -> Answer | AutotagError:
    """One image's part of a response, which says nothing about the other images of the call."""
    try:
        with answer_read(SERVICE):
            return _parse_annotation(part, key)
    except ServiceFailed as failure:
        return failure


def _parse_annotation(part: object, key: KeyHeader) -> Answer | AutotagError:
    """The answer in one image's part of a response. Labels next to an error are valid, according to the reference."""
    if not isinstance(part, dict):
        return ServiceFailed(f"{SERVICE} sent no annotation where one belongs", reason=GARBLED_ANSWER)
    labels = part.get("labelAnnotations")
    error = part.get("error")
    if error and not labels:
        return image_error(error if isinstance(error, dict) else {}, key)
    if labels is not None and not isinstance(labels, list):
        return ServiceFailed(f"{SERVICE} sent labels in no known form", reason=GARBLED_ANSWER)
    # The JSON mapping of proto3 omits a score of 0.
    pairs = [
        (label.get("description"), label.get("score", 0.0)) if isinstance(label, dict) else (None, None)
        for label in labels or []
    ]
    suggestions, note = parse_suggestions(SERVICE, pairs)
    if error:
        message = key.redact(str(error.get("message", ""))) if isinstance(error, dict) else ""
        note = f"{SERVICE} gave only a part of its labels: {message}"
    return Answer(suggestions, f"{GoogleCloudVision.name}/v1 {MODEL}", note)
