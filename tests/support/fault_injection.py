"""Injects faults into the real children of a running service: see `misbehaving/sitecustomize.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

_CODE = Path(__file__).with_name("misbehaving") / "sitecustomize.py"


class FaultInjector:
    """Faults as files in a folder of the test's own. Its `python_path` must be on the service's PYTHONPATH."""

    def __init__(self, folder: Path) -> None:
        self._injected = 0
        self._folder = folder / "faults"
        self._folder.mkdir(parents=True)
        shutil.copy(_CODE, folder)
        self.python_path = str(folder)

    def inject(self, moment: str, what: str, *, times: int = 1) -> None:
        """Have the model child do `what` at its next `start` or `job`, a decoder at `decoder-start`, `times` times."""
        for _ in range(times):
            self._injected += 1
            draft = self._folder / f"{moment}-{self._injected:03}.draft"
            draft.write_text(what)
            draft.rename(draft.with_suffix(".due"))

    def clear(self) -> None:
        """Remove all faults, including those that have happened."""
        for file in self._folder.iterdir():
            file.unlink()

    def taken(self) -> list[int]:
        """Process ids of the children in which a fault happened, in the order in which the faults were injected."""
        return [int(file.suffix.rpartition("-")[2]) for file in sorted(self._folder.glob("*.taken-by-*"))]

    def poison(self, on: bool) -> None:
        """Whether every model child dies of pixels that begin in magenta."""
        marker = self._folder / "magenta-is-poison"
        marker.touch() if on else marker.unlink(missing_ok=True)
