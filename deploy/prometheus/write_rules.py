#!/usr/bin/env python3
"""Print the alerts for your own Prometheus: with the address of your runbook, and for the jobs that you mean.

    deploy/prometheus/write_rules.py --runbook https://wiki.example/autotag --selector 'job="photos"' >autotag.yml

`rules/autotag.yml` can be used as it is. It is valid for all jobs, and the two texts that are replaced here are those
that the Helm chart replaces as well.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

RULES = Path(__file__).parent / "rules" / "autotag.yml"
RUNBOOK = "https://docs.example.org/autotag/runbook/"
SELECTOR = 'job=~".+"'


def text(runbook: str = RUNBOOK, selector: str = SELECTOR) -> str:
    """The rules. Raises ValueError for a runbook without scheme, or a selector that is none."""
    if not re.fullmatch(r"https?://[^\s\"'\\#{}]+", runbook):
        raise ValueError(f"the runbook must be an absolute http:// or https:// address without #, not {runbook!r}")
    matcher = r'[a-zA-Z_]\w*\s*(?:=|!=|=~|!~)\s*"(?:[^"\\\n]|\\.)*"'
    if not re.fullmatch(rf"{matcher}(?:\s*,\s*{matcher})*", selector):
        raise ValueError(f'the selector must be matchers such as job="photos", namespace="dms", not {selector!r}')
    return RULES.read_text().replace(SELECTOR, selector).replace(RUNBOOK, runbook)


def main() -> None:
    """Print what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runbook", default=RUNBOOK, metavar="URL", help="where docs/runbook.md can be read")
    parser.add_argument("--selector", default=SELECTOR, metavar="MATCHERS", help="which jobs are meant")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(text(arguments.runbook, arguments.selector))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
