"""The address of the broker: RabbitMQ's URI, its hosts, and what its query says.

RabbitMQ's clients take options from an address (https://www.rabbitmq.com/docs/uri-query-parameters; pika has others).
Those that a setting of ours means are read here; every other is refused by its name, with what to do instead. None is
ignored: an operator who has written `?heartbeat=30` relies on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic import SecretStr

LAST_PORT = 65_535

AMQP_URL = re.compile(
    r"""
    (?P<scheme>amqps?)://
    (?: (?P<user>[^:@/?\#\s]*) (?: : (?P<password>[^:@/?\#\s]*) )? @ )?
    (?P<hosts>
        (?: [^:@/?\#\s\[\],]+ | \[[0-9A-Fa-f:.]+\] ) (?: : [0-9]{1,5} )?
        (?: , (?: [^:@/?\#\s\[\],]+ | \[[0-9A-Fa-f:.]+\] ) (?: : [0-9]{1,5} )? )*
    )
    (?: / (?P<virtual_host>[^@/?\#\s]*) )?
    (?: \? (?P<query>[^@\#\s]*) )?
    """,
    re.VERBOSE,
)
"""RabbitMQ's URI (https://www.rabbitmq.com/docs/uri-spec). There may be several hosts, separated by commas.

It is strict on purpose. A password with a bare `@` or `/` would be parsed as part of the host or the virtual host, and
could end up in a log.
"""

MEANT = {
    "heartbeat": "heartbeat_s",
    "blocked_connection_timeout": "blocked_timeout_s",
    "stack_timeout": "connection_timeout_s",
    "socket_timeout": "connection_timeout_s",
}
"""Parameters in seconds, and the setting of `[amqp]` that each is."""

_INSTEAD = {
    "cacertfile": "set amqp.ca_file",
    "certfile": "set amqp.cert_file",
    "keyfile": "set amqp.key_file",
    "connection_timeout": "its unit differs between clients; set amqp.connection_timeout_s",
    "retry_delay": "set amqp.reconnect_max_s, the longest pause between two attempts",
    "connection_attempts": "leave it out: a service tries until it is connected, at most amqp.reconnect_max_s apart",
    "ssl_options": "set amqp.ca_file, amqp.cert_file and amqp.key_file",
    "verify": "leave it out: with amqps:// the broker's certificate is always verified",
    "fail_if_no_peer_cert": "leave it out: with amqps:// the broker's certificate is always verified",
    "server_name_indication": "leave it out: it is the host of the address",
    "auth_mechanism": "leave it out: it is PLAIN, with amqp.username and amqp.password",
    "tcp_options": "leave it out: they follow from amqp.heartbeat_s",
    "channel_max": "leave it out: RabbitMQ's own limit holds",
    "frame_max": "leave it out: RabbitMQ's own limit holds",
    "client_properties": "leave it out: they name this program",
    "locale": "leave it out",
}
"""What to do about the other parameters that RabbitMQ's clients and pika know."""

_NAME = re.compile(r"[a-z_]{1,40}")


def checked(value: SecretStr) -> SecretStr:
    """The address, if it is one. Raises ValueError, without quoting it."""
    address = AMQP_URL.fullmatch(value.get_secret_value())
    if address is None:
        raise ValueError(
            "such as amqps://user:password@host:5671/virtual-host; special characters in user, password and "
            "virtual host are written %40 (@), %2F (/), %3A (:), %23 (#), %3F (?)"
        )
    if not all(0 < int(port) <= LAST_PORT for port in re.findall(r":(\d+)(?:,|$)", address["hosts"])):
        raise ValueError(f"its port must be from 1 to {LAST_PORT}")
    _parameters(address["query"] or "")
    return value


def settings_in_query(url: object) -> Mapping[str, str]:
    """The settings of `[amqp]` in an address's query, as texts; none where it is no address, or not a valid one."""
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    address = AMQP_URL.fullmatch(text) if isinstance(text, str) else None
    try:
        return _parameters(address["query"] or "") if address else {}
    except ValueError:
        return {}  # reported when the address itself is checked


def with_settings_in_query(table: Any) -> Any:
    """The table `[amqp]` with what the query of its address says; a setting of its own takes the place of that."""
    return {**settings_in_query(table.get("url")), **table} if isinstance(table, dict) else table


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in MEANT:
            raise ValueError(_refusal(name))
        setting = MEANT[name]
        if found.setdefault(setting, value) != value:
            raise ValueError(f"its parameters give {setting} two values")
    return found


def _refusal(name: str) -> str:
    if name in _INSTEAD:
        return f"its parameter {name} is not used here: {_INSTEAD[name]}"
    # What is no name may be a part of a password
    shown = f" {name}" if _NAME.fullmatch(name) else ""
    return f"its parameter{shown} is unknown; there are {', '.join(MEANT)}"
