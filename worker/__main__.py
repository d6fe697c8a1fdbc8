"""`python -m worker` is the command line."""

import os
import sys

# `python -m` has put the current directory first on the import path; a `random.py` beside an image must not run. In a
# checkout that is not installed, the current directory is where the package itself is, and stays.
if sys.path and os.path.realpath(sys.path[0] or ".") == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from worker.cli import main

main()
