"""How many deliveries fit into the limit on file descriptors."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operations.descriptors import fitting, make_room, needed


@given(wanted=st.integers(1, 1000), limit=st.integers(64, 1 << 20))
def test_what_fits_is_the_largest_prefetch_that_the_limit_allows(wanted: int, limit: int) -> None:
    prefetch = fitting(wanted, limit)
    assert 1 <= prefetch <= wanted
    assert needed(prefetch) <= limit or prefetch == 1
    assert prefetch == wanted or needed(prefetch + 1) > limit


@pytest.mark.parametrize(
    ("soft", "hard", "prefetch", "raised_to", "warns"),
    [
        (1024, 1024, 64, None, False),
        (1024, 1024, 1000, 1024, True),
        (1024, 1_048_576, 1000, needed(1000), False),
        (1024, resource.RLIM_INFINITY, 1000, needed(1000), False),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1000, None, False),
    ],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed_and_what_does_not_fit_is_said(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, prefetch: int, raised_to: int | None, *, warns: bool
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    room = make_room(prefetch)
    assert set_to == ([] if raised_to is None else [(raised_to, hard)])
    assert (room.message is not None) is warns
    assert (room.prefetch < prefetch) is warns
    if room.message is not None:
        assert "LimitNOFILE" in room.message
        assert needed(room.prefetch) <= 1024
