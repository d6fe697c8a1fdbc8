"""How a Python process of ours is started: with this interpreter, and with no code from the current directory.

`python -m` puts the current directory first on the import path, so that a `random.py` or a `worker/` beside an image
would run in place of the real module, before any sandbox. `-P` prevents that (Python 3.11,
https://docs.python.org/3/using/cmdline.html#cmdoption-P); an empty or relative entry of PYTHONPATH would bring it back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

WORKING_DIRECTORY = "/"
"""Where our processes run: a directory that only root can write to, and that no unmount has to wait for."""

_PATH_VARIABLE = "PYTHONPATH"


def module_command(name: str, *options: str) -> tuple[str, ...]:
    """The command that runs a module; `options` are the interpreter's own, such as `-X faulthandler`."""
    return (sys.executable, "-P", *options, "-m", name)


def safe_import_path(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with a PYTHONPATH that means the same in every directory.

    Relative entries are resolved here; empty ones, which stand for the current directory, are left out.
    """
    entries = [os.path.abspath(entry) for entry in environment.get(_PATH_VARIABLE, "").split(os.pathsep) if entry]
    others = {name: value for name, value in environment.items() if name != _PATH_VARIABLE}
    return others | ({_PATH_VARIABLE: os.pathsep.join(entries)} if entries else {})
