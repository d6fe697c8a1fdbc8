"""What people call the formats that `sniff` recognises, and which of them are pictures at all. Pure."""

from __future__ import annotations

from typing import Final

_NAMES: Final = {
    "image/avif": "AVIF",
    "image/bmp": "BMP",
    "image/bpg": "BPG",
    "image/dicom-rle": "DICOM",
    "image/emf": "an EMF drawing",
    "image/fits": "FITS",
    "image/flif": "FLIF",
    "image/gif": "GIF",
    "image/heic": "HEIC",
    "image/heif": "HEIF",
    "image/icns": "an Apple icon",
    "image/jp2": "JPEG 2000",
    "image/jpeg": "JPEG",
    "image/jxl": "JPEG XL",
    "image/jxr": "JPEG XR",
    "image/png": "PNG",
    "image/qoi": "QOI",
    "image/sgi": "SGI",
    "image/svg+xml": "SVG",
    "image/tiff": "TIFF",
    "image/vnd-ms.dds": "DDS",
    "image/vnd.adobe.photoshop": "a Photoshop document (PSD)",
    "image/vnd.djvu": "DjVu",
    "image/vnd.radiance": "Radiance HDR",
    "image/webp": "WebP",
    "image/wmf": "a WMF drawing",
    "image/x-canon-cr2": "a raw photograph (CR2)",
    "image/x-canon-cr3": "a raw photograph (CR3)",
    "image/x-canon-crw": "a raw photograph (CRW)",
    "image/x-cdr": "a CorelDRAW drawing",
    "image/x-eps": "EPS",
    "image/x-exr": "OpenEXR",
    "image/x-fuji-raf": "a raw photograph (RAF)",
    "image/x-icon": "ICO",
    "image/x-minolta-mrw": "a raw photograph (MRW)",
    "image/x-olympus-orf": "a raw photograph (ORF)",
    "image/x-panasonic-rw2": "a raw photograph (RW2)",
    "image/x-pcx": "PCX",
    "image/x-portable-anymap": "PNM",
    "image/x-psp": "a Paint Shop Pro picture",
    "image/x-sigma-x3f": "a raw photograph (X3F)",
    "image/x-tga": "TGA",
    "image/x-win-ani": "an animated cursor",
    "image/x-win-cursor": "a cursor",
    "image/x-xbitmap": "XBM or XPM",
    "image/x-xcf": "a GIMP picture (XCF)",
    "application/gzip": "a gzip archive",
    "application/ogg": "an Ogg recording",
    "application/pdf": "a PDF document",
    "application/postscript": "PostScript",
    "application/rtf": "an RTF document",
    "application/vnd.openxmlformats-officedocument": "an Office document",
    "application/vnd.rar": "a RAR archive",
    "application/x-7z-compressed": "a 7z archive",
    "application/x-bzip2": "a bzip2 archive",
    "application/x-executable": "a program",
    "application/x-ole-storage": "an Office document of before 2007",
    "application/x-tar": "a tar archive",
    "application/x-xz": "an xz archive",
    "application/xml": "an XML document",
    "application/zip": "a ZIP archive",
    "application/zstd": "a Zstandard archive",
    "text/html": "a web page",
    "text/plain": "a text",
}

_RAW_WITH_PREVIEWS: Final = frozenset(
    {
        "image/x-canon-cr2",
        "image/x-canon-cr3",
        "image/x-fuji-raf",
        "image/x-olympus-orf",
        "image/x-panasonic-rw2",
    }
)


PICTURE_FORMATS: Final = frozenset(
    {"AVIF", "BMP", "GIF", "HEIF", "ICO", "JPEG", "MPO", "PNG", "TIFF", "WEBP"}
    | {"3FR", "ARW", "CR2", "CR3", "DCR", "DNG", "ERF", "IIQ", "MEF", "MOS", "NEF", "ORF", "PEF", "RAF", "RAW", "RW2"}
    | {"RWL", "SRW"}
)
"""What results may call the format of an image: Pillow's names, and those of raw photographs."""


def described(media_type: str | None) -> str:
    """The format as people call it, with its media type: `JPEG XL (image/jxl)`; for None, that it is unknown."""
    if media_type is None:
        return "of no known kind"
    name = _NAMES.get(media_type)
    if name is None:
        kind, _, _ = media_type.partition("/")
        name = {"video": "a video", "audio": "a sound recording", "application": "a document"}.get(kind, "a file")
    return f"{name} ({media_type})"


def is_raw(media_type: str | None) -> bool:
    """Whether it is a raw photograph whose preview can be found; those within TIFF are not known by their head."""
    return media_type in _RAW_WITH_PREVIEWS
