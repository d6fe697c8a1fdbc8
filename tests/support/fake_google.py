"""A fake Google Cloud Vision that follows its documentation and validates requests strictly.

Its labels are derived from the image's digest, so that a test can check that an answer belongs to its own image.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any

from tests.support.fake_service import Call, FakeService, Fault, Response, respond_with

MAXIMUM_JSON_BYTES = 10_000_000
MAXIMUM_IMAGES = 16
_PATH = re.compile(r"/v1(/projects/[a-z0-9-]+(/locations/(us|eu|asia))?)?/images:annotate")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF", b"\x00\x00\x01\x00", b"II*\x00", b"MM\x00*")
_DOMAIN = "type.googleapis.com/google.rpc."


def error(code: int, message: str, status: str, reason: str | None = None, **headers: str) -> Response:
    """An error in the format of Google's HTTP front end, with a google.rpc.ErrorInfo if there is a reason."""
    tree: dict[str, Any] = {"code": code, "message": message, "status": status}
    if reason is not None:
        metadata = {"service": "vision.googleapis.com", "consumer": "projects/123456789012"}
        tree["details"] = [
            {"@type": f"{_DOMAIN}ErrorInfo", "reason": reason, "domain": "googleapis.com", "metadata": metadata}
        ]
    return Response.json(code, {"error": tree}, **headers)


def too_many(retry_after: str | None = None) -> Fault:
    headers = {"Retry_After": retry_after} if retry_after is not None else {}
    return Fault(error(429, "Quota exceeded for quota metric 'Requests'.", "RESOURCE_EXHAUSTED", **headers))


def unavailable() -> Fault:
    return respond_with(
        503, {"error": {"code": 503, "message": "The service is unavailable.", "status": "UNAVAILABLE"}}
    )


API_DISABLED = error(
    403,
    "Cloud Vision API has not been used in project 123456789012 before or it is disabled.",
    "PERMISSION_DENIED",
    "SERVICE_DISABLED",
)
BILLING_DISABLED = error(
    403, "This API method requires billing to be enabled.", "PERMISSION_DENIED", "BILLING_DISABLED"
)
KEY_RESTRICTED = error(
    403, "The provided API key has an IP address restriction.", "PERMISSION_DENIED", "API_KEY_IP_ADDRESS_BLOCKED"
)


class FakeGoogle(FakeService):
    """Accepts `keys`. `refusals` maps a key to its error response; `labels` replaces the labels of every image."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.accepted = set(keys)
        self.refusals: dict[str, Response] = {}
        self.labels: list[dict[str, Any]] | None = None
        self.image_errors: dict[bytes, dict[str, Any]] = {}
        """The part of the response for images that contain these bytes."""

    def key_of(self, call: Call) -> str | None:
        return call.headers.get("x-goog-api-key")

    @property
    def batch_sizes(self) -> list[int]:
        return [len(call.json()["requests"]) for call in self.calls]

    def answer(self, call: Call) -> Response:
        key = self.key_of(call)
        if call.method != "POST" or not _PATH.fullmatch(call.path):
            return Response(
                404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", {"Content-Type": "text/html"}
            )
        if key is None or call.query:
            message = "The request is missing a valid API key."
            return error(403, message, "PERMISSION_DENIED")
        if key in self.refusals:
            return self.refusals[key]
        if key not in self.accepted:
            message = "API key not valid. Please pass a valid API key."
            return error(400, message, "INVALID_ARGUMENT", "API_KEY_INVALID")
        if len(call.body) > MAXIMUM_JSON_BYTES:
            return error(400, "Request payload size exceeds the limit: 10485760 bytes.", "INVALID_ARGUMENT")
        try:
            _check_headers(call)
            images = [_image(request) for request in _requests(call)]
        except ValueError as problem:
            return error(400, f"Invalid JSON payload received. {problem}", "INVALID_ARGUMENT")
        return Response.json(200, {"responses": [self._annotate(*image) for image in images]})

    def _annotate(self, image: bytes, maximum: int) -> dict[str, Any]:
        for marker, part in self.image_errors.items():
            if marker in image:
                return part
        if not image.startswith(_MAGIC):
            return {"error": {"code": 3, "message": "Bad image data."}}
        labels = self.labels if self.labels is not None else labels_of(image)
        return {"labelAnnotations": labels[:maximum]} if labels else {}


def labels_of(image: bytes) -> list[dict[str, Any]]:
    digest = hashlib.sha256(image).hexdigest()[:12]
    return [
        {"mid": "/m/0c9ph5", "description": f"image {digest}", "score": 0.95, "topicality": 0.95},
        {"mid": "/m/01yrx", "description": "Freight car", "score": 0.8125, "topicality": 0.25},
        {"mid": "/m/0k4j", "description": "Rolling stock", "score": 0.5, "topicality": 0.125},
    ]


def _check_headers(call: Call) -> None:
    if call.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ValueError("Content-Type must be application/json")


def _requests(call: Call) -> list[dict[str, Any]]:
    tree = json.loads(call.body)
    _only(tree, "requests", "parent", "labels")
    requests = tree["requests"]
    if not isinstance(requests, list) or not 1 <= len(requests) <= MAXIMUM_IMAGES:
        raise ValueError(f"Too many or no images in a request: {len(requests)}")
    return requests


def _image(request: dict[str, Any]) -> tuple[bytes, int]:
    _only(request, "image", "features", "imageContext")
    _only(request["image"], "content")
    if len(request["features"]) != 1:
        raise ValueError("one feature is expected")
    feature = request["features"][0]
    _only(feature, "type", "maxResults", "model")
    if feature["type"] != "LABEL_DETECTION" or type(feature.get("maxResults", 10)) is not int:
        raise ValueError("Invalid value at 'requests[0].features[0]'")
    try:
        return base64.b64decode(request["image"]["content"], validate=True), feature.get("maxResults", 10)
    except binascii.Error:
        raise ValueError("Invalid value at 'requests[0].image.content' (TYPE_BYTES), Base64 decoding failed") from None


def _only(tree: dict[str, Any], *names: str) -> None:
    if unknown := set(tree) - set(names):
        raise ValueError(f'Unknown name "{unknown.pop()}": Cannot find field.')
