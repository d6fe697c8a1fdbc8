"""`python -m tests.support.refusal PACKAGE`: prints why a runtime refuses a model package."""

from __future__ import annotations

import sys
from pathlib import Path

from worker.errors import Misconfigured
from worker.models.manifest import ModelPackage
from worker.models.runtimes import open_runtime

if __name__ == "__main__":
    try:
        open_runtime(ModelPackage.load(Path(sys.argv[1])))
    except Misconfigured as error:
        sys.stdout.write(f"{error.reason}: {error}\n")
