"""The extra `tensorflow`: what builds models from weights, and runs SavedModels and GraphDefs.

Without it Autotag takes a tenth of the space, and runs LiteRT models: those of data wheels, those that have been built
elsewhere, and every `.tflite`.
"""

from __future__ import annotations

import importlib.util

from worker.errors import Misconfigured
from worker.models.manifest import ModelPackage

INSTALL_IT = "pip install 'autotag-worker[tensorflow]'"


class TensorFlowMissing(Misconfigured):
    """The extra is not installed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="tensorflow_missing")


def tensorflow_is_installed() -> bool:
    """Whether it can be imported. It is located, and not imported: the parent never is the process that does that."""
    return importlib.util.find_spec("tensorflow") is not None


def require_to_run(package: ModelPackage) -> None:
    """Raise `TensorFlowMissing` for a model that only TensorFlow can run, where it is not installed."""
    manifest = package.manifest
    if manifest.runtime.runs_programs and not tensorflow_is_installed():
        raise TensorFlowMissing(
            f"model {manifest.name} is a {manifest.runtime}, which only TensorFlow runs, and that is not installed: "
            f"{INSTALL_IT}, or name a LiteRT model"
        )
