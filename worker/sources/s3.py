"""The address of an object in an S3 service, and what shows that it may be read."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from worker.errors import CannotBeDone
from worker.messages.s3_notifications import S3Content
from worker.settings import S3Settings, SourcesSettings, service_of
from worker.sources.aws_signature import SigningKeys, encoded_path
from worker.sources.credentials import Signed


def service_for(content: S3Content, instance: str, settings: SourcesSettings) -> S3Settings:
    """The service that has an object. Raises CannotBeDone if it is none of the instance's."""
    service = service_of(settings.s3, content.bucket)
    if service is None or service.instance != instance:
        raise CannotBeDone(
            f"no table of `sources.s3` has the bucket {content.bucket!r} for the instance {instance!r}",
            reason="s3_bucket_unknown",
        )
    return service


def object_url(content: S3Content, service: S3Settings) -> httpx.URL:
    """Where an object is. Raises CannotBeDone where its bucket's name has no place in a URL."""
    endpoint = httpx.URL(service.endpoint)
    key = "/".join(_segment(each) for each in content.key.split("/"))
    query = f"?versionId={quote(content.version_id, safe='')}" if content.version_id else ""
    try:
        if service.path_style:
            return endpoint.copy_with(raw_path=f"/{_segment(content.bucket)}/{key}{query}".encode())
        host = f"{content.bucket}.{endpoint.host}"
        return endpoint.copy_with(host=host, raw_path=f"/{key}{query}".encode())
    except httpx.InvalidURL as error:
        raise CannotBeDone(
            f"the object {content.bucket}/{content.key} has no url: {error}", reason="url_invalid"
        ) from error


def bucket_url(bucket: str, service: S3Settings) -> httpx.URL:
    """Where a bucket is. Raises httpx.InvalidURL where its name has no place in a URL."""
    endpoint = httpx.URL(service.endpoint)
    if service.path_style:
        return endpoint.copy_with(raw_path=f"/{_segment(bucket)}".encode())
    return endpoint.copy_with(host=f"{bucket}.{endpoint.host}")


def _segment(text: str) -> str:
    """A part of a path. One that means a directory, to whatever the request goes through, is encoded as a name."""
    return text.replace(".", "%2E") if text in (".", "..") else encoded_path(text)


def signed_by(service: S3Settings) -> Signed | None:
    """The signature of requests; None where there are no keys, and objects are public."""
    if service.access_key is None or service.secret_key is None:
        return None
    token = service.session_token.get_secret_value() if service.session_token is not None else None
    keys = SigningKeys(service.access_key, service.secret_key.get_secret_value(), token, service.region)
    return Signed(keys, "sources.s3")
