"""What CI runs: all tests beside one RabbitMQ, the broker's tests beside the other; one that fails fails the whole."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BROKER_FIXTURES, OTHER_SUBJECTS

ROOT = Path(__file__).resolve().parents[2]
# A stand-in for make, which records its arguments, and fails with status 2 where they hold $FAILING, as make does.
MAKE = '#!/bin/sh\necho "$*" >>"$RECORD"\ncase "$*" in *"$FAILING"*) echo "make: *** Error 1" >&2; exit 2;; esac\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with `.ci/run` and the stand-in."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    return tmp_path


def run(checkout: Path, failing: str = "nothing", **variables: str) -> tuple[int, list[str], str]:
    """Status, the calls of make, and what was written on standard error."""
    record = checkout / "record"
    environment = {name: value for name, value in os.environ.items() if name != "CI_BROKERS"} | variables
    environment |= {"PATH": f"{checkout}:{os.environ['PATH']}", "RECORD": str(record), "FAILING": failing}
    done = subprocess.run([checkout / ".ci/run"], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, record.read_text().splitlines(), done.stderr


def test_all_tests_run_beside_one_version_and_the_brokers_tests_beside_the_other(checkout: Path) -> None:
    status, calls, errors = run(checkout)
    assert status == 0
    assert calls == [
        "lint",
        "alerts",
        "broker BROKER=4",
        "test BROKER=3",
        'test BROKER=4 ARGS=-m "broker and not slow_fault"',
    ]
    assert "no other version" not in errors


def test_a_run_that_fails_is_the_last_one_and_its_status_is_returned(checkout: Path) -> None:
    status, calls, errors = run(checkout, failing="BROKER=3")
    assert (status, calls) == (2, ["lint", "alerts", "broker BROKER=4", "test BROKER=3"])
    assert "Error 1" not in errors  # pytest's summary is the last line


def test_the_second_run_fails_it_too(checkout: Path) -> None:
    status, calls, _ = run(checkout, failing="test BROKER=4")
    assert (status, len(calls)) == (2, 5)


def test_a_version_that_cannot_be_had_is_left_out_but_not_in_silence(checkout: Path) -> None:
    status, calls, errors = run(checkout, failing="BROKER=4")
    assert (status, calls) == (0, ["lint", "alerts", "broker BROKER=4", "test BROKER=3"])
    assert "only RabbitMQ 3 is tested, no other version" in errors


def test_a_version_that_is_named_has_to_be_there(checkout: Path) -> None:
    status, calls, _ = run(checkout, failing="BROKER=4", CI_BROKERS="3 4")
    assert (status, len(calls)) == (2, 4)


def test_a_version_is_left_out_only_by_name_and_not_in_silence(checkout: Path) -> None:
    status, calls, errors = run(checkout, CI_BROKERS="3")
    assert (status, calls) == (0, ["lint", "alerts", "test BROKER=3"])
    assert "only RabbitMQ 3 is tested, no other version" in errors


def starters(tree: ast.AST) -> Iterator[str]:
    """The names of the functions of a module that start a broker themselves."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "PrivateBroker"
            for call in ast.walk(function)
        ):
            yield function.name


def test_whatever_starts_a_broker_is_a_fixture_that_gives_the_marker_or_in_a_module_that_has_it() -> None:
    found = {
        (str(file.relative_to(ROOT)), name)
        for file in (ROOT / "tests").rglob("*.py")
        if "pytestmark = pytest.mark.broker" not in file.read_text()
        for name in starters(ast.parse(file.read_text()))
    }
    assert {name for _, name in found} >= {"private_broker", "node", "one_node"}, "the starters are found"
    assert {(file, name) for file, name in found if name not in BROKER_FIXTURES} == set()


def test_every_subject_that_is_left_out_beside_the_other_version_is_one_of_some_test() -> None:
    modules = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert [subject for subject in OTHER_SUBJECTS if not any(name.startswith(subject) for name in modules)] == []
    # And what RabbitMQ does is left in
    about_it = (
        "test_amqp",
        "test_broker",
        "test_consumer",
        "test_operator",
        "test_outage",
        "test_service.py",
        "test_network",
    )
    assert not [name for name in modules if name.startswith(about_it) and name.startswith(OTHER_SUBJECTS)]
