"""A rate is what was finished over the time that it took, whole batches of it, and never that of one batch."""

from __future__ import annotations

import random

import pytest

from worker.diagnostics.counting import MINIMUM_BATCHES, Counted, counted_of, images_needed


def batches(number: int, size: int, every_s: float, *, within_s: float = 0.0, begin_s: float = 5.0) -> list[float]:
    """The moments of images that finish in batches; those of one batch within a short time."""
    of_one = [within_s * place / size for place in range(size)]
    return [begin_s + every_s * batch + more for batch in range(number) for more in of_one]


@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_the_rate_is_that_of_whole_batches_wherever_the_run_begins_and_ends(size: int, cut: int) -> None:
    moments = batches(12, size, 0.5, within_s=0.001)
    moments = moments[cut : len(moments) - cut]  # the run began and ended within a batch
    random.Random(cut).shuffle(moments)
    counted = counted_of(moments, size)
    assert counted is not None
    assert counted.images % size == 0
    assert counted.images_per_s == pytest.approx(size / 0.5, rel=1e-9)


def test_the_window_of_the_first_and_last_image_would_have_counted_too_many() -> None:
    moments = batches(6, 16, 1.0)
    assert (len(moments) - 1) / (moments[-1] - moments[0]) == 19.0
    assert counted_of(moments, 16) == Counted(64, 4.0)


@pytest.mark.parametrize("size", [1, 2, 16])
def test_there_is_no_rate_of_one_batch_or_of_a_few(size: int) -> None:
    assert counted_of([], size) is None
    assert counted_of(batches(1, size, 1.0), size) is None
    needed = images_needed(size)
    assert counted_of(batches(needed, 1, 1.0)[:-1], size) is None
    counted = counted_of(batches(needed, 1, 1.0), size)
    assert counted is not None
    assert counted.images >= MINIMUM_BATCHES * size


def test_images_that_all_finish_at_the_same_moment_have_no_rate() -> None:
    assert counted_of([7.0] * 100, 4) is None


def test_batches_that_are_smaller_than_they_may_be_are_counted_as_they_come() -> None:
    counted = counted_of(batches(40, 3, 0.25), 8)
    assert counted is not None
    assert counted.images_per_s == pytest.approx(12.0)
