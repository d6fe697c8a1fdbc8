"""JPEGs without their last marker: whole ones, and ones of which pixels are missing."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import pytest
from PIL import Image

from tests.support.pictures import written
from worker.children.formats import jpeg

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 4},
    "not subsampled": {"subsampling": 0},
    "optimised": {"optimize": True},
}


NOISE = Image.frombytes("L", (300, 200), random.Random(7).randbytes(60000))


def picture(mode: str = "RGB") -> Image.Image:
    return NOISE.convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [b"", b"\xff", b"\0" * 512, b"\xff" * 512, b"\xff" + b"\0" * 4096])
def test_a_jpeg_without_its_last_marker_is_opened_when_all_its_pixels_are_there(
    mode: str, kind: str, end: bytes
) -> None:
    whole = written(picture(mode), "JPEG", quality=90, **KINDS[kind])
    found = jpeg.with_its_end(whole[:-2] + end)
    assert found is not None
    with Image.open(io.BytesIO(whole)) as wanted:
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("end", [b"", b"\0" * 4096, b"\xff" * 512])
def test_one_of_which_pixels_are_missing_is_not_opened(kind: str, kept: float, end: bytes) -> None:
    whole = written(picture(), "JPEG", quality=90, **KINDS[kind])
    assert jpeg.with_its_end(whole[: int(len(whole) * kept)] + end) is None


def test_a_progressive_jpeg_that_ends_before_its_last_scan_is_not_opened() -> None:
    whole = written(picture(), "JPEG", progressive=True)
    assert jpeg.with_its_end(whole[: whole.rindex(b"\xff\xda")]) is None
    assert jpeg.with_its_end(whole[: whole.rindex(b"\xff\xc4")]) is None


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda\0\x02", b"\xff\xd8" + b"\0" * 99]
)
def test_what_has_no_picture_at_all_is_not_opened(data: bytes) -> None:
    assert jpeg.with_its_end(data) is None
    assert jpeg.frame(data) is None


def test_the_frame_header_gives_kind_and_size() -> None:
    found = jpeg.frame(b"junk" + written(picture(), "JPEG"), 4)
    assert found == jpeg.Frame(0xC0, 8, 300, 200, 3)
    assert found.kind_not_read is None


@pytest.mark.parametrize(
    ("marker", "precision", "kind"),
    [
        (0xC3, 14, "lossless JPEG"),
        (0xC1, 12, "JPEG with 12 bits a channel"),
        (0xC5, 8, "hierarchical JPEG"),
        (0xF7, 8, "JPEG-LS"),
        (0xC2, 8, None),
        (0xC9, 8, None),
    ],
)
def test_a_kind_of_jpeg_that_is_not_read_has_a_name(marker: int, precision: int, kind: str | None) -> None:
    header = struct.pack(">BBHBHHB", 0xFF, marker, 17, precision, 64, 96, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    found = jpeg.frame(b"\xff\xd8" + header)
    assert found is not None
    assert (found.kind_not_read, found.width, found.height) == (kind, 96, 64)
