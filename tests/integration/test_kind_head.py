"""The generator of pictures that the kind head is trained on: scripts/kind_head."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def generated(folder: Path) -> dict[str, bytes]:
    if shutil.which("chromium") is None:
        pytest.skip("The pictures are rendered by Debian's Chromium: run scripts/install_tools.sh chromium as root.")
    subprocess.run(
        [sys.executable, "-m", "kind_head.generate", str(folder), "--each", "2"],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        check=True,
        timeout=150,
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_pictures_and_every_kind_has_some(tmp_path: Path) -> None:
    first, second = generated(tmp_path / "first"), generated(tmp_path / "second")
    assert len({name.split("-")[0] for name in first}) == 9
    assert len(set(first.values())) == len(first) == 18
    assert {name for name, data in first.items() if second.get(name) != data} == set()
