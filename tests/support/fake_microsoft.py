"""A fake of Microsoft's vision service in its generations that follows its documentation.

It implements `/vision/v2.0` (and 2.1, 3.0, 3.1), `/vision/v3.2` and Image Analysis 4.0; the path selects one.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

from PIL import Image, UnidentifiedImageError

from tests.support.fake_service import Call, FakeService, Fault, Response

KEY_HEADER = "ocp-apim-subscription-key"
_V3 = re.compile(r"/vision/v(?P<version>2\.0|2\.1|3\.0|3\.1|3\.2)/tag")
_V4 = "/computervision/imageanalysis:analyze"
_OLD_LANGUAGES = {"en", "es", "ja", "pt", "zh"}
_OLD_FORMATS = {"BMP", "GIF", "JPEG", "PNG"}
_NEW_FORMATS = _OLD_FORMATS | {"ICO", "MPO", "TIFF", "WEBP"}
_API_VERSIONS = {"2023-10-01", "2024-02-01"}


def nested(status: int, code: str, message: str, inner: str | None = None, **headers: str) -> Response:
    """The error shape of the gateway, and of the service since version 3."""
    error: dict[str, Any] = {"code": code, "message": message}
    if inner is not None:
        error["innererror"] = {"code": inner, "message": message}
    return Response.json(status, {"error": error}, **headers)


def flat(status: int, code: str, message: str) -> Response:
    """The error shape of the service in version 2."""
    return Response.json(
        status, {"code": code, "requestId": "4dda2a35-4e4d-4b6d-8e5b-0d7b9b2c5a11", "message": message}
    )


def too_many(retry_after: str) -> Fault:
    message = f"Requests to the Computer Vision API have exceeded rate limit. Please retry after {retry_after} seconds."
    return Fault(nested(429, "429", message, Retry_After=retry_after))


OUT_OF_QUOTA = Response.json(
    403, {"error": {"code": "403", "message": "Out of call volume quota. Quota will be replenished in 12.03:30:56."}}
)
OUT_OF_QUOTA_AT_THE_GATEWAY = Response.json(403, {"statusCode": 403, "message": "Out of call volume quota."})
RETIRED = nested(410, "410", "This API version has been retired.")


class FakeMicrosoft(FakeService):
    """Accepts `keys`. `refusals` maps a key to its error response; `tags` replaces the tags of every image."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.accepted = set(keys)
        self.refusals: dict[str, Response] = {}
        self.tags: list[dict[str, Any]] | None = None

    def key_of(self, call: Call) -> str | None:
        return call.headers.get(KEY_HEADER)

    def answer(self, call: Call) -> Response:
        key = self.key_of(call)
        if key is None or (key not in self.accepted and key not in self.refusals):
            message = "Access denied due to invalid subscription key or wrong API endpoint."
            return nested(401, "401", message)
        if key in self.refusals:
            return self.refusals[key]
        if call.method == "POST" and (versioned := _V3.fullmatch(call.path)):
            return self._tag(call, versioned["version"])
        if call.method == "POST" and call.path == _V4:
            return self._analyze(call)
        return nested(404, "404", "Resource not found")

    def _tag(self, call: Call, version: str) -> Response:
        def refused(code: str, message: str) -> Response:
            if version < "3":
                return flat(400, code, message)
            return nested(400, "InvalidRequest", message, code)

        if call.headers.get("content-type") != "application/octet-stream":
            return refused("BadArgument", "Content-Type must be application/octet-stream.")
        if set(call.query) - {"language", "model-version"}:
            return refused("BadArgument", f"Unknown parameters {sorted(call.query)}.")
        if version < "3.2" and call.query.get("language", "en") not in _OLD_LANGUAGES:
            return refused("NotSupportedLanguage", "The language is not supported.")
        if len(call.body) >= 4 * 1024 * 1024:
            return refused("InvalidImageSize", "Input image is too large.")
        facts = _facts(call.body)
        if facts is None or facts["format"] not in _OLD_FORMATS:
            return refused("InvalidImageFormat", "Input data is not a valid image.")
        if min(facts["width"], facts["height"]) < 50:
            return refused("InvalidImageSize", "Image size is too small.")
        metadata = {"width": facts["width"], "height": facts["height"], "format": facts["format"].title()}
        tree = {
            "tags": self._tags(call.body),
            "requestId": "d4d0d4f9-6e5b-4c5f-9e0a-5f3f0c2b7a10",
            "metadata": metadata,
        }
        if version == "3.2":
            tree["modelVersion"] = "2021-05-01"
        return Response.json(200, tree)

    def _analyze(self, call: Call) -> Response:
        if call.query.get("api-version") not in _API_VERSIONS:
            return nested(
                400, "InvalidRequest", "The api-version is missing or not supported.", "NotSupportedApiVersion"
            )
        if call.query.get("features") != "tags" or set(call.query) - {"api-version", "features", "language"}:
            return nested(400, "InvalidRequest", "The features are not as expected.", "NotSupportedVisualFeature")
        if call.headers.get("content-type") != "application/octet-stream":
            return nested(415, "InvalidRequest", "The media type is not supported.", "UnsupportedMediaType")
        if len(call.body) >= 20 * 1024 * 1024:
            return nested(400, "InvalidRequest", "The image is too large.", "InvalidImageSize")
        facts = _facts(call.body)
        if facts is None or facts["format"] not in _NEW_FORMATS:
            return nested(400, "InvalidRequest", "The image format is not supported.", "InvalidImageFormat")
        if min(facts["width"], facts["height"]) < 50 or max(facts["width"], facts["height"]) > 16000:
            return nested(400, "InvalidRequest", "The image dimensions are out of range.", "InvalidImageSize")
        return Response.json(
            200,
            {
                "modelVersion": "2023-10-01",
                "metadata": {"width": facts["width"], "height": facts["height"]},
                "tagsResult": {"values": self._tags(call.body)},
            },
        )

    def _tags(self, image: bytes) -> list[dict[str, Any]]:
        return self.tags if self.tags is not None else tags_of(image)


def tags_of(image: bytes) -> list[dict[str, Any]]:
    digest = hashlib.sha256(image).hexdigest()[:12]
    return [
        {"name": f"image {digest}", "confidence": 0.9990226},
        {"name": "train", "confidence": 0.875},
        {"name": "outdoor", "confidence": 0.5},
    ]


def _facts(data: bytes) -> dict[str, Any] | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return {"format": image.format, "width": image.width, "height": image.height}
    except (UnidentifiedImageError, OSError):
        return None
