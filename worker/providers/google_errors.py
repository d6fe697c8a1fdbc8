"""What Google's errors mean for an image, an operator, and the next call.

Two kinds come: a whole call refused with an HTTP status, and single images refused inside an answer with status 200.
"""

from __future__ import annotations

from typing import Any

from worker.errors import AutotagError, CannotBeDone, Misconfigured
from worker.providers.cloud.faults import GARBLED_ANSWER, ServiceFailed, SlowDown, passing_fault
from worker.providers.cloud.http_client import HttpAnswer, KeyHeader
from worker.providers.cloud.retry_after import LONGEST_S, retry_after_s

_SERVICE = "Google Cloud Vision"

REASONS = {
    "API_KEY_INVALID": "google_key_refused",
    "CREDENTIALS_MISSING": "google_key_refused",
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": "google_key_refused",
    "API_KEY_SERVICE_BLOCKED": "google_key_restricted",
    "API_KEY_HTTP_REFERRER_BLOCKED": "google_key_restricted",
    "API_KEY_IP_ADDRESS_BLOCKED": "google_key_restricted",
    "API_KEY_ANDROID_APP_BLOCKED": "google_key_restricted",
    "API_KEY_IOS_APP_BLOCKED": "google_key_restricted",
    "SERVICE_DISABLED": "api_not_enabled",
    "SERVICE_NOT_VISIBLE": "api_not_enabled",
    "BILLING_DISABLED": "billing_disabled",
    "CONSUMER_INVALID": "google_project_refused",
    "CONSUMER_SUSPENDED": "google_project_refused",
    "GCP_SUSPENDED": "google_project_refused",
    "RESOURCE_PROJECT_INVALID": "google_project_refused",
    "USER_PROJECT_DENIED": "google_project_refused",
}
"""Our reason for each `reason` of a google.rpc.ErrorInfo that an operator can mend; they are google.api.ErrorReason:
https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto"""

_ADVICE = {
    "google_key_refused": "set `google_cloud_vision.api_key` to a key of the instance's project",
    "google_key_restricted": "allow the key this API and this machine's address (APIs & Services, Credentials)",
    "api_not_enabled": "enable the Cloud Vision API in the key's project",
    "billing_disabled": "enable billing for the key's project",
    "google_project_refused": "see to the state of the key's project",
    "google_refused": "see to the key and its project",
    "endpoint_unknown": "correct `google_cloud_vision.endpoint`",
}


def call_error(answer: HttpAnswer, key: KeyHeader, instance: str) -> AutotagError:
    """The error for a call that ended in a status other than 200."""
    error = (answer.tree() or {}).get("error")
    error = error if isinstance(error, dict) else {}
    details = [detail for detail in error.get("details") or [] if isinstance(detail, dict)]
    said = key.without_key(str(error.get("message") or f"no explanation, {answer.content_type}"))
    after_s = max(retry_after_s(answer.headers.get("retry-after")), _retry_delay_s(details))
    passing = passing_fault(_SERVICE, answer.status, after_s, said)
    if passing is not None:
        return passing
    if reason := _operators_matter(answer.status, details, said):
        return Misconfigured(
            f"{_SERVICE} refused the call of instance {instance} (HTTP {answer.status}): {said}; {_ADVICE[reason]}",
            reason=reason,
        )
    if answer.status == 413 or "payload size" in said:
        return CannotBeDone(f"{_SERVICE} found the request too large: {said}", reason="image_too_large")
    if answer.status >= 400:
        return CannotBeDone(f"{_SERVICE} refused the request (HTTP {answer.status}): {said}", reason="request_refused")
    return ServiceFailed(f"{_SERVICE} answered with HTTP {answer.status}", reason=GARBLED_ANSWER)


def image_error(error: dict[str, Any], asset_id: str, key: KeyHeader) -> AutotagError:
    """The error for one image, from the google.rpc.Status in its part of the answer.

    The codes are google.rpc.Code: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
    """
    said = key.without_key(str(error.get("message", "")))
    match error.get("code"):
        case 3 | 5 | 9 | 11 | 12:  # INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED
            return CannotBeDone(f"{_SERVICE} can't tag {asset_id}: {said}", reason="image_refused")
        case 7 | 16:  # PERMISSION_DENIED, UNAUTHENTICATED
            return Misconfigured(f"{_SERVICE} refused: {said}; {_ADVICE['google_refused']}", reason="google_refused")
        case 8:  # RESOURCE_EXHAUSTED
            return SlowDown(f"{_SERVICE} asks for fewer images: {said}", reason="quota_exhausted")
        case code:
            return ServiceFailed(f"{_SERVICE} failed with code {code}: {said}", reason="service_failed")


def _operators_matter(status: int, details: list[dict[str, Any]], said: str) -> str | None:
    for detail in details:
        if reason := REASONS.get(str(detail.get("reason"))):
            return reason
    if "API key not valid" in said or (status == 401):
        return "google_key_refused"
    if status == 403:
        return "google_refused"
    return "endpoint_unknown" if status == 404 or 300 <= status < 400 else None


def _retry_delay_s(details: list[dict[str, Any]]) -> float:
    """A google.rpc.RetryInfo says it inside the body: `"retryDelay": "26s"`."""
    for detail in details:
        text = str(detail.get("retryDelay", ""))
        if text.endswith("s") and text[:-1].replace(".", "", 1).isdecimal():
            return min(float(text[:-1]), LONGEST_S)
    return 0.0
