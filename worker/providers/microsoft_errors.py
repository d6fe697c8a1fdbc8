"""What the errors of Microsoft's vision service mean for an image, an operator, and the next call.

Three shapes come, whatever the version: `{"error": {"code", "message", "innererror"}}` from the service since 3.x and
from the gateway before it, `{"code", "message"}` from version 2, `{"statusCode", "message"}` from API Management.
"""

from __future__ import annotations

from typing import Any

from worker.errors import AutotagError, CannotBeDone, Misconfigured, Unavailable
from worker.providers.cloud.faults import GARBLED_ANSWER, ServiceFailed, passing_fault
from worker.providers.cloud.http_client import HttpAnswer, KeyHeader
from worker.providers.cloud.retry_after import retry_after_s

_SERVICE = "Microsoft's vision service"

SETTINGS_CODES = {
    "NotSupportedLanguage": "language_not_supported",
    "NotSupportedFeature": "feature_not_supported",
    "NotSupportedVisualFeature": "feature_not_supported",
    "InvalidModel": "model_not_supported",
}
"""Codes under HTTP 400 that no other image would change. All other codes under 400 are taken to be about the image."""

_ADVICE = {
    "microsoft_key_refused": "set `microsoft_vision.api_key` to a key of the resource that `api_endpoint` names",
    "microsoft_refused": "see to the resource's network rules and permissions",
    "endpoint_unknown": "correct `microsoft_vision.api_endpoint`",
    "api_retired": "use the resource's endpoint without a path (Image Analysis 4.0) or with /vision/v3.2",
    "language_not_supported": "correct `microsoft_vision.language`",
    "feature_not_supported": "use a resource in a region that offers image analysis",
    "model_not_supported": "use a resource in a region that offers image analysis",
}


def call_error(answer: HttpAnswer, key: KeyHeader, *, instance: str, asset_id: str, retired: bool) -> AutotagError:
    """The error for a call that ended in a status other than 200. `retired`: the version asked for is a retired one."""
    codes, message = _codes_and_message(answer.tree() or {})
    said = key.without_key(message or f"no explanation, {answer.content_type}")
    passing = passing_fault(_SERVICE, answer.status, retry_after_s(answer.headers.get("retry-after")), said)
    if passing is not None:
        return passing
    if answer.status == 403 and "quota" in said.lower():
        return Unavailable(f"{_SERVICE}: the quota of instance {instance} is used up: {said}", reason="quota_used_up")
    if reason := _operators_matter(answer.status, codes, retired=retired):
        return Misconfigured(
            f"{_SERVICE} refused the call of instance {instance} (HTTP {answer.status}): {said}; {_ADVICE[reason]}",
            reason=reason,
        )
    if answer.status == 413 or "InvalidImageSize" in codes:
        return CannotBeDone(f"{_SERVICE} does not take the size of {asset_id}: {said}", reason="image_too_large")
    if answer.status >= 400:
        return CannotBeDone(f"{_SERVICE} can't tag {asset_id}: {said}", reason="image_refused")
    return ServiceFailed(f"{_SERVICE} answered with HTTP {answer.status}", reason=GARBLED_ANSWER)


def _codes_and_message(tree: dict[str, Any]) -> tuple[set[str], str]:
    nested = tree.get("error")
    error = nested if isinstance(nested, dict) else tree
    inner = error.get("innererror")
    inner = inner if isinstance(inner, dict) else {}
    codes = {str(code) for code in (error.get("code"), error.get("statusCode"), inner.get("code")) if code is not None}
    return codes, str(inner.get("message") or error.get("message") or "")


def _operators_matter(status: int, codes: set[str], *, retired: bool) -> str | None:
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
