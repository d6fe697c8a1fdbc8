"""Names and confidences as a service sent them, made into suggestions; what makes no sense is left out and said."""

from __future__ import annotations

import math
from collections.abc import Iterable

from worker.providers.base import Suggestion
from worker.providers.cloud.errors import GARBLED_ANSWER, ServiceFailed

LONGEST_NAME = 255
_ROUNDING = 0.01
"""A confidence this much outside 0 to 1 is a rounding error."""


def parse_suggestions(service: str, pairs: Iterable[tuple[object, object]]) -> tuple[tuple[Suggestion, ...], str | None]:
    """Suggestions in the service's order, and a sentence on the pairs that were left out, if any were.

    Raises ServiceFailed when there were pairs and none of them can be used.
    """
    kept: list[Suggestion] = []
    faults: list[str] = []
    for name, confidence in pairs:
        fault = _fault(name, confidence)
        if fault is None and isinstance(name, str) and isinstance(confidence, int | float):
            kept.append(Suggestion(" ".join(name.split()), min(max(float(confidence), 0.0), 1.0)))
        elif fault is not None:
            faults.append(fault)
    if not faults:
        return tuple(kept), None
    note = f"{service} sent {len(faults)} tags that can't be used: {', '.join(sorted(set(faults)))}"
    if not kept:
        raise ServiceFailed(note, reason=GARBLED_ANSWER)
    return tuple(kept), note


def _fault(name: object, confidence: object) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return "a name is missing"
    if len(name) > LONGEST_NAME:
        return f"a name is longer than {LONGEST_NAME} characters"
    if not all(character.isprintable() or character.isspace() for character in name):
        return "a name has control characters"
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        return "a confidence is missing"
    if not math.isfinite(confidence) or not -_ROUNDING <= confidence <= 1 + _ROUNDING:
        return "a confidence is no number from 0 to 1"
    return None
