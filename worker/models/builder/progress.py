"""What the builder process prints: its progress, and its error, as JSON lines for the process that started it."""

from __future__ import annotations

import json
import sys


def report_progress(step: str, done: int = 0, total: int = 0) -> None:
    """`done` of `total` parts of a step; 0: unknown."""
    write_line({"step": step, "done": done, "total": total})


def write_line(message: dict[str, object]) -> None:
    """Print one line at once."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
