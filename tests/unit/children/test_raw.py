"""Raw photographs are recognised by their directories, and their largest sensible preview is found."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import raw_files
from tests.support.pictures import ifd, tiff
from worker.children.formats import boxes, raw
from worker.children.formats.raw import Preview
from worker.children.formats.tiff import MAXIMUM_DIRECTORIES, NotTiff, Tiff

LARGE = raw_files.jpeg((1616, 1080))
THUMBNAIL = raw_files.jpeg((160, 120))


def found_in(data: bytes) -> Preview | None:
    if data.startswith(b"FUJI"):
        return raw.largest_in_raf(data)
    if data[4:8] == b"ftyp":
        return raw.largest_in_cr3(data)
    return raw.largest_in_tiff(data, Tiff(data))


@pytest.mark.parametrize("container", raw_files.CONTAINERS)
def test_the_preview_of_a_raw_photograph_is_found(container: str) -> None:
    data = raw_files.CONTAINERS[container](LARGE)
    preview = found_in(data)
    assert preview is not None
    assert (preview.size, data[preview.start : preview.end]) == ((1616, 1080), LARGE)


@pytest.mark.parametrize("container", raw_files.CONTAINERS)
def test_a_thumbnail_is_no_preview(container: str) -> None:
    assert found_in(raw_files.CONTAINERS[container](THUMBNAIL)) is None


def test_the_largest_of_several_counts() -> None:
    data = raw_files.cr3(raw_files.jpeg((1620, 1080)), full_size=raw_files.jpeg((2400, 1600)), orientation=8)
    preview = raw.largest_in_cr3(data)
    assert preview is not None
    assert (preview.size, preview.orientation) == ((2400, 1600), 8)


@pytest.mark.parametrize(
    ("maker", "kind"),
    [("NIKON CORPORATION", "NEF"), ("SONY", "ARW"), ("PENTAX", "PEF"), ("SAMSUNG", "SRW"), ("Nobody", "RAW")],
)
def test_a_raw_photograph_is_called_what_its_maker_calls_it(maker: str, kind: str) -> None:
    data = raw_files.tiff_raw(None, maker=maker)
    assert raw.tiff_kind(data, Tiff(data)) == kind


def test_a_dng_is_known_by_its_version_and_a_cr2_by_its_head() -> None:
    data = raw_files.tiff_raw(None, dng=True)
    assert raw.tiff_kind(data, Tiff(data)) == "DNG"
    data = raw_files.tiff_raw(None, maker="Canon", head=b"CR\2\0\0\0\0\0")
    assert raw.tiff_kind(data, Tiff(data)) == "CR2"


def test_a_cameras_thumbnail_alone_is_a_raw_photograph_and_any_other_tiff_is_none() -> None:
    pixels = bytes(160 * 120 * 3)
    thumbnail = tiff("<", (160, 120), [8] * 3, 2, pixels, {254: (4, [1]), 271: (2, b"SONY\0")})
    assert raw.tiff_kind(thumbnail, Tiff(thumbnail)) == "ARW"
    edited = tiff("<", (160, 120), [8] * 3, 2, pixels, {271: (2, b"SONY\0")})
    assert raw.tiff_kind(edited, Tiff(edited)) is None
    unsigned = tiff("<", (160, 120), [8] * 3, 2, pixels, {254: (4, [1])})
    assert raw.tiff_kind(unsigned, Tiff(unsigned)) is None


def test_directories_that_lead_in_circles_end() -> None:
    circle = b"II*\0\x08\0\0\0" + ifd("<", {256: (4, [1]), 330: (4, [8, 8])}, 8, 8)
    assert len(Tiff(circle).directories) == 1


def test_no_more_directories_are_read_than_a_file_may_have() -> None:
    each = len(ifd("<", {256: (4, [1])}, 0))
    chain = b"".join(ifd("<", {256: (4, [1])}, 0, 8 + (number + 1) * each) for number in range(500))
    assert len(Tiff(b"II*\0\x08\0\0\0" + chain).directories) == MAXIMUM_DIRECTORIES


def test_values_beyond_the_end_of_the_file_are_none() -> None:
    data = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 330, 4, 0xFFFFFFFF, 0xFFFFFF00, 0)
    [first] = Tiff(data).directories
    assert first.numbers(330) == ()


@pytest.mark.parametrize("data", [b"II*\0", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\0\x01", b"II+\0\x08\0\0\0"])
def test_a_header_without_its_directory_is_a_file_that_was_cut(data: bytes) -> None:
    with pytest.raises(NotTiff) as caught:
        Tiff(data)
    assert caught.value.truncated


@given(st.binary(max_size=400))
def test_any_bytes_can_be_examined(data: bytes) -> None:
    for head in (b"II*\0", b"MM\0*", b"II+\0"):
        try:
            tiff_file = Tiff(head + data)
        except NotTiff:
            continue
        raw.tiff_kind(head + data, tiff_file)
        raw.largest_in_tiff(head + data, tiff_file)
    raw.largest_in_raf(data)
    raw.largest_in_cr3(data)
    assert len(list(boxes.walk(data, {b"moov"}))) <= len(data)
