"""What is installed is verified: every file of every package has its hash here, and pip refuses another."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = [ROOT / "constraints.txt", *sorted((ROOT / "requirements").glob("*.txt"))]
_PINNED = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*==\S+( ; .+)?$")
_HASH = re.compile(r"^--hash=sha256:[0-9a-f]{64}$")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_of_an_exact_version_and_has_hashes(lock: Path) -> None:
    text = lock.read_text().replace("\\\n", "\n")
    entries = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip())
    assert len(entries) > 0
    for entry in entries:
        name, *hashes = (line.strip() for line in entry.splitlines() if line.strip())
        assert _PINNED.match(name), entry
        assert hashes, name
        assert all(_HASH.match(each) for each in hashes), name


def test_all_locks_agree_on_versions() -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 2} == {}
    # Two are there only where one of them is for other platforms or Pythons.
    assert sum(len(found) > 1 for found in versions.values()) == 0


@pytest.mark.parametrize("tampered", [False, True])
def test_a_file_with_another_hash_is_not_installed(tmp_path: Path, tampered: bool) -> None:
    wheel = tmp_path / "wheels/harmless-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("harmless.py", "")
        file.writestr("harmless-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n")
        file.writestr("harmless-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("harmless-1.0.dist-info/RECORD", "")
    lock = tmp_path / "lock.txt"
    lock.write_text(f"harmless==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    if tampered:
        with zipfile.ZipFile(wheel, "a") as file:
            file.writestr("harmful.py", "")
    # As scripts/make_environment.sh installs
    options = [word for word in _install_options() if word != "constraints.txt"]
    command = [sys.executable, "-m", "pip", *options, str(lock)]
    done = subprocess.run(
        [*command, "--no-index", "--find-links", str(wheel.parent), "--target", str(tmp_path / "there")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode != 0) == tampered, done.stderr
    assert ("DO NOT MATCH THE HASHES" in done.stderr) == tampered
    assert (tmp_path / "there/harmless.py").exists() != tampered


def _install_options() -> list[str]:
    script = (ROOT / "scripts/make_environment.sh").read_text()
    (line,) = re.findall(r"^pip (install .* constraints\.txt)$", script, re.MULTILINE)
    return str(line).split()
