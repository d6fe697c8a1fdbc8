"""Virtual environments for what is not ours: the competitors, and the libraries that are tried out.

Each is made when it is first needed, from requirement files that lie beside the code, with the versions of
`constraints.txt` where that names one: everybody runs the same TensorFlow, Pillow and NumPy. BENCH_VENVS moves them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BENCH = Path(__file__).resolve().parent
CONSTRAINTS = BENCH.parent / "constraints.txt"

_INSTALL_WITHIN_S = 1800


class EnvironmentNotMadeError(Exception):
    """pip could not install what is needed; the message holds what it said."""


def python_of(name: str, requirements: Sequence[Path], out: Path) -> Path:
    """The Python of the environment `name`, which holds all of `requirements`. Raises EnvironmentNotMadeError."""
    folder = Path(os.environ.get("BENCH_VENVS") or out / "venvs") / name
    python = folder / "bin" / "python"
    stamp = folder / "made-from"
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in (*requirements, CONSTRAINTS))).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"bench: installing the environment {name!r}; the first time takes minutes", file=sys.stderr, flush=True)
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
    named = [word for file in requirements for word in ("--requirement", str(file))]
    _run([str(python), "-m", "pip", "install", "--quiet", *named, "--constraint", str(CONSTRAINTS)])
    stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_WITHIN_S, check=False)
    if done.returncode != 0:
        raise EnvironmentNotMadeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
