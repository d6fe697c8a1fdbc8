"""Translates errors of Microsoft's vision service: what they mean for an image, an operator, and the next call.

There are three shapes, whatever the version: `{"error": {"code", "message", "innererror"}}` from the service since 3.x
and from the gateway before it, `{"code", "message"}` from version 2, `{"statusCode", "message"}` from API Management.
"""

from __future__ import annotations

from typing import Any

from worker.errors import AutotagError, CannotBeDone, Misconfigured, Unavailable
from worker.providers.cloud.errors import GARBLED_ANSWER, ServiceFailed, steady, transient_error
from worker.providers.cloud.http_client import HttpResponse, KeyHeader
from worker.sources.retry_after import retry_after_s

SERVICE = "Microsoft's vision service"
"""The service's name in messages for people."""

SETTINGS_CODES = {
    "NotSupportedLanguage": "language_not_supported",
    "NotSupportedFeature": "feature_not_supported",
    "NotSupportedVisualFeature": "feature_not_supported",
    "InvalidModel": "model_not_supported",
}
"""Codes with HTTP 400 that do not depend on the image. All other codes with 400 are taken to be about the image."""

_ADVICE = {
    "microsoft_key_refused": "set `microsoft_vision.api_key` to a key of the resource that `api_endpoint` names",
    "microsoft_refused": "see to the resource's network rules and permissions",
    "endpoint_unknown": "correct `microsoft_vision.api_endpoint`",
    "api_retired": "use the resource's endpoint without a path (Image Analysis 4.0) or with /vision/v3.2",
    "language_not_supported": "correct `microsoft_vision.language`",
    "feature_not_supported": "use a resource in a region that offers image analysis",
    "model_not_supported": "use a resource in a region that offers image analysis",
}


def call_error(response: HttpResponse, key: KeyHeader, *, instance: str, retired: bool) -> AutotagError:
    """The error for a response with a status other than 200. `retired`: whether the API version called is retired."""
    codes, text = _codes_and_message(response.json_object() or {})
    message = key.redact(text or f"no explanation, {response.content_type}")
    status = response.status
    transient = transient_error(SERVICE, status, retry_after_s(response.headers.get("retry-after")), message)
    if transient is not None:
        return transient
    if status == 403 and "quota" in message.lower():
        return Unavailable(
            f"{SERVICE}: the quota of instance {instance} is used up: {steady(message)}", reason="quota_used_up"
        )
    if reason := _operator_reason(status, codes, retired=retired):
        return Misconfigured(
            f"{SERVICE} refused the call of instance {instance} (HTTP {status}): {message}; {_ADVICE[reason]}",
            reason=reason,
        )
    if status == 413 or "InvalidImageSize" in codes:
        return CannotBeDone(f"{SERVICE} does not take the size of the image: {message}", reason="image_too_large")
    if status >= 400:
        return CannotBeDone(f"{SERVICE} can't tag the image: {message}", reason="image_refused")
    return ServiceFailed(f"{SERVICE} answered with HTTP {status}", reason=GARBLED_ANSWER)


def _codes_and_message(tree: dict[str, Any]) -> tuple[set[str], str]:
    nested = tree.get("error")
    error = nested if isinstance(nested, dict) else tree
    inner = error.get("innererror")
    inner = inner if isinstance(inner, dict) else {}
    codes = {str(code) for code in (error.get("code"), error.get("statusCode"), inner.get("code")) if code is not None}
    return codes, str(inner.get("message") or error.get("message") or "")


def _operator_reason(status: int, codes: set[str], *, retired: bool) -> str | None:
    """The reason of an error that only an operator can fix; None for every other error."""
    match status:
        case 401:
            return "microsoft_key_refused"
        case 403:
            return "microsoft_refused"
        case 404 | 410:
            return "api_retired" if retired or status == 410 else "endpoint_unknown"
        case _ if 300 <= status < 400:
            return "endpoint_unknown"
        case _:
            return next((reason for code, reason in SETTINGS_CODES.items() if code in codes), None)
