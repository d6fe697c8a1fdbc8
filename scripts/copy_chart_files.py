"""Copy the alerts and the dashboard into the Helm chart, which can read files of its own alone. `--check` only looks.

.venv/bin/python scripts/copy_chart_files.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ROOT / "deploy" / "helm" / "autotag" / "files"
COPIES = {
    FILES / "alerts.yml": ROOT / "deploy" / "prometheus" / "rules" / "autotag.yml",
    FILES / "dashboard.json": ROOT / "deploy" / "grafana" / "dashboards" / "autotag.json",
}


def outdated() -> list[Path]:
    """The copies that differ from what they are of."""
    return [copy for copy, of in COPIES.items() if not copy.is_file() or copy.read_bytes() != of.read_bytes()]


def main() -> None:
    """Copy, or with `--check` exit with a message if that would change anything."""
    found = outdated()
    if sys.argv[1:] == ["--check"]:
        if found:
            names = ", ".join(str(copy.relative_to(ROOT)) for copy in found)
            sys.exit(f"out of date: {names}; run .venv/bin/python scripts/copy_chart_files.py")
        return
    FILES.mkdir(exist_ok=True)
    for copy in found:
        copy.write_bytes(COPIES[copy].read_bytes())


if __name__ == "__main__":
    main()
