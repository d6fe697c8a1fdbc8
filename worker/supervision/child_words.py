"""What a child says in words, in a form for logs and results: an image or a model may have taken it over."""

from __future__ import annotations

import re
from collections.abc import Mapping

from worker.operations.printable import printable

_REASON = re.compile(r"[a-z][a-z_]{1,60}")
_LONGEST_MESSAGE = 500


def words_in(packet: Mapping[str, object]) -> tuple[str, str] | None:
    """A child's `reason` and `message`, short and printable; None where it has sent none."""
    match packet:
        case {"reason": str(reason), "message": str(message)} if _REASON.fullmatch(reason):
            return reason, printable(message, maximum=_LONGEST_MESSAGE)
    return None
