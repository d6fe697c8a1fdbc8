"""Validates the names and confidences that a service sent; unusable pairs are left out and described in a note."""

from __future__ import annotations

from collections.abc import Iterable

from worker.operations.printable import printable
from worker.providers.base import Suggestion
from worker.providers.cloud.errors import GARBLED_ANSWER, ServiceFailed

_MAXIMUM_NAME_LENGTH = 255
_ROUNDING = 0.01
"""A confidence outside 0 to 1 by no more than this is a rounding error, and is clipped."""


def parse_suggestions(
    service: str, pairs: Iterable[tuple[object, object]]
) -> tuple[tuple[Suggestion, ...], str | None]:
    """Suggestions in the service's order, and a sentence about the pairs that were left out, if there were any.

    Raises ServiceFailed if there were pairs and none of them is usable.
    """
    kept: list[Suggestion] = []
    problems: list[str] = []
    for name, confidence in pairs:
        problem = _problem(name, confidence)
        if problem is None and isinstance(name, str) and isinstance(confidence, int | float):
            kept.append(Suggestion(" ".join(name.split()), min(max(float(confidence), 0.0), 1.0)))
        elif problem is not None:
            problems.append(problem)
    if not problems:
        return tuple(kept), None
    note = f"{service} sent {len(problems)} tags that can't be used: {', '.join(sorted(set(problems)))}"
    if not kept:
        raise ServiceFailed(note, reason=GARBLED_ANSWER)
    return tuple(kept), note


def _problem(name: object, confidence: object) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return "a name is missing"
    if len(name) > _MAXIMUM_NAME_LENGTH:
        return f"a name is longer than {_MAXIMUM_NAME_LENGTH} characters"
    shown = " ".join(name.split())
    if printable(shown) != shown:
        return "a name has control characters"
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        return "a confidence is missing"
    if not -_ROUNDING <= confidence <= 1 + _ROUNDING:
        return "a confidence is no number from 0 to 1"
    return None
