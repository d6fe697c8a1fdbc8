"""docs/security.md: its tables say what the filters allow."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from write_security_table import tables  # noqa: E402

from worker.children import seccomp  # noqa: E402


def test_the_tables_are_those_of_the_filters() -> None:
    assert tables() in (ROOT / "docs/security.md").read_text(), "run scripts/write_security_table.py"


def test_a_decoder_may_open_nothing_connect_to_nothing_and_start_nothing() -> None:
    decoder = seccomp.allowed_calls()["decoder"]
    assert decoder.keys().isdisjoint({"open", "openat", "openat2", "socket", "connect", "fork", "clone", "execve"})
    assert decoder["mmap"], "only without the right to execute"
    assert decoder["kill"], "only itself"
