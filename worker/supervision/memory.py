"""How much memory the decoders may take: how many of them there are, and what they share for large images.

Beyond the limit of a control group, as a container's, the kernel kills a process, perhaps one that does another image's
work. Without such a limit the decoders keep to half of the machine's memory, in which others live too. The figures are
those of docs/performance.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from worker.supervision.cgroup import memory_limit_bytes, usable_cores
from worker.supervision.memory_budget import FIRST_BYTES

_MEBIBYTE = 1 << 20
_OF_PARENT_AND_MODEL_BYTES = 200 * _MEBIBYTE
_OF_A_DECODER_BYTES = 45 * _MEBIBYTE
_SLACK_BYTES = 16 * _MEBIBYTE
_BYTES_PER_PIXEL = 4


@dataclass(frozen=True, slots=True)
class DecoderMemory:
    """`children`: how many decoders there are. `shared_bytes`: what their images have together, beyond the first grant
    of each. `needed_bytes`: what all take while one of them has the largest image. `limit_bytes`: a control group's.
    """

    children: int
    shared_bytes: int
    limit_bytes: int | None
    needed_bytes: int

    @property
    def message(self) -> str | None:
        """What is too small, and what to do; None where there is enough."""
        if self.limit_bytes is None or self.needed_bytes <= self.limit_bytes:
            return None
        return (
            f"its control group allows {self.limit_bytes // _MEBIBYTE} MiB, and {self.children} decoders, one of them "
            f"with the largest image, need {-(-self.needed_bytes // _MEBIBYTE)} MiB: large images are refused, or the "
            "kernel may kill decoders; raise the limit (MemoryMax= in the unit, --memory), or lower decoder.children "
            "or decoder.maximum_pixels"
        )


def decoder_memory(children: int | None, maximum_pixels: int) -> DecoderMemory:
    """The decoders that there will be, and their memory. `children`: the setting; None leaves the number to us.

    Then it is one for each usable core, or as many as fit into the memory; at least one.
    """
    limit = memory_limit_bytes()
    largest = _SLACK_BYTES + _BYTES_PER_PIXEL * maximum_pixels
    each = _OF_A_DECODER_BYTES + min(FIRST_BYTES, largest)
    base = _OF_PARENT_AND_MODEL_BYTES + max(0, largest - FIRST_BYTES)
    number = children or usable_cores()
    if children is None and limit is not None:
        number = max(1, min(number, (limit - base) // each))
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if limit is None else limit
    shared = max(0, available - _OF_PARENT_AND_MODEL_BYTES - number * each)
    return DecoderMemory(number, shared, limit, base + number * each)
