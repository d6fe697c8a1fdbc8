"""A curve from scores to confidences, fitted to tags that people have judged. Pure.

Platt scaling: the logistic curve over the score's logit under which the judgements are most likely (J. Platt,
"Probabilistic outputs for support vector machines", 1999), found by Newton's method with halved steps, as H.-T. Lin,
C.-J. Lin and R. C. Weng advise ("A note on Platt's probabilistic outputs", Machine Learning 68, 2007). In place of
Platt's smoothed targets there is a prior: a normal distribution about a curve that is known already, so that a few
judgements bend that curve and do not replace it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from worker.models.manifest import Curve
from worker.tagging.confidences import confidence

IDENTITY = Curve(slope=1, offset=0)
"""The curve by which a score is its own confidence."""

Judged = Counter[tuple[int, bool]]
"""How many tags have a score, as `place_of` writes it, and are true or not. Its size does not grow with the tags'."""

PRIOR_TAGS = 16
"""What the prior is worth: as many judged tags as these, where the curve is at ½. It is 8 % of 200 tags there."""

_PLACES = 100
_OFFSET_PRECISION = PRIOR_TAGS / 4
"""One over the prior's variance: a tag where the confidence is p informs about the offset by p(1 - p)."""
_SLOPE_PRECISION = PRIOR_TAGS
"""And about the slope by that times the square of its logit, taken as 2 here (a score of 0.12 or 0.88)."""

LEAST_SLOPE = 0.05
"""Below it scores would say next to nothing of what is true, or the opposite; the order of tags is kept as it is."""

_LEAST_ODDS = 1e-6
_MOST_STEPS = 100
_MOST_HALVINGS = 40
_SMALLEST_STEP = 1e-9


def place_of(score: float) -> int:
    """A score's logit in hundredths."""
    within = min(max(score, _LEAST_ODDS), 1 - _LEAST_ODDS)
    return round(_PLACES * math.log(within / (1 - within)))


def score_at(place: int) -> float:
    """The score of a logit in hundredths."""
    return (1 + math.tanh(place / _PLACES / 2)) / 2


def confidence_at(place: int, curve: Curve) -> float:
    """The confidence of a score with that logit."""
    return confidence(score_at(place), curve)


def fit(judged: Mapping[tuple[int, bool], int], prior: Curve) -> Curve:
    """The curve of the judgements and the prior; its slope is `LEAST_SLOPE` at least."""
    slope, offset = _newton(judged, prior, (prior.slope, prior.offset), fixed_slope=False)
    if slope < LEAST_SLOPE:  # what has to be minimised is convex, so that the least within the limit is at the limit
        slope, offset = _newton(judged, prior, (LEAST_SLOPE, offset), fixed_slope=True)
    return Curve(slope=round(slope, 4), offset=round(offset, 4))


def _newton(
    judged: Mapping[tuple[int, bool], int], prior: Curve, start: tuple[float, float], *, fixed_slope: bool
) -> tuple[float, float]:
    """Slope and offset with the least loss."""
    slope, offset = start
    least = loss(judged, prior, slope, offset)
    for _ in range(_MOST_STEPS):
        by_slope, by_offset = _step(judged, prior, slope, offset, fixed_slope=fixed_slope)
        for _ in range(_MOST_HALVINGS):
            new = loss(judged, prior, slope + by_slope, offset + by_offset)
            if new <= least:
                break
            by_slope, by_offset = by_slope / 2, by_offset / 2
        else:
            break
        slope, offset, least = slope + by_slope, offset + by_offset, new
        if max(abs(by_slope), abs(by_offset)) < _SMALLEST_STEP:
            break
    return slope, offset


def _step(
    judged: Mapping[tuple[int, bool], int], prior: Curve, slope: float, offset: float, *, fixed_slope: bool
) -> tuple[float, float]:
    """Newton's step: the gradient, divided by the matrix of second derivatives, downwards."""
    gradient_slope, gradient_offset = (
        _SLOPE_PRECISION * (slope - prior.slope),
        _OFFSET_PRECISION * (offset - prior.offset),
    )
    slope_slope, slope_offset, offset_offset = float(_SLOPE_PRECISION), 0.0, _OFFSET_PRECISION
    for (place, true), number in judged.items():
        x = place / _PLACES
        p = (1 + math.tanh((slope * x + offset) / 2)) / 2
        off, weight = number * (p - true), number * p * (1 - p)
        gradient_slope += off * x
        gradient_offset += off
        slope_slope += weight * x * x
        slope_offset += weight * x
        offset_offset += weight
    if fixed_slope:
        return 0.0, -gradient_offset / offset_offset
    determinant = slope_slope * offset_offset - slope_offset**2
    return (
        -(offset_offset * gradient_slope - slope_offset * gradient_offset) / determinant,
        -(slope_slope * gradient_offset - slope_offset * gradient_slope) / determinant,
    )


def loss(judged: Mapping[tuple[int, bool], int], prior: Curve, slope: float, offset: float) -> float:
    """What the curve has the least of: minus the logarithm of the judgements' likelihood, and of the prior."""
    total = (_SLOPE_PRECISION * (slope - prior.slope) ** 2 + _OFFSET_PRECISION * (offset - prior.offset) ** 2) / 2
    for (place, true), number in judged.items():
        z = slope * place / _PLACES + offset
        # log(1 + e^z), in the form that never overflows
        total += number * (max(z, 0.0) + math.log1p(math.exp(-abs(z))) - true * z)
    return total
