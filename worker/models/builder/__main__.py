"""The builder process: `python -m worker.models.builder NAME DIRECTORY`."""

from __future__ import annotations

import sys

from worker.models.builder.package import main

if __name__ == "__main__":
    sys.exit(main())
