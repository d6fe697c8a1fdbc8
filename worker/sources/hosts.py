"""Names of hosts, and the patterns of the settings that they match."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import httpx


def host_of(url: httpx.URL) -> str:
    """The name of the host as it is sent: small letters, in ASCII (IDNA), without the dot of a fully qualified one."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def matches(host: str, allowed: str) -> bool:
    """Whether a host, in the form of `host_of`, is the one of a pattern, or below it where that begins with `*.`."""
    pattern = _pattern(allowed)
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def port_of(url: httpx.URL) -> int:
    """The port that an http or https URL leads to."""
    return url.port or {"http": 80, "https": 443}[url.scheme]


def allows_host(allowed: str, host: str) -> bool:
    """Whether a pattern with or without a port is about a host."""
    return matches(host, _and_port(allowed)[0])


def allows_port(allowed: str, port: int, ports: Collection[int] | None) -> bool:
    """Whether a pattern allows a port: its own, any for `*`, or one of `ports` (None: any) where it names none."""
    named = _and_port(allowed)[1]
    return named in ("*", str(port)) or (named is None and (ports is None or port in ports))


@lru_cache(maxsize=1024)
def _and_port(allowed: str) -> tuple[str, str | None]:
    name, colon, port = allowed.rpartition(":")
    has_port = colon and not port.endswith("]")  # which would be the rest of an IPv6 address
    return (name, port if port == "*" else str(int(port))) if has_port else (allowed, None)


@lru_cache(maxsize=1024)
def _pattern(allowed: str) -> str:
    """A pattern in the form of `host_of`; as it stands, if no host can have that name."""
    below, name = ("*.", allowed[2:]) if allowed.startswith("*.") else ("", allowed)
    try:
        return below + host_of(httpx.URL(f"http://{name}/"))
    except httpx.InvalidURL:
        return allowed


def without_secrets(url: httpx.URL | str) -> str:
    """A URL to show: without user, password, query and fragment, any of which may contain a key."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))[:200]
    except Exception:  # noqa: BLE001 - `check_url` says what is wrong with it
        return "the url"
