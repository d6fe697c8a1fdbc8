"""What an image host answers: whether that is an image, and its bytes; else the error that says what it is."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping

import httpx

from worker.errors import CannotBeDone, TryLater
from worker.images.content import Content, MemoryFile
from worker.images.format import HEAD_BYTES
from worker.settings import SourcesSettings
from worker.sources.breaker import SourceFailed
from worker.sources.hosts import host_of, without_secrets
from worker.sources.retry_after import retry_after_s
from worker.sources.web_page import is_page

STATUS, REFUSED = "content_http_status", "content_refused"
"""Reasons: another status than 200; not for us, or only a page to sign in."""

LONGEST_PAUSE_S = 2.0
"""Between two attempts in place. A host that asks for more is asked again by a delayed retry."""

WHO_MAY = "it needs a credential in `sources.credentials`, or has one that is not accepted"

_TRANSIENT = frozenset({408, 425, 429})


class Unauthorized(TryLater):
    """The host answered 401: it knows no credential of ours, or not this one."""


def check_status(status: int, headers: Mapping[str, str], url: httpx.URL, setting: str | None) -> None:
    """Raise what a status other than 200 means. `setting`: where the credential that was sent is set, if one was."""
    answer = f"{host_of(url)} answered {status} for {without_secrets(url)}"
    if status == httpx.codes.OK:
        return
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        raise TryLater(f"{answer}: the image is not there; has it been deleted?", reason="content_missing")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        what = (
            "the url must hold all that is needed to fetch it, and must not have expired, or its host be in "
            "`sources.credentials`"
        )
        if setting is not None:
            what = f"what `{setting}` has for this host is not accepted"
        kind = Unauthorized if status == httpx.codes.UNAUTHORIZED else TryLater
        raise kind(f"{answer}: access refused; {what}", reason=REFUSED)
    after_s = retry_after_s(headers.get("retry-after"))
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise SourceFailed(answer, reason=STATUS, after_s=after_s, at_once=after_s <= LONGEST_PAUSE_S)
    if status in _TRANSIENT:
        raise TryLater(answer, reason=STATUS, after_s=after_s)
    raise CannotBeDone(f"{answer}, which is no image", reason=STATUS)


def check_headers(headers: Mapping[str, str], url: httpx.URL, settings: SourcesSettings) -> None:
    """Raise CannotBeDone for an image that is encoded, or too large as it is announced."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise CannotBeDone(
            f"{without_secrets(url)} came with the content encoding {encoding[:50]!r} though none was asked for; "
            "serve images as they are",
            reason="content_encoding_refused",
        )
    length = headers.get("content-length", "")
    # As a float: Python refuses an integer of more than 4,300 digits.
    if length.isascii() and length.isdigit() and float(length) > settings.maximum_bytes:
        raise _too_large(url, settings)


async def read_image(
    chunks: AsyncIterable[bytes], content_type: str, url: httpx.URL, settings: SourcesSettings
) -> Content:
    """The image, in memory. Raises CannotBeDone for one that is too large or empty, and for a web page."""
    head = b""
    with MemoryFile() as memory:
        async for chunk in chunks:
            if len(head) < HEAD_BYTES:
                head += chunk[: HEAD_BYTES - len(head)]
            if memory.size_bytes + len(chunk) > settings.maximum_bytes:
                raise _too_large(url, settings)
            memory.write(chunk)
        if not memory.size_bytes:
            raise CannotBeDone(f"{without_secrets(url)} is empty: upload it again", reason="content_empty")
        if is_page(head, content_type):
            raise CannotBeDone(
                f"{without_secrets(url)} is a web page and no image; it looks like a login page: {WHO_MAY}",
                reason=REFUSED,
            )
        return memory.seal(f"url {without_secrets(url)}")


def _too_large(url: httpx.URL, settings: SourcesSettings) -> CannotBeDone:
    return CannotBeDone(
        f"{without_secrets(url)} has more than {settings.maximum_bytes:,} bytes (`sources.maximum_bytes`)",
        reason="content_too_large",
    )
