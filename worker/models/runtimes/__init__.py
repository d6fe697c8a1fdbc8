"""Runs models: two runtimes behind one small interface. Only the model child and the builder open one."""

from __future__ import annotations

import importlib
from concurrent.futures import Executor

from worker.models.manifest import ModelPackage, RuntimeName
from worker.models.runtimes.runtime import Runtime

__all__ = ["Runtime", "import_runtime", "open_runtime"]


def import_runtime(name: RuntimeName) -> None:
    """Import all that opening and running a model takes: in a sandbox nothing more can be imported."""
    importlib.import_module(f"{__name__}.{'litert' if name is RuntimeName.LITERT else 'tensorflow'}")


def open_runtime(package: ModelPackage, threads: int = 1, executor: Executor | None = None) -> Runtime:
    """Load a model with the runtime that its manifest names. Does not verify its hash: `package.verify()` does.

    `executor`: of so many threads, where several models share them.

    Raises `Misconfigured` if the file cannot be loaded or contradicts the manifest.
    """
    # Imported here and not above: TensorFlow costs seconds and hundreds of megabytes that LiteRT does not need.
    if package.manifest.runtime is RuntimeName.LITERT:
        from worker.models.runtimes.litert import LiteRT

        return LiteRT(package, threads, executor)
    from worker.models.runtimes.tensorflow import open_tensorflow

    return open_tensorflow(package, threads)
