"""How many decoders fit into a control group's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.supervision import memory as module
from worker.supervision.cgroup import memory_limit_bytes
from worker.supervision.memory import decoder_memory

MEBIBYTE = 1 << 20
PIXELS = 50_000_000


@pytest.mark.parametrize(
    ("limit_mebibytes", "cores", "children"),
    [(None, 8, 8), (64_000, 8, 8), (1024, 8, 4), (512, 8, 1), (100, 8, 1), (1024, 2, 2)],
)
def test_there_are_no_more_decoders_than_fit(
    monkeypatch: pytest.MonkeyPatch, limit_mebibytes: int | None, cores: int, children: int
) -> None:
    limit = None if limit_mebibytes is None else limit_mebibytes * MEBIBYTE
    monkeypatch.setattr(module, "memory_limit_bytes", lambda: limit)
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    found = decoder_memory(None, PIXELS)
    assert found.children == children
    assert (found.message is None) == (limit is None or found.needed_bytes <= limit)


def test_a_number_that_is_set_is_kept_and_the_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_limit_bytes", lambda: 1024 * MEBIBYTE)
    found = decoder_memory(8, PIXELS)
    assert found.children == 8
    assert found.message is not None
    assert "allows 1024 MiB, and 8 decoders" in found.message
    assert f"need {-(-found.needed_bytes // MEBIBYTE)} MiB" in found.message
    assert decoder_memory(8, 100_000).message is None, "with small images they fit"


@pytest.mark.parametrize(
    ("kind", "name", "none"),
    [("cgroup2", "memory.max", "max"), ("cgroup", "memory.limit_in_bytes", str((1 << 63) - 4096))],
)
def test_the_tightest_group_counts(tmp_path: Path, kind: str, name: str, none: str) -> None:
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    own = mounted / "outer" / "inner"
    own.mkdir(parents=True)
    proc.mkdir()
    (proc / "cgroup").write_text("0::/outer/inner\n" if kind == "cgroup2" else "8:memory:/outer/inner\n")
    (proc / "mountinfo").write_text(f"1 2 0:1 / {mounted} rw - {kind} {kind} rw,memory\n")
    assert memory_limit_bytes(proc) is None
    (own / name).write_text(none)
    assert memory_limit_bytes(proc) is None
    (own.parent / name).write_text("1073741824\n")
    (own / name).write_text("2147483648\n")
    assert memory_limit_bytes(proc) == 1 << 30
