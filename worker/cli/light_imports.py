"""Imports libraries without rich, which they import where they can, for what we do not use: 6 MB of the service."""

from __future__ import annotations

import importlib
import sys


def import_without_rich(name: str) -> None:
    """Import a library as if rich were not installed. Commands that use rich import it later, as they would."""
    if "rich" in sys.modules or name in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # an import of it raises ImportError
    try:
        importlib.import_module(name)
    finally:
        del sys.modules["rich"]
