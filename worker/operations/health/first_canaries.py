"""What operators' own models said of the canary's picture the first time, kept in the state directory by identity."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from worker.tagging.canary.expected import ExpectedTag

_log = structlog.get_logger(__name__)

_MOST_MODELS = 100


class FirstCanaries:
    """Read when first asked for. Without a file that can be written they last as long as the process. Blocks."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, ExpectedTag] | None = None

    def get(self, identity: str) -> ExpectedTag | None:
        """What is expected of a model; None before its first canary."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(identity)

    def keep(self, found: Mapping[str, ExpectedTag]) -> None:
        """Expect this of these models from now on."""
        # Read again: another worker of this machine may have written meanwhile.
        self._known = {**self._read(), **(self._known or {}), **found}
        text = json.dumps({identity: _as_json(each) for identity, each in self._latest()}, indent=2)
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self._file)
        except OSError as error:
            _log.warning("what the canary expects of a model is lost at the end", file=str(self._file), why=str(error))

    def _latest(self) -> list[tuple[str, ExpectedTag]]:
        return list((self._known or {}).items())[-_MOST_MODELS:]

    def _read(self) -> dict[str, ExpectedTag]:
        try:
            tree = json.loads(self._file.read_bytes())
            return {str(identity): _expected_tag(each) for identity, each in tree.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _log.warning("what the canary expects cannot be read", file=str(self._file), why=str(error))
            return {}


def _as_json(expected: ExpectedTag) -> dict[str, object]:
    return {"term": expected.term, "low": round(expected.low, 6), "high": round(expected.high, 6)}


def _expected_tag(tree: Mapping[str, object]) -> ExpectedTag:
    match tree:
        case {"term": str() | None as term, "low": int() | float() as low, "high": int() | float() as high} if (
            0 <= low <= high <= 1
        ):
            return ExpectedTag(term, float(low), float(high))
    raise ValueError("an entry of the wrong shape")
