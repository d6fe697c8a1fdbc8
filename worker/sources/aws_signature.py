"""AWS Signature Version 4: signs a request in its headers. Pure; the time is an argument.

By the description at https://docs.aws.amazonaws.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
Why not a library: docs/dependencies.md has the figures.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote_plus, unquote_to_bytes

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-_.~"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Keys of an account, and what they sign for."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    service: str = "s3"


def signed_headers(
    keys: SigningKeys,
    method: str,
    host: str,
    target: str,
    now: datetime,
    *,
    headers: Mapping[str, str] | None = None,
    body_sha256: str = EMPTY_SHA256,
) -> dict[str, str]:
    """The headers to add to a request for it to be signed, with `Authorization`.

    `host` is the value of `Host`, `target` the path and query as they are sent, percent-encoded. `headers` are further
    ones that the signature covers, as they are sent.
    """
    time = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"X-Amz-Date": time}
    if keys.service == "s3":
        added["X-Amz-Content-Sha256"] = body_sha256
    if keys.session_token is not None:
        added["X-Amz-Security-Token"] = keys.session_token
    covered = {
        name.lower(): " ".join(value.split()) for name, value in ({"Host": host} | dict(headers or {}) | added).items()
    }
    path, _, query = target.partition("?")
    names = ";".join(sorted(covered))
    request = "\n".join(
        (
            method,
            _canonical_path(path, keys.service),
            _canonical_query(query),
            *(f"{name}:{covered[name]}" for name in sorted(covered)),
            "",
            names,
            body_sha256,
        )
    )
    scope = f"{time[:8]}/{keys.region}/{keys.service}/aws4_request"
    to_sign = "\n".join((_ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = hmac.new(_signing_key(keys, time[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={keys.access_key}/{scope}"
    return added | {"Authorization": f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"}


def _signing_key(keys: SigningKeys, day: str) -> bytes:
    key = f"AWS4{keys.secret_key}".encode()
    for part in (day, keys.region, keys.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def encoded_path(path: str | bytes) -> str:
    """A path in the one form that signatures know: all but letters, digits, `-_.~/` percent-encoded."""
    return quote(path, safe=f"/{_UNRESERVED}")


def _canonical_path(path: str, service: str) -> str:
    """S3 takes an encoded path as it was meant; every other service encodes what it gets once more."""
    once = encoded_path(unquote_to_bytes(path or "/"))
    return once if service == "s3" else encoded_path(once)


def _canonical_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    encoded = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _encoded(text: str) -> str:
    return quote(unquote_plus(text, errors="surrogateescape"), safe=_UNRESERVED, errors="surrogateescape")
