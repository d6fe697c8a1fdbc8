"""The parent process stays small: none of its modules imports a library that only its children need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import worker

CHILD_LIBRARIES = ("tensorflow", "keras", "ai_edge_litert", "numpy", "PIL", "pillow_heif")
CHILD_SIDE = (
    "worker.children",
    "worker.models.runtimes",
    "worker.models.builder",
)

PROGRAM = """
import importlib, json, sys
unwanted, modules = json.load(sys.stdin)
for module in modules:
    importlib.import_module(module)
    found = [name for name in unwanted if name in sys.modules]
    if found:
        sys.exit(f"importing {module} imports {', '.join(found)}")
"""


def is_child_side(module: str) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in CHILD_SIDE)


def parent_side() -> list[str]:
    root = Path(worker.__file__).parent
    files = [file.relative_to(root.parent).with_suffix("") for file in root.rglob("*.py")]
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files}
    return sorted(module for module in modules - {"worker.__main__"} if not is_child_side(module))


def run(modules: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([CHILD_LIBRARIES, modules]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def test_no_module_of_the_parent_imports_a_library_of_the_children() -> None:
    modules = parent_side()
    assert {"worker.cli", "worker.service", "worker.supervisor"} <= set(modules)
    assert run(modules) == ""


@pytest.mark.parametrize("module", ["worker.children.decoder", "worker.models.builder.weights"])
def test_the_check_sees_such_an_import(module: str) -> None:
    assert f"importing {module} imports" in run([module])
