"""Credentials for image hosts: what is sent to one origin so that it lets an image be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, SecretStr

from worker.settings.base import HeaderSecret, Section

CredentialKind = Literal["basic", "bearer", "header", "oauth2_client_credentials", "sigv4", "signed_query"]


class _Fields(NamedTuple):
    """Which fields a kind needs, and which it takes besides."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


FIELDS_OF: dict[CredentialKind, _Fields] = {
    "basic": _Fields(("username", "password")),
    "bearer": _Fields(("token",)),
    "header": _Fields(("header", "value")),
    "oauth2_client_credentials": _Fields(("token_url", "client_id", "client_secret"), ("scope", "client_in")),
    "sigv4": _Fields(("access_key", "secret_key"), ("session_token", "region", "service")),
    "signed_query": _Fields(("username", "secret_key")),
}


def _header_text(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()) or text != text.strip() or not text:
        raise ValueError("it is empty, begins or ends with a space, or holds a line break or a character beyond ASCII")
    return secret


def _user_name(value: str) -> str:
    if ":" in value or not value.isprintable():
        raise ValueError("it holds a colon or a control character")
    return value


_OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "te", "upgrade"})


def _not_one_of_ours(name: str) -> str:
    if name.lower() in _OURS:
        raise ValueError("this one says how the request is sent, and not by whom")
    return name


class CredentialSettings(Section):
    """What is sent to one image host, in each request to exactly this scheme, host and port."""

    kind: CredentialKind = Field(description="What kind of credential it is; each has keys of its own below.")
    instances: tuple[str, ...] | None = Field(
        None,
        description="Instances for whose events it is used. Unset: all that may name the host.",
        json_schema_extra={"allowed": "a list of names of instances"},
    )
    username: Annotated[str, AfterValidator(_user_name)] | None = Field(
        None, description="`basic`, `signed_query`: user name.", json_schema_extra={"allowed": "a text without a colon"}
    )
    password: SecretStr | None = Field(None, description="`basic`: password.")
    token: HeaderSecret | None = Field(None, description="`bearer`: what stands behind `Bearer` in `Authorization`.")
    header: Annotated[str, AfterValidator(_not_one_of_ours)] | None = Field(
        None,
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        description="`header`: name of the header, such as `x-api-key`.",
        json_schema_extra={"allowed": "a name of an HTTP header"},
    )
    value: Annotated[SecretStr, AfterValidator(_header_text)] | None = Field(
        None, description="`header`: the whole value of the header, such as `Token 0123…`."
    )
    token_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="`oauth2_client_credentials`: where tokens are issued. It may have a private address.",
        json_schema_extra={"allowed": "an http or https address without query"},
    )
    client_id: str | None = Field(None, min_length=1, description="`oauth2_client_credentials`: the client.")
    client_secret: SecretStr | None = Field(None, description="`oauth2_client_credentials`: the client's secret.")
    scope: str | None = Field(
        None,
        min_length=1,
        description="`oauth2_client_credentials`: scopes to ask for, with spaces between them.",
    )
    client_in: Literal["header", "body"] | None = Field(
        None,
        description="`oauth2_client_credentials`: where the client's id and secret are sent: as Basic in the header "
        "(unset: there), or in the form.",
    )
    access_key: str | None = Field(
        None,
        pattern=r"^[!-~]+$",
        description="`sigv4`: id of the access key.",
        json_schema_extra={"allowed": "a text without spaces"},
    )
    secret_key: SecretStr | None = Field(
        None, description="`sigv4`, `signed_query`: the secret key; it only signs, and is never sent."
    )
    session_token: HeaderSecret | None = Field(None, description="`sigv4`: the token of temporary keys.")
    region: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]+$",
        description="`sigv4`: region in the signature. Unset: `us-east-1`.",
        json_schema_extra={"allowed": "a region such as eu-central-1"},
    )
    service: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]+$",
        description="`sigv4`: service in the signature. Unset: `s3`.",
        json_schema_extra={"allowed": "a service such as s3"},
    )

    def wrong_fields(self) -> Iterator[tuple[str, str]]:
        """The fields that are missing for its kind, or mean nothing with it; each with what is wrong."""
        needed, optional = FIELDS_OF[self.kind]
        for name in needed:
            if getattr(self, name) is None:
                yield name, f"is missing: a credential of the kind {self.kind} needs it"
        others = [name for name in type(self).model_fields if name not in ("kind", "instances", *needed, *optional)]
        for name in others:
            if getattr(self, name) is not None:
                yield name, f"has no effect in a credential of the kind {self.kind}"
