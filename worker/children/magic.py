"""What a file is, told by its first bytes: which parser may see it, and what to call it when none may."""

from __future__ import annotations

from dataclasses import dataclass

ALLOWED = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "ICO")
"""Pillow's names of the formats that are decoded. No PostScript, no SVG, no camera formats, nothing that runs code."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the first bytes show. `what` completes "it looks like …"; `allowed`: it may be given to a parser."""

    what: str
    image: bool = False
    allowed: bool = False


_SIGNATURES: tuple[tuple[int, bytes, Look], ...] = (
    (0, b"\xff\xd8\xff", Look("a JPEG", image=True, allowed=True)),
    (0, b"\x89PNG\r\n\x1a\n", Look("a PNG", image=True, allowed=True)),
    (0, b"GIF8", Look("a GIF", image=True, allowed=True)),
    (0, b"II*\0", Look("a TIFF", image=True, allowed=True)),
    (0, b"MM\0*", Look("a TIFF", image=True, allowed=True)),
    (0, b"II+\0", Look("a BigTIFF", image=True, allowed=True)),
    (0, b"MM\0+", Look("a BigTIFF", image=True, allowed=True)),
    (8, b"WEBP", Look("a WebP", image=True, allowed=True)),
    (0, b"\0\0\1\0", Look("an ICO", image=True, allowed=True)),
    (0, b"BM", Look("a BMP", image=True, allowed=True)),
    (4, b"ftypavif", Look("an AVIF", image=True)),
    (4, b"ftypavis", Look("an AVIF", image=True)),
    (4, b"ftyphei", Look("a HEIC", image=True)),
    (4, b"ftyphev", Look("a HEIC", image=True)),
    (4, b"ftypmif1", Look("a HEIF", image=True)),
    (4, b"ftypmsf1", Look("a HEIF", image=True)),
    (4, b"ftypcrx", Look("a camera's raw file", image=True)),
    (4, b"ftyp", Look("a video")),
    (0, b"\0\0\0\x0cjP  ", Look("a JPEG 2000", image=True)),
    (0, b"\xff\x4f\xff\x51", Look("a JPEG 2000", image=True)),
    (0, b"\0\0\0\x0cJXL ", Look("a JPEG XL", image=True)),
    (0, b"\xff\x0a", Look("a JPEG XL", image=True)),
    (0, b"8BPS", Look("a Photoshop file", image=True)),
    (0, b"\xc5\xd0\xd3\xc6", Look("an EPS", image=True)),
    (0, b"%!PS", Look("a PostScript file", image=True)),
    (0, b"gimp xcf", Look("a GIMP file", image=True)),
    (0, b"qoif", Look("a QOI", image=True)),
    (0, b"\xd7\xcd\xc6\x9a", Look("a WMF", image=True)),
    (0, b"%PDF-", Look("a PDF")),
    (0, b"PK\3\4", Look("a ZIP archive or an office document")),
    (0, b"\xd0\xcf\x11\xe0", Look("an old office document")),
    (0, b"\x1f\x8b", Look("gzip data")),
    (0, b"Rar!", Look("a RAR archive")),
    (0, b"7z\xbc\xaf\x27\x1c", Look("a 7z archive")),
    (0, b"\x7fELF", Look("a program")),
    (0, b"MZ", Look("a Windows program")),
    (0, b"RIFF", Look("a sound or a video")),
    (0, b"ID3", Look("a sound file")),
)


def look(head: bytes) -> Look:
    """What `head`, the first bytes of a file, shows. About 4 KiB tell text from data reliably."""
    for offset, signature, seen in _SIGNATURES:
        if head[offset:].startswith(signature):
            # "BM" and "GIF8" may as well begin a letter.
            return _TEXT if signature.isalnum() and _is_text(head) else seen
    return _unsigned(head)


_TEXT = Look("text")


def _unsigned(head: bytes) -> Look:
    if not any(head):
        return Look("nothing but zero bytes")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:512].lower()
    if b"<svg" in start:
        return Look("an SVG", image=True)
    if start.startswith((b"<!doctype html", b"<html")):
        return Look("an HTML page")
    if start.startswith(b"<?xml"):
        return Look("an XML document")
    return _TEXT if _is_text(head) else Look("data of an unknown kind")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut in two by the end of what was read is no proof against text.
        if len(head) - error.start > 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(each.isprintable() or each in "\r\n\t\f" for each in text)
