"""Detects the format of a file from its first bytes. Pure.

A file name or a declared type is never trusted. Formats that no decoder here supports are recognised too, so that an
error can name the format that was uploaded instead of "not an image".
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import Final

HEAD_BYTES: Final = 64
"""How much of a file `sniff` examines."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),  # BigTIFF
    (b"MM\x00+", "image/tiff"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"%PDF-", "application/pdf"),
    (b"%!PS", "application/postscript"),
    (b"PK\x03\x04", "application/zip"),
)

_ISO_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
}

_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0c\x1b")


def sniff(head: bytes) -> str | None:
    """The media type of a file that begins with `head` (`HEAD_BYTES` are enough), or None for an unknown format."""
    head = head[:HEAD_BYTES]
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    return _text(head)


def _iso_media(head: bytes) -> str:
    """HEIC and AVIF share MP4's container; its brands identify the format, the major brand first."""
    box_bytes = int.from_bytes(head[:4], "big")
    compatible = head[16 : min(box_bytes, len(head))]
    brands = [head[8:12], *(compatible[start : start + 4] for start in range(0, len(compatible), 4))]
    specific = [_ISO_BRANDS[brand] for brand in brands if brand in _ISO_BRANDS]
    # `mif1` only means "some image": a brand that names the codec is more specific.
    return next((found for found in specific if found != "image/heif"), specific[0] if specific else "video/mp4")


def _text(head: bytes) -> str | None:
    if head.startswith(_BYTE_ORDER_MARKS):
        return "text/plain"
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in head):
        return None
    try:
        # The head is not the whole file: a character cut off at its end is not an error.
        text = getincrementaldecoder("utf-8")().decode(head).lstrip().lower()
    except UnicodeDecodeError:
        return None
    if text.startswith("<svg") or (text.startswith("<?xml") and "<svg" in text):
        return "image/svg+xml"
    if text.startswith(("<!doctype html", "<html")):
        return "text/html"
    return "text/plain" if text else None
