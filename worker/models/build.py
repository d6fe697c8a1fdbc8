"""The parent's side of building a built-in model: takes the lock, starts the builder process, relays its progress.

The build itself needs TensorFlow, which the parent never imports: `worker.models.builder` runs in another process.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import structlog

from worker.errors import Misconfigured
from worker.models.catalogue import BUILT_IN, DETECTORS, OTHER_NAMES, data_wheel, find_package, require_to_build
from worker.models.manifest import ModelKind, ModelPackage
from worker.models.nanodet_weights import WeightsMissing, weights_are_in, weights_directory
from worker.models.selection import LocalModels, in_order
from worker.models.staging import (
    PROGRESS_INTERVAL_S,
    ModelProgress,
    ProgressCallback,
    ignore_progress,
    intact_package,
    package_lock,
    staged_directory,
)
from worker.models.tensorflow_extra import TensorFlowMissing, require_to_run
from worker.supervision.interpreter import WORKING_DIRECTORY, module_command, safe_import_path

_log = structlog.get_logger(__name__)

# Includes the float model, which a quantised one is converted from.
NEEDED_BYTES = 128 << 20
_LOG_TAIL_BYTES = 2000
_READ_BYTES = 1 << 16


def ensure_model(name: str, cache_dir: Path, on_progress: ProgressCallback = ignore_progress) -> ModelPackage:
    """The package of a model; a built-in one that is in no data wheel, and missing or damaged, is built first.

    Blocks for up to a minute while it builds. An exception from `on_progress` ends the build and is raised. Raises
    `Misconfigured` with what to do.
    """
    name = OTHER_NAMES.get(name, name)
    package = present_model(name, cache_dir) or _build(name, cache_dir, on_progress)
    require_to_run(package)
    return package


def present_model(name: str, cache_dir: Path) -> ModelPackage | None:
    """The package of a model, or None for a built-in one that has to be built.

    Raises `Misconfigured` for one that has to be and cannot: `TensorFlowMissing` where the extra is not installed.
    """
    model = BUILT_IN.get(name) or DETECTORS.get(name)
    if model is None:
        return find_package(name, cache_dir)
    wheel = data_wheel(name)
    if wheel is not None and wheel.package is not None:
        wheel.package.verify()
        return wheel.package
    if package := intact_package(model.directory(cache_dir)):
        return package
    require_to_build(name)
    if wheel is not None:
        _log.warning("a data wheel is not used", model=name, message=wheel.problem)
    return None


def _build(name: str, cache_dir: Path, on_progress: ProgressCallback) -> ModelPackage:
    model = BUILT_IN.get(name) or DETECTORS[name]
    directory = model.directory(cache_dir)
    weights = weights_directory(cache_dir) if name in DETECTORS else None
    if weights is not None and not weights_are_in(weights):
        raise WeightsMissing(f"the weights of {name} are not here yet: `autotag model build {name}` fetches them once")
    with package_lock(directory, on_progress):
        # Another process may have built it while this one waited.
        if package := intact_package(directory):
            return package
        with staged_directory(directory, NEEDED_BYTES) as new:
            _run_builder(name, new, weights, on_progress)
        package = ModelPackage.load(directory)
        package.verify()
        return package


def ensure_models(
    names: Sequence[str], cache_dir: Path, on_progress: ProgressCallback = ignore_progress, *, all_kinds: bool = True
) -> LocalModels:
    """The packages of several models. A detector that is not installed, and cannot be built here, is left out.

    Without `all_kinds` only the classifiers. Blocks as `ensure_model` does. Raises `Misconfigured`.
    """
    packages = []
    for name in names:
        try:
            package = ensure_model(name, cache_dir, on_progress)
        except (WeightsMissing, TensorFlowMissing) as error:
            if len(names) == 1 or OTHER_NAMES.get(name, name) not in DETECTORS:
                raise
            if all_kinds:
                _log.warning("a model is left out", model=name, message=str(error))
            continue
        if all_kinds or package.manifest.kind is ModelKind.CLASSIFIER:
            packages.append(package)
    return LocalModels(in_order(packages))


def _run_builder(name: str, directory: Path, weights: Path | None, on_progress: ProgressCallback) -> None:
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="autotag-keras-") as keras_home:
        builder = subprocess.Popen(
            [
                *module_command("worker.models.builder"),
                *(name, str(directory.absolute())),
                *([str(weights.absolute())] if weights else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            # Keras writes a settings file on import, which does not belong in the home directory of a service account.
            env=safe_import_path(_without_secrets(os.environ))
            | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "KERAS_HOME": keras_home},
            cwd=WORKING_DIRECTORY,
        )
        try:
            error = _relay(builder, on_progress)
            status = builder.wait()
        finally:
            if builder.poll() is None:
                builder.kill()
                builder.wait()
        if status != 0:
            raise error or Misconfigured(_describe_exit(name, status, log), reason="model_build_failed")


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without our own settings: the builder reads none, and passwords and keys are among them."""
    return {name: value for name, value in environment.items() if not name.upper().startswith("AUTOTAG_")}


def _relay(builder: subprocess.Popen[bytes], on_progress: ProgressCallback) -> Misconfigured | None:
    """Relay the builder's progress. Return the error that a builder which fails in an orderly way prints last.

    While there is no new progress the latest is reported again, so that the callback can end the build at any time.
    """
    error, latest = None, ModelProgress("starting")
    assert builder.stdout is not None  # noqa: S101 - a pipe was asked for
    for line in _lines(builder.stdout):
        try:
            message = json.loads(line or b"null")
        except ValueError:
            continue  # a library printed something
        match message:
            case {"step": str(step), "done": int(done), "total": int(total)}:
                latest = ModelProgress(step, done, total)
                on_progress(latest)
            case {"error": str(text), "reason": str(reason)}:
                error = Misconfigured(text, reason=reason)
            case None:
                on_progress(latest)
    return error


def _lines(pipe: IO[bytes]) -> Iterator[bytes | None]:
    """The lines read from a pipe, and None whenever none has arrived for `PROGRESS_INTERVAL_S`."""
    rest = b""
    with pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(PROGRESS_INTERVAL_S):
                yield None
            elif chunk := os.read(pipe.fileno(), _READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
            else:
                break
    if rest:
        yield rest


def _describe_exit(name: str, status: int, log: IO[bytes]) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
    tail = log.read().decode("utf-8", "replace").strip()
    if status < 0:
        killer = signal.Signals(-status).name
        how = f"was ended by {killer}" + (": perhaps out of memory?" if killer == "SIGKILL" else "")
    else:
        how = f"ended with status {status}"
    return f"building {name}: the builder process {how}. Its last output: {tail or '(nothing)'}"
