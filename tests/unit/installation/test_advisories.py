"""`make dist` asks for known vulnerabilities, and what could not be looked up is never taken for sound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_osv import FakeOsv

SCRIPT = Path(__file__).parents[3] / "scripts/check_advisories.py"
HASHES = f"--hash=sha256:{'0' * 64}"
PINNED = f"pillow==11.0.0 {HASHES}\npika==1.3.2 {HASHES}\n"
ADVISORY: dict[str, Any] = {
    "id": "GHSA-xxxx-yyyy-zzzz",
    "modified": "2025-01-01T00:00:00Z",
    "summary": "A file can run code",
    "aliases": ["CVE-2025-1"],
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "11.3.0"}]}],
            "versions": ["11.0.0"],
        }
    ],
}


def check(folder: Path, osv: FakeOsv, *options: str) -> tuple[int, str]:
    requirements = folder / "requirements.txt"
    requirements.write_text(PINNED)
    environment = {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": osv.url, "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options, str(requirements)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_package_with_a_known_vulnerability_is_named_with_what_mends_it(tmp_path: Path) -> None:
    with FakeOsv({"pillow": [ADVISORY]}) as osv:
        status, said = check(tmp_path, osv)
    assert status == 1
    assert "pillow 11.0.0" in said
    assert "CVE-2025-1" in said
    assert "mended in: 11.3.0" in said
    assert ("pika", "1.3.2") in osv.asked


@pytest.mark.parametrize("options", [(), ("--required",)])
def test_packages_without_any_pass(tmp_path: Path, options: tuple[str, ...]) -> None:
    with FakeOsv() as osv:
        assert check(tmp_path, osv, *options) == (0, "advisories: 2 of 2 packages looked up, 0 vulnerable\n")


def test_a_service_that_cannot_be_asked_is_said_and_fails_a_release(tmp_path: Path) -> None:
    with FakeOsv(down=True) as osv:
        status, said = check(tmp_path, osv)
        assert (status, "NOT LOOKED UP" in said) == (0, True)
        assert check(tmp_path, osv, "--required")[0] == 1
