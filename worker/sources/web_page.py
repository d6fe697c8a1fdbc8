"""Recognises a web page where an image should be: most often a form to sign in, served with 200. Pure."""

from __future__ import annotations

import re
from typing import Final

from worker.images.format import HEAD_BYTES, sniff

_PAGE: Final = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)*"
    rb"<(?:!doctype\s+html|html|head|body|title|meta|script|form)[\s>/]",
    re.IGNORECASE | re.DOTALL,
)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_PAGE_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})

_SIGNING_IN: Final = re.compile(r"log[-_]?[io]n|sign[-_]?[io]n|\b(?:auth|cas|sso)\b|oauth|openid|saml", re.IGNORECASE)
_FIRST_BYTES: Final = HEAD_BYTES


def is_page(head: bytes, content_type: str) -> bool:
    """Whether what begins with these bytes is a web page: by the bytes, or by its type where they are no image.

    A server that calls its images `text/html` is wrong, and serves images all the same.
    """
    if _PAGE.match(head[:_FIRST_BYTES].removeprefix(_BYTE_ORDER_MARK)):
        return True
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in _PAGE_TYPES and not (sniff(head[:_FIRST_BYTES]) or "").startswith("image/")


def looks_like_signing_in(address: str) -> bool:
    """Whether an address, without its query, is one where people sign in, by its words."""
    return _SIGNING_IN.search(address) is not None
