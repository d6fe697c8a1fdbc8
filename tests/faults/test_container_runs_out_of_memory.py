"""The control group of a service, as a container's, runs out of memory: the kernel kills a decoder, not its image."""

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
    """A service whose own limits allow any image, in a control group that does not."""
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


def test_an_image_whose_decoder_the_kernel_kills_for_want_of_memory_waits_and_is_not_blamed(in_a_group: Scene) -> None:
    it = in_a_group
    large = it.folder / "large.png"
    Image.new("RGB", (SIDE, SIDE), (200, 30, 30)).save(large, compress_level=1)
    (waiting,) = it.ledger.publish(large, asset_id="large")
    until(lambda: len(it.logged("child killed from outside")) >= 3, "its decoders have been killed", within_s=120)
    good = it.load(20)

    def others_answered() -> bool:
        it.ledger.gather()
        return set(good) <= set(it.ledger.results)

    until(others_answered, "the others are answered")
    assert it.ledger.statuses(good) == {"tagged"}
    assert {line["cause"] for line in it.logged("child killed from outside")} == {
        "killed by SIGKILL: by the kernel, out of memory"
    }
    # It waits in a retry queue, and has lost no attempt
    ended = until(lambda: it.logged("event ended", asset_id="large"), "its event has been put off")
    endings = {(line["ending"], line["reason"], line["attempt"]) for line in ended}
    assert endings == {("retried", "decoder_killed_from_outside", 1)}
    assert waiting not in it.ledger.results
    assert it.ledger.dead == {}
