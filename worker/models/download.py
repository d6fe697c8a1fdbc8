"""Downloads a large file over HTTP, and resumes where an earlier attempt stopped.

The downloaded file is not trusted: the caller compares its digest with a pinned one.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from worker.errors import Misconfigured
from worker.models.staging import ModelProgress, ProgressCallback
from worker.operations.certificates import distrust

MAX_BYTES = 1 << 30
PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)
_TIMEOUT = httpx.Timeout(30.0)


class _InterruptedError(Exception):
    """This attempt ended early; the received bytes are kept and the next attempt resumes after them."""


def fetch(url: str, path: Path, on_progress: ProgressCallback) -> Path:
    """Download `url` to `path`, which may already contain the beginning of the file.

    Connection errors and 5xx are retried after each of `PAUSES_S`. Raises `Misconfigured` when the server refuses or
    cannot be reached; the received bytes stay in `path` for the next call. An `OSError` is not translated.
    """
    shown = without_secrets(url)
    problem = ""
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
        for pause_s in PAUSES_S:
            time.sleep(pause_s)
            try:
                _fetch_rest(client, url, path, on_progress)
            except (_InterruptedError, httpx.TransportError) as error:
                distrusted = distrust(error, address="the address", authority="the file of `SSL_CERT_FILE`")
                problem = distrusted or str(error) or type(error).__name__
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Misconfigured(f"cannot download {shown}: {error}", reason="download_failed") from error
            else:
                return path
    raise Misconfigured(
        f"cannot download {shown}: {problem}, after {len(PAUSES_S)} attempts. "
        "What has arrived is kept: run the same again to go on",
        reason="download_failed",
    )


def _fetch_rest(client: httpx.Client, url: str, path: Path, on_progress: ProgressCallback) -> None:
    received = path.stat().st_size if path.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={received}-"} if received else {})
    with client.stream("GET", url, headers=headers) as response:
        match response.status_code:
            case 200:
                received = 0  # the server ignores ranges and sends the whole file
            case 206 if response.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
                pass
            case 416 if response.headers.get("Content-Range") == f"bytes */{received}":
                return  # the file was already complete
            case 206 | 416:
                path.unlink(missing_ok=True)
                raise _InterruptedError("the server has another file now")
            case status if status >= 500 or status in (408, 429):
                raise _InterruptedError(f"the server answered {status}")
            case status:
                raise Misconfigured(
                    f"cannot download {without_secrets(url)}: the server answered {status}", reason="download_failed"
                )
        total = received + int(response.headers.get("Content-Length", "0"))
        with path.open("ab" if received else "wb") as file:
            on_progress(ModelProgress("downloading", received, total))
            # Without a chunk size, chunks are written as they arrive: buffered bytes would be lost in an error.
            for chunk in response.iter_raw():
                received += len(chunk)
                if received > MAX_BYTES:
                    raise Misconfigured(
                        f"{without_secrets(url)} is larger than {MAX_BYTES >> 20} MiB", reason="download_failed"
                    )
                file.write(chunk)
                on_progress(ModelProgress("downloading", received, total))
    if received < total:
        raise _InterruptedError("the connection was closed early")


def without_secrets(url: str) -> str:
    """The URL to show: without user, password and query, which may contain a key."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return "the address given"
    return str(parsed.copy_with(username=None, password=None, query=None))
