"""Formats are detected from bytes alone."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.images.format import sniff


@pytest.mark.parametrize(
    ("pillow_format", "media_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("WEBP", "image/webp"),
        ("ICO", "image/x-icon"),
        ("AVIF", "image/avif"),
        ("JPEG2000", "image/jp2"),
        ("PDF", "application/pdf"),
        ("EPS", "image/x-eps"),
    ],
)
def test_what_pillow_writes_is_recognised(pillow_format: str, media_type: str) -> None:
    written = io.BytesIO()
    Image.new("RGB", (16, 16)).save(written, pillow_format)

    assert sniff(written.getvalue()) == media_type
    assert sniff(written.getvalue()[:64]) == media_type


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "image/heic"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "image/heic"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf", "image/avif"),
        (b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00miaf", "image/heif"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "video/mp4"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "image/svg+xml"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>', "application/xml"),
        (b'<?xml version="1.0"?>\n<svg>', "image/svg+xml"),
        (b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x" [ <!ENTITY a "b"> ]>\n<svg>', "image/svg+xml"),
        (b"\xef\xbb\xbf\n<!-- <html> -->\n<?xml-stylesheet?>\n<s:svg xmlns:s='x'>", "image/svg+xml"),
        ("<?xml version='1.0' encoding='iso-8859-1'?><!-- é --><svg/>".encode("latin-1"), "image/svg+xml"),
        ("\ufeff<svg/>".encode("utf-16-le"), "image/svg+xml"),
        ("<svg/>".encode("utf-16-be"), "image/svg+xml"),
        (b"<?xml version='1.0'?><!-- svg --><html>", "text/html"),
        (b"<?xml version='1.0'?><Error>svg</Error>", "application/xml"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "image/x-canon-cr3"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "image/x-canon-cr2"),
        (b"\x00\x00\x02\x00\x01\x00\x10\x10", "image/x-win-cursor"),
        (b"\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x10\x00\x18\x00", "image/x-tga"),
        (b"\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x10\x00\x19\x00", None),
        (b"<!DOCTYPE html><html>", "text/html"),
        (b"this is a text file named .jpg\n", "text/plain"),
        ("Grüße ".encode() * 20, "text/plain"),
        (b"x" * 63 + "ü".encode(), "text/plain"),
        (b"BM is how this text begins", "text/plain"),
        (b"", None),
        (b"\x00\x01\x02\x03", None),
        (b"\xff\xd8", None),
        (b"\x80abc" * 5, None),
    ],
)
def test_other_beginnings(head: bytes, media_type: str | None) -> None:
    assert sniff(head) == media_type


@given(st.binary(max_size=100))
def test_any_bytes_can_be_examined(head: bytes) -> None:
    assert sniff(head) in {None, "text/plain"} or sniff(head)
