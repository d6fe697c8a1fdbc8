"""The arithmetic of the benchmark: rounds, steady windows, ratios, percentiles."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))  # run by path, so they import by bare name

from measuring import arrivals, paired, percentile, shuffled_rounds, slope, steady, summarise


def test_a_summary_is_the_median_with_the_lowest_and_the_highest() -> None:
    summary = summarise([5.0, 1.0, 3.0])
    assert (summary.median, summary.low, summary.high, summary.rounds) == (3.0, 1.0, 5.0, 3)
    assert summary.spread == pytest.approx(4 / 3)


def test_a_summary_of_no_measurements_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        summarise([])


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_round_does_not_count_twice() -> None:
    # In the second round the machine was twice as slow, for both.
    assert paired([200.0, 100.0, 202.0], [100.0, 50.0, 100.0]).median == 2.0


def test_ratios_of_unequal_numbers_of_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_every_contestant_takes_part_once_in_each_round_in_an_order_that_the_seed_decides() -> None:
    names = ["a", "b", "c", "d"]
    rounds = shuffled_rounds(names, 20, seed=3)
    assert all(sorted(order) == names for order in rounds)
    assert len({tuple(order) for order in rounds}) > 5
    assert rounds == shuffled_rounds(names, 20, seed=3) != shuffled_rounds(names, 20, seed=4)


def test_the_steady_window_leaves_out_warm_up_and_tail() -> None:
    slow_start = [0.5 * number for number in range(20)]
    steadily = [10 + 0.01 * number for number in range(80)]
    window = steady([*slow_start, *steadily], warm_up=0.3, tail=0.1)
    assert window.images_per_s == pytest.approx(100)
    assert window.images == 60


def test_the_order_in_which_results_are_read_does_not_matter() -> None:
    times = [0.1 * number for number in range(50)]
    assert steady(reversed(times)) == steady(times)


def test_a_steady_window_of_too_few_images_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        steady([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at one moment"):
        steady([1.0] * 20)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.95, 4.8), (1.0, 5.0)])
def test_percentiles_lie_on_the_line_between_neighbours(share: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 5.0, 2.0], share) == pytest.approx(value)


def test_the_slope_is_the_rise_of_the_line_through_the_points() -> None:
    assert slope([(0, 10.0), (10_000, 11.0), (20_000, 12.0)]) * 10_000 == pytest.approx(1.0)


def test_events_arrive_independently_at_the_rate_asked_for() -> None:
    times = arrivals(100.0, 50.0, seed=1)
    assert times == sorted(times) == arrivals(100.0, 50.0, seed=1)
    assert 0 < times[0] < times[-1] < 50
    assert len(times) == pytest.approx(5000, rel=0.05)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert sum(gap < 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.03)  # exponential, not even
