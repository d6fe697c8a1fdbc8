"""Builds pika's connection parameters from settings. pika's defaults suit a script, not a daemon: each is set here."""

from __future__ import annotations

import math
import os
import platform
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import pika

from worker import __version__
from worker.errors import Misconfigured
from worker.settings import AmqpSettings


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and as which user we connect. Safe to print: it holds no password."""

    host: str
    port: int
    virtual_host: str
    user: str
    tls: bool

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}, virtual host {self.virtual_host!r}{', TLS' if self.tls else ''}"


def addresses(settings: AmqpSettings) -> list[Address]:
    """The broker's addresses, in the order of `amqp.url`, with the user of `amqp.username` or of the url."""
    url = urlsplit(settings.url.get_secret_value())
    tls = url.scheme == "amqps"
    user = settings.username or unquote(url.username or "") or "guest"
    hosts = [urlsplit(f"//{host}") for host in url.netloc.rpartition("@")[2].split(",")]
    return [
        Address(
            host=each.hostname or "127.0.0.1",
            port=each.port or (5671 if tls else 5672),
            virtual_host=unquote(url.path[1:]) or "/",
            user=user,
            tls=tls,
        )
        for each in hosts
    ]


def connection_parameters(settings: AmqpSettings, name: str, broker: Address) -> pika.ConnectionParameters:
    """Parameters for one attempt to connect; `name` is shown in RabbitMQ's list of connections.

    Raises Misconfigured for TLS files that cannot be used.
    """
    keepalive_s = max(1, settings.heartbeat_s // 3)
    return pika.ConnectionParameters(
        host=broker.host,
        port=broker.port,
        virtual_host=broker.virtual_host,
        credentials=pika.PlainCredentials(broker.user, password(settings)),
        ssl_options=_ssl_options(settings, broker),
        heartbeat=settings.heartbeat_s,
        blocked_connection_timeout=settings.blocked_timeout_s,
        connection_attempts=1,  # each address once: `Broker` retries, with growing pauses
        socket_timeout=settings.connection_timeout_s,
        stack_timeout=settings.connection_timeout_s,
        # A peer that has vanished is detected after about as long as by missed heartbeats, even while data that we sent
        # is not acknowledged, when heartbeats do not help.
        tcp_options={
            "TCP_KEEPIDLE": keepalive_s,
            "TCP_KEEPINTVL": keepalive_s,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": math.ceil(settings.heartbeat_s * 2 * 1000),
        },
        client_properties={
            "connection_name": name,
            "product": "Autotag",
            "version": __version__,
            "platform": f"Python {platform.python_version()}, pika {pika.__version__}",
            "information": "Tags the images of a document management system",
        },
    )


def connection_name(role: str = "autotag") -> str:
    """The name that operators see in RabbitMQ's list of connections: role, host and process id."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}"


def password(settings: AmqpSettings) -> str:
    """The password that we connect with, from `amqp.password` or `amqp.url`."""
    if settings.password is not None:
        return settings.password.get_secret_value()
    return unquote(urlsplit(settings.url.get_secret_value()).password or "") or "guest"


def _ssl_options(settings: AmqpSettings, broker: Address) -> pika.SSLOptions | None:
    if not broker.tls:
        tls_options = [name for name in ("ca_file", "cert_file", "key_file") if getattr(settings, name) is not None]
        if tls_options:
            raise Misconfigured(
                f"amqp.{tls_options[0]} is set, but amqp.url is not encrypted: begin it with amqps://, or remove "
                f"amqp.{tls_options[0]}",
                reason="tls_failed",
            )
        return None
    context = _ssl_context(settings)
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_passphrase)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                f"the client certificate {settings.cert_file} with its key {settings.key_file or '(in the same file)'} "
                f"cannot be used: {error}; amqp.cert_file and amqp.key_file must be PEM files that belong together",
                reason="tls_failed",
            ) from error
    return pika.SSLOptions(context, server_hostname=broker.host)


def _ssl_context(settings: AmqpSettings) -> ssl.SSLContext:
    """A context that checks the broker's certificate and its host name."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"the file of certificate authorities {settings.ca_file} cannot be used: {error}; "
            "amqp.ca_file must be a PEM file",
            reason="tls_failed",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_passphrase() -> str:
    """Keeps OpenSSL from prompting for a passphrase on the terminal."""
    raise ssl.SSLError("the key is protected by a passphrase, which is not supported")
