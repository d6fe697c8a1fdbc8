"""Building: once, completely, with progress, and with errors that an operator can act on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.support.models import built
from worker.errors import Misconfigured
from worker.models.build import ensure_model
from worker.models.catalogue import BUILT_IN, PACKAGED, find_package, known_models
from worker.models.staging import ModelProgress, intact_package

NAME = "efficientnet-lite0-float"  # the quickest to build

pytestmark = pytest.mark.timeout(600)  # the first run on a machine builds the model


class Stop(Exception):
    """Raised by a progress callback to end a build."""


def test_a_build_reports_its_steps_and_is_found_afterwards(tmp_path: Path) -> None:
    steps: list[ModelProgress] = []
    package = ensure_model(NAME, tmp_path, steps.append)
    package.verify()
    assert {progress.step for progress in steps} >= {"reading the weights", "building the graph"}
    assert find_package(NAME, tmp_path) == package
    assert {known.name for known in known_models(tmp_path) if known.present} == {NAME, *PACKAGED}

    steps.clear()
    assert ensure_model(NAME, tmp_path, steps.append) == package
    assert steps == [], "it was built twice"


def test_the_quantised_model_says_how_it_was_checked() -> None:
    manifest = built("efficientnet-lite2").manifest
    assert manifest.output.temperature == 0.68
    assert manifest.input.dtype == "uint8"
    assert float(manifest.checked["same_first_label_as_float"]) >= 0.85


def test_the_manifest_names_the_logits_and_the_features_they_are_computed_from() -> None:
    package = built("efficientnet-lite2")
    interpreter = Interpreter(model_path=str(package.model_path), num_threads=1)
    interpreter.allocate_tensors()
    tensors = {tensor["name"]: tensor for tensor in interpreter.get_output_details()}
    output = package.manifest.output
    logits, features = tensors[str(output.name)], tensors[str(output.features)]
    assert (list(logits["shape"]), list(features["shape"])) == ([1, 1000], [1, 1280])
    assert logits["dtype"] is features["dtype"] is np.float32


def test_two_at_once_build_once(tmp_path: Path) -> None:
    reported: list[list[str]] = [[], []]

    def run(number: int) -> Callable[[], None]:
        return lambda: reported[number].append(
            ensure_model(NAME, tmp_path, lambda progress: reported[number].append(progress.step)).identity
        )

    threads = [threading.Thread(target=run(number)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reported[0][-1] == reported[1][-1]
    assert sorted("reading the weights" in steps for steps in reported) == [False, True]


def test_a_damaged_model_is_built_again(tmp_path: Path) -> None:
    package = ensure_model(NAME, tmp_path)
    (package.model_path / "saved_model.pb").write_bytes(b"")
    ensure_model(NAME, tmp_path).verify()


def test_a_build_that_is_stopped_ends_its_process_and_leaves_nothing(tmp_path: Path) -> None:
    def stop(_: ModelProgress) -> None:
        raise Stop

    with pytest.raises(Stop):
        ensure_model(NAME, tmp_path, stop)
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


@pytest.fixture
def builder_that(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replaces the builder process by a line of Python."""

    def replace(code: str) -> None:
        real = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", code], **options))

    return replace


def test_a_killed_builder_is_reported(builder_that: Callable[[str], None], tmp_path: Path) -> None:
    builder_that("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(Misconfigured, match="ended by SIGKILL: perhaps out of memory") as caught:
        ensure_model(NAME, tmp_path)
    assert caught.value.reason == "model_build_failed"
    assert intact_package(BUILT_IN[NAME].directory(tmp_path)) is None


def test_the_last_output_of_a_failed_builder_is_reported(builder_that: Callable[[str], None], tmp_path: Path) -> None:
    builder_that("raise SystemExit('no such operation')")
    with pytest.raises(Misconfigured, match=r"ended with status 1.*no such operation"):
        ensure_model(NAME, tmp_path)


def test_the_builder_is_given_no_password_or_key(
    builder_that: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTAG_AMQP__URL", "amqp://autotag:secret@host/")
    monkeypatch.setenv("autotag_http__token", "a secret token")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    builder_that("import os; raise SystemExit([x for x in os.environ if x[:5].lower() in ('autot', 'https')])")
    with pytest.raises(Misconfigured, match=r"ended with status 1.*\['HTTPS_PROXY'\]"):
        ensure_model(NAME, tmp_path)


def test_noise_from_a_library_is_no_progress(builder_that: Callable[[str], None], tmp_path: Path) -> None:
    builder_that("""print('hello'); print('{"error": "no room", "reason": "disk_full"}'); raise SystemExit(1)""")
    with pytest.raises(Misconfigured, match="no room") as caught:
        ensure_model(NAME, tmp_path)
    assert caught.value.reason == "disk_full"


def test_weights_of_another_hash_are_refused(tmp_path: Path) -> None:
    code = (
        "import dataclasses, sys, worker.models.builder.package as b\n"
        "b.BUILT_IN = {n: dataclasses.replace(m, weights_sha256='0' * 64) for n, m in b.BUILT_IN.items()}\n"
        "sys.exit(b.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, NAME, str(tmp_path)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 1
    assert '"reason": "weights_refused"' in done.stdout
