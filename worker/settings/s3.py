"""S3 services whose notifications are events, and from which their objects are fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, SecretStr

from worker.messages.events import DEFAULT_INSTANCE
from worker.settings.base import HeaderSecret, Section


class S3Settings(Section):
    """One S3 service: its address, the keys to read objects with, and the buckets whose notifications are events."""

    endpoint: str = Field(
        "https://s3.amazonaws.com",
        pattern=r"^https?://[^\s/?#@*]+/?$",
        description="Address of the service, such as `https://minio.example:9000`. It may be a private one, and need "
        "not be among `url_allowed_hosts`.",
        json_schema_extra={"allowed": "an http or https address without path and query"},
    )
    region: str = Field(
        "us-east-1",
        pattern=r"^[a-z0-9-]+$",
        description="Region in the signature.",
        json_schema_extra={"allowed": "a region such as eu-central-1"},
    )
    path_style: bool = Field(
        True,
        description="The bucket stands in the path (`endpoint/bucket/key`); off: in the host's name "
        "(`bucket.endpoint`), as AWS wants it.",
    )
    access_key: str | None = Field(
        None,
        pattern=r"^[!-~]+$",
        description="Id of the access key; it needs to read objects, and nothing else. Unset: requests are not signed.",
        json_schema_extra={"allowed": "a text without spaces"},
    )
    secret_key: SecretStr | None = Field(None, description="The secret key; it only signs, and is never sent.")
    session_token: HeaderSecret | None = Field(None, description="The token of temporary keys.")
    buckets: tuple[str, ...] | None = Field(
        None,
        description="Buckets whose notifications are events. Unset: the one that the table is named after.",
        json_schema_extra={"allowed": "a list of names of buckets"},
    )
    instance: str = Field(
        DEFAULT_INSTANCE,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="Instance that these buckets belong to.",
        json_schema_extra={"allowed": "a name of an instance"},
    )

    def wrong_fields(self) -> Iterator[tuple[str, str]]:
        """The fields that need another one; each with what is wrong."""
        if self.access_key is None and (self.secret_key or self.session_token):
            yield "access_key", "is missing: a secret key or a session token needs it"
        if self.access_key is not None and self.secret_key is None:
            yield "secret_key", "is missing: the access key needs it"


def buckets_of(tables: Mapping[str, S3Settings]) -> Iterator[tuple[str, str]]:
    """Each bucket whose notifications are events, and the name of its table."""
    for name, table in tables.items():
        for bucket in (name,) if table.buckets is None else table.buckets:
            yield bucket, name


def service_of(tables: Mapping[str, S3Settings], bucket: str) -> S3Settings | None:
    """The table that has a bucket, or None."""
    return next((tables[name] for each, name in buckets_of(tables) if each == bucket), None)
