"""Detects the format of a file from its beginning. Pure.

A file name or a declared type is never trusted. Formats that no decoder here supports are recognised too, so that an
error can name the format that was uploaded instead of "not an image". `worker.images.kinds` has their names.

Raw photographs that are TIFF files outside (NEF, ARW, DNG, …) are `image/tiff` here: they differ only in their
directories, which may be anywhere in the file.
"""

from __future__ import annotations

import re
from encodings import utf_8, utf_16_be, utf_16_le
from typing import Final

HEAD_BYTES: Final = 4096
"""How much of a file `sniff` needs for every format but a long text: 64 would do for most, an SVG has a prolog."""

_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    # raw photographs, before TIFF: some begin like one
    (8, b"CR\x02", "image/x-canon-cr2"),
    (0, b"II\x1a\x00\x00\x00HEAPCCDR", "image/x-canon-crw"),
    (0, b"FUJIFILMCCD-RAW", "image/x-fuji-raf"),
    (0, b"IIRO", "image/x-olympus-orf"),
    (0, b"IIRS", "image/x-olympus-orf"),
    (0, b"MMOR", "image/x-olympus-orf"),
    (0, b"IIU\x00", "image/x-panasonic-rw2"),
    (0, b"\x00MRM", "image/x-minolta-mrw"),
    (0, b"FOVb", "image/x-sigma-x3f"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"II+\x00", "image/tiff"),  # BigTIFF
    (0, b"MM\x00+", "image/tiff"),
    (0, b"\x00\x00\x01\x00", "image/x-icon"),
    # other pictures
    (0, b"8BPS", "image/vnd.adobe.photoshop"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (0, b"\xff\x4f\xff\x51", "image/jp2"),  # the codestream alone
    (0, b"\xff\x0a", "image/jxl"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    (0, b"II\xbc\x01", "image/jxr"),
    (0, b"\x76\x2f\x31\x01", "image/x-exr"),
    (0, b"#?RADIANCE", "image/vnd.radiance"),
    (0, b"#?RGBE", "image/vnd.radiance"),
    (0, b"DDS ", "image/vnd-ms.dds"),
    (0, b"gimp xcf", "image/x-xcf"),
    (0, b"AT&TFORM", "image/vnd.djvu"),
    (0, b"icns", "image/icns"),
    (0, b"qoif", "image/qoi"),
    (0, b"BPG\xfb", "image/bpg"),
    (0, b"FLIF", "image/flif"),
    (0, b"\x01\xda\x00\x01", "image/sgi"),
    (0, b"\x01\xda\x01\x01", "image/sgi"),
    (0, b"SIMPLE  =", "image/fits"),
    (128, b"DICM", "image/dicom-rle"),
    (0, b"Paint Shop Pro Image", "image/x-psp"),
    (0, b"\xd7\xcd\xc6\x9a", "image/wmf"),
    (40, b" EMF", "image/emf"),
    (0, b"\xc5\xd0\xd3\xc6", "image/x-eps"),  # with a preview
    # what is no picture
    (0, b"%PDF-", "application/pdf"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (257, b"ustar", "application/x-tar"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"MZ", "application/x-executable"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (0, b"\x00\x00\x01\xba", "video/mpeg"),
    (0, b"\x00\x00\x01\xb3", "video/mpeg"),
    (0, b"FLV\x01", "video/x-flv"),
    (0, b"OggS", "application/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"MThd", "audio/midi"),
)
"""Offset, bytes, media type. The first that matches counts."""

_RIFF: Final = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav", b"ACON": "image/x-win-ani"}
"""The kind of a RIFF file, at offset 8."""

_ISO_BRANDS: Final = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"hevx": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"mif2": "image/heif",
    b"crx ": "image/x-canon-cr3",
    b"jxl ": "image/jxl",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
}
_GENERIC_BRAND: Final = "image/heif"
_QUICKTIME_ATOMS: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
"""What an old QuickTime film, one without `ftyp`, begins with."""

_BMP_HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_PORTABLE_PIXMAP: Final = re.compile(rb"P[1-7][\s#]")
_TARGA: Final = re.compile(
    rb".(?:\x00[\x02\x03\x0a\x0b]\x00{5}|\x01[\x01\x09]....[\x0f\x10\x18\x20]).{8}[\x08\x0f\x10\x18\x20][\x00-\x3f]",
    re.DOTALL,
)
_ZIP_MIME_TYPE: Final = re.compile(rb"mimetype(application/[\w.+-]{1,80})")

_BYTE_ORDER_MARKS: Final = ((b"\xef\xbb\xbf", utf_8), (b"\xff\xfe", utf_16_le), (b"\xfe\xff", utf_16_be))
"""With the modules of their encodings: in the sandbox Python can import none that it has not imported yet."""
_UTF_16_MARKUP: Final = ((b"<\x00", utf_16_le), (b"\x00<", utf_16_be))
_TEXT_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_PROLOG: Final = re.compile(r"\s*(?:<\?.*?\?>|<!--.*?-->|<!doctype\s+([\w:.-]+)[^>\[]*(?:\[.*?\]\s*)?>)", re.DOTALL)
"""One piece of what may stand before a document's root: a declaration, a comment, a DOCTYPE, which names the root."""
_CUT_DOCTYPE: Final = re.compile(r"\s*<!doctype\s+([\w:.-]+)")
_ROOT: Final = re.compile(r"\s*<(?:[\w.-]+:)?([a-z][\w.-]*)")
_HTML: Final = frozenset({"html", "head", "body", "title", "script", "meta", "div", "p", "h1", "table", "a", "style"})


def sniff(head: bytes) -> str | None:
    """The media type of a file that begins with `head` (`HEAD_BYTES` are enough), or None for an unknown format."""
    for offset, magic, media_type in _MAGIC:
        if head.startswith(magic, offset):
            return media_type
    return _container(head) or _loose(head) or _text(head)


def _container(head: bytes) -> str | None:
    """The kind of a file whose format holds many kinds."""
    if head[:4] in (b"RIFF", b"RIFX"):
        return _RIFF.get(head[8:12], "image/x-cdr" if head[8:11] in (b"CDR", b"cdr") else None)
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[4:8] in _QUICKTIME_ATOMS:
        return "video/quicktime"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:128] else "video/x-matroska"
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    return None


def _loose(head: bytes) -> str | None:
    """Formats whose magic is short, each with something more that has to be right."""
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    if _PORTABLE_PIXMAP.match(head):
        return "image/x-portable-anymap"
    if head[:1] == b"\x0a" and head[1:2] in b"\x00\x02\x03\x04\x05" and head[2:3] == b"\x01" and len(head) >= 128:
        return "image/x-pcx"
    if head[:4] == b"\x00\x00\x02\x00" and head[4:6] != b"\x00\x00":
        return "image/x-win-cursor"
    if head[:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47":
        return "video/mp2t"
    if len(head) >= 18 and _TARGA.match(head) and any(head[12:14]) and any(head[14:16]):
        return "image/x-tga"
    return None


def _iso_media(head: bytes) -> str:
    """HEIC and AVIF share MP4's container; its brands identify the format, the major brand first."""
    box_bytes = int.from_bytes(head[:4], "big")
    compatible = head[16 : min(box_bytes, len(head))]
    brands = [head[8:12], *(compatible[start : start + 4] for start in range(0, len(compatible), 4))]
    specific = [_ISO_BRANDS[brand] for brand in brands if brand in _ISO_BRANDS]
    # `mif1` only means "some image": a brand that names the codec is more specific.
    return next((found for found in specific if found != _GENERIC_BRAND), specific[0] if specific else "video/mp4")


def _zip(head: bytes) -> str:
    """Office documents are archives whose first entries give them away."""
    if found := _ZIP_MIME_TYPE.search(head[:256]):
        return found[1].decode()
    if b"[Content_Types].xml" in head or b"_rels/.rels" in head:
        return "application/vnd.openxmlformats-officedocument"
    return "application/zip"


def _text(head: bytes) -> str | None:
    encoding = next((found for mark, found in _BYTE_ORDER_MARKS if head.startswith(mark)), None)
    marked = encoding is not None
    if encoding is None:
        encoding = next((found for start, found in _UTF_16_MARKUP if head.startswith(start)), utf_8)
    try:
        # The head is not the whole file: a character cut off at its end is not an error.
        text = encoding.IncrementalDecoder().decode(head).removeprefix("\ufeff").lstrip().lower()
    except UnicodeDecodeError:
        if not head.startswith(b"<"):
            return None
        text = head.decode("latin-1").lower()
    if _TEXT_CONTROLS.search(text):
        return None
    if text.startswith("%!ps"):
        return "image/x-eps" if "epsf" in text[:64] else "application/postscript"
    if text.startswith("<"):
        return _markup(text)
    if text.startswith(("/* xpm */", "#define ")) and "width" in text[:512]:
        return "image/x-xbitmap"
    return "text/plain" if text or marked else None


def _markup(text: str) -> str:
    """SVG, HTML or other XML, by the name of the root element, which a prolog may precede."""
    position, xml = 0, text.startswith("<?xml")
    while piece := _PROLOG.match(text, position):
        if piece[1] is not None:
            return _by_root(piece[1], xml=True)
        position = piece.end()
    if root := _CUT_DOCTYPE.match(text, position) or _ROOT.match(text, position):
        return _by_root(root[1], xml)
    # The head ends within the prolog.
    return "application/xml" if xml else "text/plain"


def _by_root(root: str, xml: bool) -> str:
    name = root.rpartition(":")[2]
    if name == "svg":
        return "image/svg+xml"
    if name in _HTML:
        return "text/html"
    return "application/xml" if xml else "text/plain"
