"""Manifests of models whose files nobody looks at."""

from __future__ import annotations

from typing import Any

from worker.models.manifest import Manifest


def manifest(**fields: Any) -> Manifest:
    """One with these fields, and what it needs besides."""
    file = {"file": "any", "sha256": "0" * 64}
    needed = {"name": "model", "runtime": "litert", "model": file, "labels": file, "licence": "", "source": ""}
    return Manifest.model_validate(needed | {"input": {"size": 8}, "output": {"activation": "logits"}} | fields)
