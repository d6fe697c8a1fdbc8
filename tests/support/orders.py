"""Orders to misbehave, for the real model child of a running service: see `misbehaving/sitecustomize.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

_CODE = Path(__file__).with_name("misbehaving") / "sitecustomize.py"


class Orders:
    """Orders in a folder of the test's own. Its `python_path` must be in the service's environment."""

    def __init__(self, folder: Path) -> None:
        self._given = 0
        self._folder = folder / "orders"
        self._folder.mkdir(parents=True)
        shutil.copy(_CODE, folder)
        self.python_path = str(folder)

    def give(self, moment: str, what: str, *, times: int = 1) -> None:
        """Have the model child do `what` at its next start, or at its next job; so many `times`."""
        for _ in range(times):
            self._given += 1
            draft = self._folder / f"{moment}-{self._given:03}.draft"
            draft.write_text(what)
            draft.rename(draft.with_suffix(".due"))

    def withdraw(self) -> None:
        """Forget all orders, those that were taken as well."""
        for file in self._folder.iterdir():
            file.unlink()

    def taken(self) -> list[int]:
        """Process ids of the children that took an order, in the order in which it was given."""
        return [int(file.suffix.rpartition("-")[2]) for file in sorted(self._folder.glob("*.taken-by-*"))]

    def poison(self, on: bool) -> None:
        """Have every model child die of pixels that begin in magenta, or no more."""
        marker = self._folder / "magenta-is-poison"
        marker.touch() if on else marker.unlink(missing_ok=True)
