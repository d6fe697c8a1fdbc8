"""What runs a model: two runtimes behind one small interface. Only the model child opens one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from worker.models.manifest import ModelPackage, RuntimeName

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Runtime(Protocol):
    """A loaded model."""

    def score(self, pixels: npt.NDArray[np.uint8], *, alone: bool = True) -> npt.NDArray[np.float32]:
        """Score RGB pictures `[N, S, S, 3]`: float32 `[N, labels]`, confidences between 0 and 1.

        `alone`: nobody else is at work on these cores.
        """


def open_runtime(package: ModelPackage, threads: int = 1) -> Runtime:
    """Load a model with the runtime its manifest names. Does not hash it: `package.verify()` does.

    Raises `Misconfigured` if the file cannot be loaded or is not what the manifest says.
    """
    # Imported here and not above: TensorFlow takes seconds and hundreds of megabytes that LiteRT does without.
    if package.manifest.runtime is RuntimeName.LITERT:
        from worker.models.runtimes.litert import LiteRT

        return LiteRT(package, threads)
    from worker.models.runtimes.tensorflow import open_tensorflow

    return open_tensorflow(package, threads)
