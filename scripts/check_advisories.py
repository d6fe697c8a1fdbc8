"""Asks for known vulnerabilities of everything that requirement files name: `make dist` does so.

    check_advisories.py [--required] REQUIREMENTS...

pip-audit asks the package index, or what its own variables name (PIP_AUDIT_VULNERABILITY_SERVICE, PIP_AUDIT_OSV_URL).
Alone it says "none found" too where it could look nothing up; here every package that was not looked up counts. Exit
status 1: something is vulnerable, or, with `--required`, something could not be looked up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_WITHIN_S = 600


def look_up(requirements: list[Path]) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit found for each package, and what it said. Nothing where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        named = [word for file in requirements for word in ("--requirement", str(file))]
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--disable-pip", "--require-hashes"]
        try:
            done = subprocess.run(
                [*command, "--format=json", f"--output={report}", *named],
                capture_output=True,
                text=True,
                timeout=_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [], f"no answer within {_WITHIN_S} s"
        found = json.loads(report.read_text())["dependencies"] if report.exists() else []
        return found, (done.stderr.strip().splitlines() or [""])[-1]


def main() -> int:
    """Print what was found; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--required", action="store_true", help="fail where anything could not be looked up")
    parser.add_argument("requirements", nargs="+", type=Path)
    arguments = parser.parse_args()
    found, said = look_up(arguments.requirements)
    vulnerable = [package for package in found if package.get("vulns")]
    for package in vulnerable:
        for each in package["vulns"]:
            fixed = ", ".join(each["fix_versions"]) or "none yet"
            names = " ".join((each["id"], *each.get("aliases", ())))
            print(f"{package['name']} {package['version']}: {names}; mended in: {fixed}")
    looked_up = [package for package in found if "vulns" in package]
    print(f"advisories: {len(looked_up)} of {len(found)} packages looked up, {len(vulnerable)} vulnerable")
    incomplete = not found or len(looked_up) < len(found)
    if incomplete:
        left_out = [str(package["name"]) for package in found if "vulns" not in package]
        print(
            f"advisories: NOT LOOKED UP: {', '.join(left_out[:10]) or 'anything'}"
            f"{' …' if len(left_out) > 10 else ''} ({said or 'the index has none of them'})"
        )
    return int(bool(vulnerable) or (incomplete and arguments.required))


if __name__ == "__main__":
    sys.exit(main())
