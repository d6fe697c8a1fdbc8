"""Runs many command lines of `autotag`, each in a fork of one process that has imported it: JSON in, JSON out.

`python -m tests.support.forked_commands` reads a list of argument lists, and writes a list of [status, output, errors].
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_WITHIN_S = 300

_MANY = 30
"""From so many command lines on, the modules that commands import when they need them are imported once, for all."""

_OF_CHILDREN = ("worker.children", "worker.models.builder", "worker.models.runtimes", "worker.__main__")
"""Left out: they import NumPy and TensorFlow, which start threads, and a process with threads should not be forked."""


def commands(*, groups: bool = False) -> dict[tuple[str, ...], Any]:
    """Every command by its words, as the parser has them; with `groups` those too, and the root, which has no words."""
    import typer

    from worker.cli.app import app

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        below = getattr(command, "commands", None)
        if below is None or groups:
            yield words, command
        for name, each in (below or {}).items():
            yield from walk(each, (*words, name))

    return dict(walk(typer.main.get_command(app), ()))


@dataclass(frozen=True, slots=True)
class Ended:
    """What one command line did."""

    arguments: tuple[str, ...]
    status: int
    output: str
    errors: str


def run_all(commands: Sequence[Sequence[str]], cwd: Path, environment: Mapping[str, str]) -> list[Ended]:
    """Run each in `cwd`, one after the other."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.support.forked_commands"],
        input=json.dumps(list(map(list, commands))).encode(),
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=_WITHIN_S,
        check=True,
    )
    found = json.loads(done.stdout)
    return [Ended(tuple(each), *what) for each, what in zip(commands, found, strict=True)]


def _run(arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                os.close(0)
                os.open(os.devnull, os.O_RDONLY)
                sys.argv = ["autotag", *arguments]
                from worker.cli import main

                main()
                status = 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            except BaseException:  # noqa: BLE001 - as the interpreter would
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (output, errors):
            file.seek(0)
        return status, output.read().decode(errors="surrogateescape"), errors.read().decode(errors="surrogateescape")


def _import_all() -> None:
    import worker

    for module in pkgutil.walk_packages(worker.__path__, "worker."):
        if not module.name.startswith(_OF_CHILDREN):
            importlib.import_module(module.name)
    for name in ("rich.traceback", "typer.rich_utils"):  # of what is printed when a command is misused
        importlib.import_module(name)
    gc.freeze()  # a fork that collects garbage would copy all of it


if __name__ == "__main__":
    import worker.cli.app  # noqa: F401 - once, for all

    lines = json.load(sys.stdin)
    if len(lines) >= _MANY:
        _import_all()
    json.dump([_run(each) for each in lines], sys.stdout)
