"""Translates Google's errors into those of Autotag: what they mean for an image, an operator, and the next call.

There are two kinds: a whole call refused with an HTTP status, and single images refused in a response with status 200.
"""

from __future__ import annotations

from typing import Any

from worker.errors import AutotagError, CannotBeDone, Misconfigured
from worker.providers.cloud.errors import GARBLED_ANSWER, RateLimited, ServiceFailed, steady, transient_error
from worker.providers.cloud.http_client import HttpResponse, KeyHeader
from worker.sources.retry_after import MAXIMUM_RETRY_AFTER_S, retry_after_s

SERVICE = "Google Cloud Vision"
"""The service's name in messages for people."""

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
"""Our reason for each `reason` of a google.rpc.ErrorInfo that an operator can fix. The keys are google.api.ErrorReason:
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


def call_error(response: HttpResponse, key: KeyHeader, instance: str) -> AutotagError:
    """The error for a response with a status other than 200."""
    error = (response.json_object() or {}).get("error")
    error = error if isinstance(error, dict) else {}
    listed = error.get("details")
    details = [detail for detail in listed if isinstance(detail, dict)] if isinstance(listed, list) else []
    message = key.redact(str(error.get("message") or f"no explanation, {response.content_type}"))
    after_s = max(retry_after_s(response.headers.get("retry-after")), _retry_delay_s(details))
    status = response.status
    transient = transient_error(SERVICE, status, after_s, message)
    if transient is not None:
        return transient
    if reason := _operator_reason(status, details, message):
        return Misconfigured(
            f"{SERVICE} refused the call of instance {instance} (HTTP {status}): {message}; {_ADVICE[reason]}",
            reason=reason,
        )
    if status == 413 or "payload size" in message:
        return CannotBeDone(f"{SERVICE} found the request too large: {message}", reason="image_too_large")
    if status >= 400:
        return CannotBeDone(f"{SERVICE} refused the request (HTTP {status}): {message}", reason="request_refused")
    return ServiceFailed(f"{SERVICE} answered with HTTP {status}", reason=GARBLED_ANSWER)


def image_error(error: dict[str, Any], key: KeyHeader) -> AutotagError:
    """The error for one image, from the google.rpc.Status in its part of the response.

    The codes are google.rpc.Code: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
    """
    message = key.redact(str(error.get("message", "")))
    match error.get("code"):
        case 3 | 5 | 9 | 11 | 12:  # INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED
            return CannotBeDone(f"{SERVICE} can't tag the image: {message}", reason="image_refused")
        case 7 | 16:  # PERMISSION_DENIED, UNAUTHENTICATED
            return Misconfigured(f"{SERVICE} refused: {message}; {_ADVICE['google_refused']}", reason="google_refused")
        case 8:  # RESOURCE_EXHAUSTED
            return RateLimited(f"{SERVICE} asks for fewer images: {steady(message)}", reason="quota_exhausted")
        case code:
            return ServiceFailed(f"{SERVICE} failed with code {code}: {steady(message)}", reason="service_failed")


def _operator_reason(status: int, details: list[dict[str, Any]], message: str) -> str | None:
    """The reason of an error that only an operator can fix; None for every other error."""
    for detail in details:
        if reason := REASONS.get(str(detail.get("reason"))):
            return reason
    if "API key not valid" in message or status == 401:
        return "google_key_refused"
    if status == 403:
        return "google_refused"
    return "endpoint_unknown" if status == 404 or 300 <= status < 400 else None


def _retry_delay_s(details: list[dict[str, Any]]) -> float:
    """The wait from a google.rpc.RetryInfo in the body, such as `"retryDelay": "26s"`; 0 without one."""
    for detail in details:
        text = str(detail.get("retryDelay", ""))
        if text.endswith("s") and text[:-1].replace(".", "", 1).isdecimal():
            return min(float(text[:-1]), MAXIMUM_RETRY_AFTER_S)
    return 0.0
