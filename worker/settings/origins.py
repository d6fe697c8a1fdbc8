"""Origins (scheme, host and port, RFC 6454) as settings write them: `dms.example`, `http://dms.lan:8080`."""

from __future__ import annotations

from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


def origin_url(text: str) -> str:
    """The origin with all its parts: `https://dms.example:443` for `dms.example`. Raises ValueError if it is none.

    Without a scheme it is https: what is secret goes over a plain connection only where that was written.
    """
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if (
        not host
        or port == 0
        or parts.scheme not in PORTS
        or parts.path not in ("", "/")
        or any(mark in text for mark in "@?#*\\")
        or not text.isprintable()
        or " " in text
    ):
        raise ValueError("write dms.example, dms.example:8443, or with its scheme http://dms.example:8080")
    host = host.rstrip(".")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or PORTS[parts.scheme]}"
