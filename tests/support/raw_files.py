"""Raw photographs as cameras write them, but for the sensor's data: their containers, with previews of any size.

The structures are those of https://exiftool.org/TagNames and https://github.com/lclevy/canon_cr3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from PIL import Image

from tests.support.pictures import Values, ifd, written

Tags = dict[int, tuple[int, Sequence[int] | bytes]]

SENSOR = b"\xff\xd8\xff\xc3" + bytes(range(1, 200)) * 40
"""What stands for the sensor's data: lossless JPEG, which is no preview."""

_ORDER = "<"


def jpeg(size: tuple[int, int], colour: str = "red") -> bytes:
    """A preview, larger than its colour needs: the left half is white."""
    image = Image.new("RGB", size, colour)
    image.paste("white", (0, 0, size[0] // 2, size[1]))
    return written(image, "JPEG", quality=90)


class TiffFile:
    """A file under construction: parts at the offsets that `add` gives, and a header that names the first directory."""

    def __init__(self, magic: bytes = b"II*\0", head: bytes = b"") -> None:
        self._magic = magic
        self._parts = bytearray(8) + head
        self._parts += b"\0" * (len(self._parts) % 2)

    def add(self, data: bytes) -> int:
        """The offset at which `data` is."""
        offset = len(self._parts)
        self._parts += data + b"\0" * (len(data) % 2)
        return offset

    def directory(self, tags: Values, following: int = 0) -> int:
        """The offset at which a directory is."""
        return self.add(ifd(_ORDER, tags, len(self._parts), following))

    def bytes(self, first: int) -> bytes:
        """The whole file."""
        return self._magic + struct.pack(_ORDER + "I", first) + bytes(self._parts[8:])


def _picture(size: tuple[int, int], offset: int, length: int, compression: int, photometric: int) -> Tags:
    return {
        256: (4, [size[0]]),
        257: (4, [size[1]]),
        258: (3, [8, 8, 8]),
        259: (3, [compression]),
        262: (3, [photometric]),
        273: (4, [offset]),
        277: (3, [3]),
        278: (4, [size[1]]),
        279: (4, [length]),
    }


def _sensor(file: TiffFile) -> Tags:
    """The directory of the mosaic."""
    return _picture((4000, 3000), file.add(SENSOR), len(SENSOR), 7, 32803) | {
        254: (4, [0]),
        258: (3, [16]),
        277: (3, [1]),
    }


def tiff_raw(
    preview: bytes | None,
    *,
    maker: str = "NIKON CORPORATION",
    orientation: int = 1,
    dng: bool = False,
    as_strip: bool = False,
    head: bytes = b"",
) -> bytes:
    """NEF, ARW, DNG, CR2 and their like: a thumbnail first, then, below it, the sensor's data and a JPEG preview.

    `as_strip`: the preview is the strip of its directory, as in DNG and CR2, and not named by its own two tags.
    """
    file = TiffFile(head=head)
    thumbnail = Image.new("RGB", (160, 120), "blue").tobytes()
    first = _picture((160, 120), file.add(thumbnail), len(thumbnail), 1, 2)
    first |= {254: (4, [1]), 271: (2, maker.encode() + b"\0"), 274: (3, [orientation])}
    below = [file.directory(_sensor(file))]
    if preview is not None:
        at = file.add(preview)
        named: Tags = {254: (4, [1]), 259: (3, [6]), 513: (4, [at]), 514: (4, [len(preview)])}
        strip = _picture((1, 1), at, len(preview), 7, 6) | {254: (4, [1])}
        below.append(file.directory(strip if as_strip else named))
    first[330] = (4, below)
    if dng:
        first[50706] = (1, [1, 4, 0, 0])
    return file.bytes(file.directory(first))


def thumbnail_first(image: Image.Image, *, below: bool) -> bytes:
    """A TIFF that is no raw photograph: a thumbnail, then the picture, in the chain or below the thumbnail."""
    file = TiffFile()
    pixels, small = image.tobytes(), Image.new("RGB", (160, 120), "blue").tobytes()
    whole = file.directory(_picture(image.size, file.add(pixels), len(pixels), 1, 2))
    first = _picture((160, 120), file.add(small), len(small), 1, 2) | {254: (4, [1])}
    if below:
        first[330] = (4, [whole])
    return file.bytes(file.directory(first, 0 if below else whole))


def orf(preview: bytes) -> bytes:
    """Olympus: the preview is named in the maker's note, with offsets from its beginning."""
    file = TiffFile(b"IIRO")
    note_at = len(file._parts)
    camera_at = 12 + len(ifd(_ORDER, {0x2020: (4, [0])}, 12))
    camera_bytes = len(ifd(_ORDER, {0x0101: (4, [0]), 0x0102: (4, [0])}, 0))
    camera = ifd(_ORDER, {0x0101: (4, [camera_at + camera_bytes]), 0x0102: (4, [len(preview)])}, camera_at)
    note = b"OLYMPUS\0II\x03\0" + ifd(_ORDER, {0x2020: (4, [camera_at])}, 12) + camera + preview
    assert file.add(note) == note_at
    exif = ifd(_ORDER, {37500: (7, [0] * len(note))}, 0)[:10] + struct.pack("<II", note_at, 0)
    first = _sensor(file) | {271: (2, b"OLYMPUS CORPORATION\0"), 34665: (4, [file.add(exif)])}
    return file.bytes(file.directory(first))


def rw2(preview: bytes) -> bytes:
    """Panasonic: the preview is an entry of the first directory."""
    file = TiffFile(b"IIU\0")
    first = _sensor(file) | {271: (2, b"Panasonic\0"), 0x2E: (7, preview)}
    return file.bytes(file.directory(first))


def raf(preview: bytes) -> bytes:
    """Fujifilm: a header of its own."""
    head = b"FUJIFILMCCD-RAW 0201FF383501".ljust(84, b"\0")
    return head + struct.pack(">II", 148, len(preview)) + b"\0" * (148 - 92) + preview + SENSOR


def box(name: bytes, *contents: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), name) + content


def cr3(preview: bytes, *, orientation: int = 1, full_size: bytes = b"") -> bytes:
    """Canon: boxes. The preview has one of its own; a JPEG of full size is the sample of a track."""
    kind = box(b"ftyp", b"crx \0\0\0\1crx isom")
    turned = ifd(_ORDER, {274: (3, [orientation])}, 8)
    canon = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    previews = bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16")
    thumbnail = jpeg((160, 120), "blue")
    size = struct.pack(">IHHHHI", 0, 0, 0, 0, 0, len(preview))
    details = box(
        b"uuid",
        canon,
        box(b"CMT1", b"II*\0", struct.pack("<I", 8), turned),
        box(b"THMB", struct.pack(">IHHII", 0, 160, 120, len(thumbnail), 1), thumbnail),
    )
    shown = box(b"uuid", previews, b"\0" * 8, box(b"PRVW", size, preview))

    def moov(offset: int) -> bytes:
        table = box(
            b"stbl",
            box(b"stsz", struct.pack(">III", 0, len(full_size), 1)),
            box(b"co64", struct.pack(">IIQ", 0, 1, offset)),
        )
        track = box(b"trak", box(b"mdia", box(b"minf", table))) if full_size else b""
        return box(b"moov", details, track)

    start = len(kind) + len(moov(0)) + len(shown) + 8
    return kind + moov(start) + shown + box(b"mdat", full_size, SENSOR)


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "NEF": tiff_raw,
    "ARW": lambda preview: tiff_raw(preview, maker="SONY"),
    "CR2": lambda preview: tiff_raw(preview, maker="Canon", as_strip=True, head=b"CR\2\0\0\0\0\0"),
    "DNG": lambda preview: tiff_raw(preview, dng=True, as_strip=True),
    "ORF": orf,
    "RW2": rw2,
    "RAF": raf,
    "CR3": cr3,
}
"""Every kind of raw file: what puts a preview into one."""
