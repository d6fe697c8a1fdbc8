"""Formats have names for people; which raw photographs have a preview that can be found."""

from __future__ import annotations

import pytest

from worker.images.kinds import described, is_raw


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("image/jxl", "JPEG XL (image/jxl)"),
        ("application/pdf", "a PDF document (application/pdf)"),
        ("video/webm", "a video (video/webm)"),
        ("audio/flac", "a sound recording (audio/flac)"),
        ("application/vnd.oasis.opendocument.text", "a document (application/vnd.oasis.opendocument.text)"),
        (None, "of no known kind"),
    ],
)
def test_a_format_is_described_with_its_name_and_its_media_type(media_type: str | None, name: str) -> None:
    assert described(media_type) == name


def test_only_raw_photographs_whose_preview_can_be_found_are_read() -> None:
    assert is_raw("image/x-canon-cr3")
    assert not any(map(is_raw, ("image/x-sigma-x3f", "image/tiff", None)))
