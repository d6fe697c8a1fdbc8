"""The HTTP inlet: a system posts what it has to say about an image to `/in/NAME`.

202 means that RabbitMQ has confirmed the event. Until then nothing is taken: the sender gets 503 with `Retry-After`
within `CONFIRM_WITHIN_S`, as some senders wait no longer than five seconds. CloudEvents (binary, structured, batches;
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md) of our own type are taken
as they are; all other JSON is read by the connection's mapping, a CloudEvent of another type in its structured form.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from worker.amqp.errors import NotPublished, Unpublishable
from worker.connect.intake import UploadIntake, UploadOutcome
from worker.connect.uploads import NotAnUpload, Upload, UploadMapping
from worker.http.json_response import JsonResponse
from worker.messages import EVENT_TYPE
from worker.settings import InletSettings

_log = structlog.get_logger(__name__)

MAXIMUM_BODY_BYTES: Final = 1 << 20
CONFIRM_WITHIN_S: Final = 3.5
_RETRY_AFTER_S: Final = 10
_BATCH: Final = "application/cloudevents-batch+json"
_STRUCTURED: Final = "application/cloudevents+json"
_MAXIMUM_BATCH: Final = 1000
_AT_ONCE: Final = 50
_PREFIX: Final = "ce-"


class HttpInlet:
    """One connection's inlet."""

    def __init__(self, settings: InletSettings, mapping: UploadMapping, intake: UploadIntake) -> None:
        self._header = settings.token_header
        self.what_it_needs = token_form(settings)
        self._is_bearer = _is_bearer(settings)
        self._token = settings.token.get_secret_value().encode() if settings.token is not None else None
        self._mapping = mapping
        self._intake = intake

    def lets_in(self, request: Request) -> bool:
        """Whether the request carries the token, compared in constant time."""
        given = request.headers.get(self._header, "")
        if self._is_bearer:
            scheme, _, given = given.partition(" ")
            if scheme.lower() != "bearer":
                return False
        return self._token is not None and hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)

    async def take(self, body: bytes, headers: Mapping[str, str]) -> dict[str, int]:
        """Take all that a body says; how many of each outcome.

        Raises NotAnUpload and Unpublishable before any is taken, and NotPublished within `CONFIRM_WITHIN_S`, however
        many there are: those that were confirmed by then are seen, or the same event, when they are sent again.
        """
        until_s = time.monotonic() + CONFIRM_WITHIN_S
        uploads = [self._upload(document) for document in _documents(body, headers)]
        counts = dict.fromkeys((UploadOutcome.PUBLISHED, UploadOutcome.SEEN, UploadOutcome.PASSED_OVER), 0)
        counts[UploadOutcome.PASSED_OVER] = uploads.count(None)
        for _ in range(counts[UploadOutcome.PASSED_OVER]):
            self._intake.count(UploadOutcome.PASSED_OVER)
        wanted = [each for each in uploads if each is not None]
        for first in range(0, len(wanted), _AT_ONCE):
            # All are waited for: no publication goes on behind the back of an answer.
            outcomes = await asyncio.gather(
                *(self._take(each, until_s) for each in wanted[first : first + _AT_ONCE]), return_exceptions=True
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                counts[outcome] += 1
        return {outcome.value: count for outcome, count in counts.items()}

    async def _take(self, upload: Upload, until_s: float) -> UploadOutcome:
        return await self._intake.take(upload, within_s=max(0.0, until_s - time.monotonic()))

    def refused(self) -> None:
        """Count a message that can't be read."""
        self._intake.count(UploadOutcome.REFUSED)

    def _upload(self, document: Any) -> Upload | None:
        if isinstance(document, Mapping) and document.get("type") == EVENT_TYPE and "specversion" in document:
            return self._mapping.own(document)
        if not self._mapping.is_set:
            raise NotAnUpload(f"type: this inlet takes CloudEvents of the type {EVENT_TYPE} only")
        return self._mapping.upload(document)


def token_form(settings: InletSettings) -> str:
    """How a sender has to send the token, for people."""
    return f"the header {settings.token_header}: {'Bearer TOKEN' if _is_bearer(settings) else 'TOKEN'}"


def _is_bearer(settings: InletSettings) -> bool:
    return settings.token_header.lower() == "authorization"


async def receive(request: Request) -> Response:
    """`POST /in/NAME`."""
    if request.method != "POST":
        return _answer(405, {"error": "an inlet takes POST"}, {"Allow": "POST"})
    inlets: Mapping[str, HttpInlet] = request.app.state.connector.inlets
    refusals = request.app.state.connector.inlet_refusals
    name = request.path_params["name"]
    inlet = inlets.get(name)
    if inlet is None:
        refusals.labels("unknown", "no_inlet").inc()
        return _answer(404, {"error": "there is no inlet of this name"})
    if not inlet.lets_in(request):
        refusals.labels(name, "token").inc()
        return _answer(401, {"error": f"needs {inlet.what_it_needs}"}, {"WWW-Authenticate": 'Bearer realm="autotag"'})
    try:
        body = await _body(request)
    except ClientDisconnect:
        return Response(status_code=400)
    if body is None:
        refusals.labels(name, "too_large").inc()
        return _answer(413, {"error": f"the body has more than {MAXIMUM_BODY_BYTES:,} bytes"})
    try:
        counts = await inlet.take(body, request.headers)
    except NotAnUpload as error:
        inlet.refused()
        _log.warning("a message is no upload", connection=name, why=str(error))
        return _answer(400, {"error": str(error)})
    except Unpublishable as error:
        inlet.refused()
        return _answer(400, {"error": str(error)})
    except NotPublished as error:
        refusals.labels(name, "not_published").inc()
        _log.warning("an upload could not be published, and its sender was asked to come again", why=str(error))
        return _answer(503, {"error": str(error)}, {"Retry-After": str(_RETRY_AFTER_S)})
    return _answer(202, counts)


async def _body(request: Request) -> bytes | None:
    """The whole body; None if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAXIMUM_BODY_BYTES:
            return None
    return bytes(body)


def _documents(body: bytes, headers: Mapping[str, str]) -> Iterator[Any] | Sequence[Any]:
    """What a request says: one JSON document, or each event of a batch."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if f"{_PREFIX}specversion" in headers and media_type not in (_STRUCTURED, _BATCH):
        return [_binary(body, headers, media_type)]
    document = _json(body)
    if media_type != _BATCH:
        return [document]
    if not isinstance(document, list) or len(document) > _MAXIMUM_BATCH:
        raise NotAnUpload(f"a batch must be a list of at most {_MAXIMUM_BATCH} events")
    return document


def _binary(body: bytes, headers: Mapping[str, str], media_type: str) -> dict[str, Any]:
    """A CloudEvent whose attributes are in headers, in its structured form."""
    attributes: dict[str, Any] = {
        name.lower().removeprefix(_PREFIX): unquote(value)
        for name, value in headers.items()
        if name.lower().startswith(_PREFIX)
    }
    if media_type and not (media_type == "application/json" or media_type.endswith("+json")):
        return {**attributes, "datacontenttype": media_type, "data_base64": base64.b64encode(body).decode()}
    return {**attributes, "data": _json(body)}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise NotAnUpload(f"the body is no JSON: {error}") from None


def _answer(status: int, content: Mapping[str, object], headers: Mapping[str, str] | None = None) -> JsonResponse:
    return JsonResponse(dict(content), status, {"Cache-Control": "no-store", **(headers or {})})


routes = [Route("/in/{name}", receive, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])]
