"""How many decoders fit into the memory that a control group, as a container's, allows.

Beyond that limit the kernel kills a process, perhaps one that does another image's work. The figures are those of
docs/performance.md: the parent and a model child, a decoder, and the decoded pixels of the largest image that it takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.supervision.cgroup import memory_limit_bytes, usable_cores

_MEBIBYTE = 1 << 20
_OF_PARENT_AND_MODEL_BYTES = 200 * _MEBIBYTE
_OF_A_DECODER_BYTES = 35 * _MEBIBYTE
_BYTES_PER_PIXEL = 4


@dataclass(frozen=True, slots=True)
class DecoderMemory:
    """`children`: how many decoders there are. `needed_bytes`: what all take, each with the largest image at once."""

    children: int
    limit_bytes: int | None
    needed_bytes: int

    @property
    def message(self) -> str | None:
        """What is too small, and what to do; None where there is enough."""
        if self.limit_bytes is None or self.needed_bytes <= self.limit_bytes:
            return None
        return (
            f"its control group allows {self.limit_bytes // _MEBIBYTE} MiB, and {self.children} decoders, each with "
            f"the largest image at once, need {-(-self.needed_bytes // _MEBIBYTE)} MiB: the kernel may kill them; "
            "raise the limit (MemoryMax= in the unit, --memory), or lower decoder.children or decoder.maximum_pixels"
        )


def decoder_memory(children: int | None, maximum_pixels: int) -> DecoderMemory:
    """The decoders that there will be, and their memory. `children`: the setting; None leaves the number to us.

    Then it is one for each usable core, or as many as fit into the memory; at least one.
    """
    each = _OF_A_DECODER_BYTES + _BYTES_PER_PIXEL * maximum_pixels
    limit = memory_limit_bytes()
    number = children or usable_cores()
    if children is None and limit is not None:
        number = max(1, min(number, (limit - _OF_PARENT_AND_MODEL_BYTES) // each))
    return DecoderMemory(number, limit, _OF_PARENT_AND_MODEL_BYTES + number * each)
