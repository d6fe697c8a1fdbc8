"""The control group of a service, as a container's, has less memory than an image takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.support.polling import until
from tests.support.scene import Scene, scene

ALLOWED_BYTES = 160 << 20
SIDE = 7000
"""In pixels: decoded, such an image takes more than is allowed."""


class MemoryGroup:
    """A control group with a limit of memory, of version 1 or 2. Only what is allocated in it counts."""

    def __init__(self, limit_bytes: int) -> None:
        version_1 = Path("/sys/fs/cgroup/memory")
        root, limit = (
            (version_1, "memory.limit_in_bytes") if version_1.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
        )
        self._root = root
        self._folder = root / f"autotag-test-{os.getpid()}"
        self._folder.mkdir()
        try:
            (self._folder / limit).write_text(str(limit_bytes))
        except OSError:
            self._folder.rmdir()
            raise

    def take(self, process: psutil.Process) -> None:
        """Move a process and its children into the group."""
        for each in (process, *process.children(recursive=True)):
            (self._folder / "cgroup.procs").write_text(str(each.pid))

    def remove(self) -> None:
        """Move what is left out of it, and remove it."""
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (self._root / "cgroup.procs").write_text(pid)
        until(self._removed, "the group is removed")

    def _removed(self) -> bool:
        with suppress(OSError):
            self._folder.rmdir()
        return not self._folder.exists()


@pytest.fixture
def in_a_group(broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]) -> Iterator[Scene]:
    """A service whose own limits allow any image, in a control group that is made smaller while it runs."""
    try:
        group = MemoryGroup(ALLOWED_BYTES)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    settings = {
        "DECODER__MAXIMUM_MEMORY_BYTES": "4GiB",
        "DECODER__MAXIMUM_CPU_S": "60",
        "DECODER__TIMEOUT_S": "60",
        "DECODER__CHILDREN": "1",
    }
    try:
        with scene(broker, queue_prefix, tmp_path, photographs, **settings) as it:
            until(lambda: it.children("decoder"), "its decoder is ready")
            group.take(psutil.Process(it.service.process.pid))
            yield it
    finally:
        group.remove()


def test_an_image_that_takes_more_than_the_container_has_is_refused_before_anything_is_killed(
    in_a_group: Scene,
) -> None:
    it = in_a_group
    large = it.folder / "large.png"
    Image.new("RGB", (SIDE, SIDE), (200, 30, 30)).save(large, compress_level=1)
    (bad,) = it.ledger.publish(large, asset_id="large")
    good = it.load(20)
    it.ledger.settle()
    assert it.ledger.statuses(good) == {"tagged"}
    (result,) = it.ledger.results[bad]
    assert (result.data["status"], result.data["reason"]) == ("failed", "image_too_large_memory")
    assert "all images together have 128 MiB here" in result.data["message"]
    assert it.logged("child killed from outside") == []
