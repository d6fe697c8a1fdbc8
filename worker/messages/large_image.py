"""The image of a large JSON body, cut out before the rest is parsed.

A parser makes text of 16 megabytes of base64, and a decoder bytes of the text; both are there at once, beside the body.
Cut out, the image is decoded from the body itself, a piece at a time, when it is put where it is used.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

LARGE_BYTES: Final = 128 << 10
"""Of the text. Shorter ones take little memory whatever is done with them."""

_TEXT: Final = re.compile(rb'"([A-Za-z0-9+/]{%d,}={0,2})"' % LARGE_BYTES)
_PLACEHOLDER_BYTES: Final = 24
_PIECE_BYTES: Final = 1 << 20
"""Of the text; four letters are three bytes, and no piece divides them."""


@dataclass(frozen=True, slots=True)
class LargeImage:
    """An image as base64 that is known to be well-formed; a part of the body, which it keeps."""

    _text: memoryview = field(repr=False)

    def __len__(self) -> int:
        """The size of the image in bytes."""
        return len(self._text) // 4 * 3 - bytes(self._text[-2:]).count(b"=")

    def __iter__(self) -> Iterator[bytes]:
        """Its bytes, in pieces."""
        for start in range(0, len(self._text), _PIECE_BYTES):
            yield binascii.a2b_base64(self._text[start : start + _PIECE_BYTES], strict_mode=True)


@dataclass(frozen=True, slots=True)
class CutBody:
    """A body with a placeholder where its first large base64 text was. `placeholder` is what it is decoded to."""

    body: bytes = field(repr=False)
    placeholder: bytes
    image: LargeImage


def cut_image(body: bytes) -> CutBody | None:
    """The body without its image; None where there is nothing large in it that is base64."""
    found = _TEXT.search(body) if len(body) > LARGE_BYTES else None
    if found is None or (found.end(1) - found.start(1)) % 4:
        return None
    placeholder = os.urandom(_PLACEHOLDER_BYTES)  # so that no publisher can write it
    start, end = found.span(1)
    cut = b"".join((body[:start], base64.b64encode(placeholder), body[end:]))
    return CutBody(cut, placeholder, LargeImage(memoryview(body)[start:end]))
