"""Names of hosts, and the patterns of the settings that they match."""

from __future__ import annotations

from functools import lru_cache

import httpx


def host_of(url: httpx.URL) -> str:
    """The name of the host as it is sent: small letters, in ASCII (IDNA), without the dot of a fully qualified one."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def matches(host: str, allowed: str) -> bool:
    """Whether a host, in the form of `host_of`, is the one of a pattern, or below it where that begins with `*.`."""
    pattern = _pattern(allowed)
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


@lru_cache(maxsize=1024)
def _pattern(allowed: str) -> str:
    """A pattern in the form of `host_of`; as it stands, if no host can have that name."""
    below, name = ("*.", allowed[2:]) if allowed.startswith("*.") else ("", allowed)
    try:
        return below + host_of(httpx.URL(f"http://{name}/"))
    except httpx.InvalidURL:
        return allowed
