"""The parent's side of building a built-in model: take the lock, start the builder process, relay its progress.

The building itself needs TensorFlow, which the parent never imports: `worker.models.builder` is another process.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from worker.errors import Misconfigured
from worker.models.catalogue import BUILT_IN, find_package
from worker.models.manifest import ModelPackage
from worker.models.staging import (
    PROGRESS_INTERVAL_S,
    ModelProgress,
    ProgressCallback,
    ignore_progress,
    intact_package,
    package_lock,
    staged_directory,
)

# A float model is written out on the way to a quantised one.
NEEDED_BYTES = 128 << 20
_LOG_TAIL_BYTES = 2000
_READ_BYTES = 1 << 16


def ensure_model(name: str, cache_dir: Path, progress: ProgressCallback = ignore_progress) -> ModelPackage:
    """The package for a model, built first if it is a built-in one that is not there yet (or is damaged).

    Blocks for up to a minute while it builds; an exception from `progress` ends the build and is passed on. Raises
    `Misconfigured`, saying what to do.
    """
    model = BUILT_IN.get(name)
    if model is None:
        return find_package(name, cache_dir)
    directory = model.directory(cache_dir)
    if package := intact_package(directory):
        return package
    with package_lock(directory, progress):
        # Somebody else may have made it while this process waited.
        if package := intact_package(directory):
            return package
        with staged_directory(directory, NEEDED_BYTES) as new:
            _run_builder(name, new, progress)
        package = ModelPackage.load(directory)
        package.verify()
        return package


def _run_builder(name: str, directory: Path, progress: ProgressCallback) -> None:
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="autotag-keras-") as keras_home:
        builder = subprocess.Popen(
            [sys.executable, "-m", "worker.models.builder", name, str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            # Keras writes a settings file on import, which has no place in the home of a service account.
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "KERAS_HOME": keras_home},
        )
        try:
            error = _relay(builder, progress)
            status = builder.wait()
        finally:
            if builder.poll() is None:
                builder.kill()
                builder.wait()
        if status != 0:
            raise error or Misconfigured(_why_it_ended(name, status, log), reason="model_build_failed")


def _relay(builder: subprocess.Popen[bytes], progress: ProgressCallback) -> Misconfigured | None:
    """Pass the builder's progress on. Its last line, when it gives up in good order, is its error.

    ModelProgress is told again while nothing new is said, so that whoever listens can call the build off at any time.
    """
    error, latest = None, ModelProgress("starting")
    assert builder.stdout is not None  # noqa: S101 - a pipe was asked for
    for line in _lines(builder.stdout):
        try:
            said = json.loads(line or b"null")
        except ValueError:
            continue  # a library printed something
        match said:
            case {"step": str(step), "done": int(done), "total": int(total)}:
                latest = ModelProgress(step, done, total)
                progress(latest)
            case {"error": str(message), "reason": str(reason)}:
                error = Misconfigured(message, reason=reason)
            case None:
                progress(latest)
    return error


def _lines(pipe: IO[bytes]) -> Iterator[bytes | None]:
    """The lines that come through a pipe, and None whenever none has come for a while."""
    rest = b""
    with pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(PROGRESS_INTERVAL_S):
                yield None
            elif piece := os.read(pipe.fileno(), _READ_BYTES):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            else:
                break
    if rest:
        yield rest


def _why_it_ended(name: str, status: int, log: IO[bytes]) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
    tail = log.read().decode("utf-8", "replace").strip()
    if status < 0:
        killer = signal.Signals(-status).name
        how = f"was ended by {killer}" + (": perhaps out of memory?" if killer == "SIGKILL" else "")
    else:
        how = f"ended with status {status}"
    return f"building {name}: the builder process {how}. The last it said: {tail or '(nothing)'}"
