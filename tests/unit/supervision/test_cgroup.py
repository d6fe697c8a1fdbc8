"""Cores by affinity and by the quotas of nested control groups, of version 1, version 2 and both side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.supervision.cgroup import out_of_memory_kills, usable_cores

EIGHT = set(range(8))


class Machine:
    """A folder that stands for /proc/self, and hierarchies of control groups mounted beside it."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.groups = folder / "sys fs"
        self._memberships: list[str] = []
        self._mounts: list[str] = ["22 1 0:21 / / rw - ext4 /dev/vda rw"]

    def mount(self, name: str, kind: str, options: str = "rw", root: str = "/") -> None:
        """Mount a hierarchy at `name`, as mountinfo shows it: with `\\040` for a blank."""
        point = str(self.groups / name).replace(" ", "\\040")
        self._mounts.append(f"30 22 0:27 {root} {point} rw,nosuid shared:9 - {kind} {kind} {options}")

    def join(self, membership: str) -> None:
        """A line of /proc/self/cgroup."""
        self._memberships.append(membership)

    def write(self, path: str, text: str) -> None:
        """A file of a group."""
        file = self.groups / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def cores(self) -> int:
        self._finish()
        return usable_cores(self.proc)

    def kills(self) -> int:
        self._finish()
        return out_of_memory_kills(self.proc)

    def _finish(self) -> None:
        (self.proc / "cgroup").write_text("\n".join(self._memberships) + "\n")
        (self.proc / "mountinfo").write_text("\n".join(self._mounts) + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: EIGHT)
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("1600000 100000", 8),
        ("1000 100000", 1),
        ("nonsense", 8),
        ("", 8),
    ],
)
def test_a_quota_of_version_2_is_rounded_up_and_never_above_the_affinity(
    machine: Machine, quota: str, cores: int
) -> None:
    machine.mount("cgroup", "cgroup2")
    machine.join("0::/")
    machine.write("cgroup/cpu.max", quota)
    assert machine.cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("50000", 1), ("250000", 3)])
def test_a_quota_of_version_1_is_read_where_its_controller_is_mounted(machine: Machine, quota: str, cores: int) -> None:
    machine.mount("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
    machine.mount("memory", "cgroup", "rw,memory")
    machine.join("5:memory:/elsewhere")
    machine.join("4:cpu,cpuacct:/a/b")
    machine.write("cpu,cpuacct/a/b/cpu.cfs_quota_us", quota)
    machine.write("cpu,cpuacct/a/b/cpu.cfs_period_us", "100000")
    assert machine.cores() == cores


def test_the_tightest_of_nested_groups_counts(machine: Machine) -> None:
    machine.mount("cgroup", "cgroup2")
    machine.join("0::/slice/pod/container")
    machine.write("cgroup/cpu.max", "max 100000")
    machine.write("cgroup/slice/cpu.max", "300000 100000")
    machine.write("cgroup/slice/pod/cpu.max", "200000 100000")
    machine.write("cgroup/slice/pod/container/cpu.max", "400000 100000")
    machine.write("cgroup/slice/pod/other/cpu.max", "100000 100000")
    assert machine.cores() == 2


def test_a_container_sees_its_group_as_the_root_of_the_mount(machine: Machine) -> None:
    # As Docker does it with version 1: the group's path is the host's, and only that group is mounted.
    machine.mount("cpu", "cgroup", "rw,cpu", root="/docker/abc")
    machine.join("4:cpu:/docker/abc")
    machine.write("cpu/cpu.cfs_quota_us", "200000")
    machine.write("cpu/cpu.cfs_period_us", "100000")
    assert machine.cores() == 2


def test_of_a_group_outside_the_namespace_what_is_mounted_counts(machine: Machine) -> None:
    machine.mount("cgroup", "cgroup2")
    machine.join("0::/../sibling")
    machine.write("cgroup/cpu.max", "200000 100000")
    assert machine.cores() == 2


def test_with_both_versions_side_by_side_both_count(machine: Machine) -> None:
    machine.mount("unified", "cgroup2")
    machine.mount("cpu", "cgroup", "rw,cpu")
    machine.join("1:cpu:/job")
    machine.join("0::/job")
    machine.write("cpu/job/cpu.cfs_quota_us", "300000")
    machine.write("cpu/job/cpu.cfs_period_us", "100000")
    assert machine.cores() == 3
    machine.write("unified/job/cpu.max", "100000 100000")
    assert machine.cores() == 1


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5, 6})
    assert usable_cores(tmp_path / "nothing") == 3
    assert out_of_memory_kills(tmp_path / "nothing") == 0


def test_a_kill_for_want_of_memory_raises_the_count_in_either_version(machine: Machine) -> None:
    machine.mount("unified", "cgroup2")
    machine.mount("memory", "cgroup", "rw,memory")
    machine.join("8:memory:/job")
    machine.join("0::/job")
    assert machine.kills() == 0
    machine.write("memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    first = machine.kills()
    machine.write("unified/job/memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n")
    second = machine.kills()
    machine.write("unified/memory.events", "oom 2\noom_kill 1\n")
    assert 0 < first < second < machine.kills()
