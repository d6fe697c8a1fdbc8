"""Fetches a large file over HTTP, going on where an earlier attempt stopped.

What arrives is not trusted: whoever asked for it compares its digest with a pinned one.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from worker.errors import Misconfigured
from worker.models.staging import ModelProgress, ProgressCallback

MAX_BYTES = 1 << 30
PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)
_TIMEOUT = httpx.Timeout(30.0)


class _InterruptedError(Exception):
    """This attempt ended early; what has arrived is kept and the next one goes on from there."""


def fetch(url: str, path: Path, progress: ProgressCallback) -> Path:
    """Download `url` to `path`, which may hold the beginning of it already.

    Connection faults and 5xx are tried again after each of `PAUSES_S`. Raises `Misconfigured` when the server refuses
    or is not reached; what has arrived stays in `path` for the next call. An `OSError` passes.
    """
    shown = _without_secrets(url)
    problem = ""
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
        for pause_s in PAUSES_S:
            time.sleep(pause_s)
            try:
                _fetch_rest(client, url, path, progress)
            except (_InterruptedError, httpx.TransportError) as error:
                problem = str(error) or type(error).__name__
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Misconfigured(f"cannot download {shown}: {error}", reason="download_failed") from error
            else:
                return path
    raise Misconfigured(
        f"cannot download {shown}: {problem}, after {len(PAUSES_S)} attempts. "
        "What has arrived is kept: run the same again to go on",
        reason="download_failed",
    )


def _fetch_rest(client: httpx.Client, url: str, path: Path, progress: ProgressCallback) -> None:
    have = path.stat().st_size if path.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        match response.status_code:
            case 200:
                have = 0  # the server sends all of it, whatever was asked for
            case 206 if response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                pass
            case 416 if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # all of it had arrived
            case 206 | 416:
                path.unlink(missing_ok=True)
                raise _InterruptedError("the server has another file now")
            case status if status >= 500 or status in (408, 429):
                raise _InterruptedError(f"the server answered {status}")
            case status:
                raise Misconfigured(
                    f"cannot download {_without_secrets(url)}: the server answered {status}", reason="download_failed"
                )
        total = have + int(response.headers.get("Content-Length", "0"))
        with path.open("ab" if have else "wb") as file:
            progress(ModelProgress("downloading", have, total))
            for (
                chunk
            ) in response.iter_raw():  # as it arrives: what is waiting in a larger piece would be lost at a fault
                have += len(chunk)
                if have > MAX_BYTES:
                    raise Misconfigured(
                        f"{_without_secrets(url)} is larger than {MAX_BYTES >> 20} MiB", reason="download_failed"
                    )
                file.write(chunk)
                progress(ModelProgress("downloading", have, total))
    if have < total:
        raise _InterruptedError("the connection was closed early")


def _without_secrets(url: str) -> str:
    """The address as it may be shown: without user, password and query, which may hold a key."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return "the address given"
    return str(parsed.copy_with(username=None, password=None, query=None))
