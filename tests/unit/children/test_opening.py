"""HEIC where it cannot be read: refused with its name and what would help."""

from __future__ import annotations

import pytest

from worker.children import opening
from worker.children.demand import Demand, Granted
from worker.errors import CannotBeDone
from worker.images.content import Content

ALL = Granted(1 << 40, may_have_more=False, quick_s=None)


def refusal(formats: dict[str, str]) -> CannotBeDone:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 400
    with (
        Content.from_bytes(heic, "body") as content,
        pytest.raises(CannotBeDone) as caught,
        opening.opened(content.fd, Demand(ALL), formats=formats, maximum_pixels=1000, maximum_bytes=1000),
    ):
        pytest.fail("it was opened")
    return caught.value


def test_without_the_extra_a_heic_is_refused_with_the_name_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "pillow_heif", None)
    assert not opening.needs_threads()
    error = refusal(opening.readable())
    assert error.reason == "image_format_refused"
    assert "HEIC (image/heic)" in str(error)
    assert "autotag-worker[heif]" in str(error)


def test_where_no_thread_may_be_started_a_heic_is_refused_with_that_reason() -> None:
    readable = {media_type: name for media_type, name in opening.readable().items() if name != "HEIF"}
    error = refusal(readable)
    assert error.reason == "image_format_refused"
    assert "threads" in str(error)
