"""How many deliveries fit into the file descriptors that this process may open.

Every event in hand takes some: its image (a file, or a file in memory), its pixels, a smaller JPEG for a cloud service,
a connection to the image's host. Events that find none wait for each other, so more are not taken than there is room
for.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

PER_EVENT = 4
"""At most, at once: content, output of the decoder, a JPEG for a cloud service, a socket to the image's host."""

OF_THE_SERVICE = 256
"""For everything else: children, connections, listening sockets, the log, files of packages."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the limit on descriptors leaves. `prefetch` is the largest `amqp.prefetch` that fits, at most the wanted."""

    limit: int
    wanted_prefetch: int
    prefetch: int

    @property
    def message(self) -> str | None:
        """What is too small, and what to do; None where there is room."""
        if self.prefetch >= self.wanted_prefetch:
            return None
        return (
            f"amqp.prefetch = {self.wanted_prefetch} needs {needed(self.wanted_prefetch)} file descriptors, and this "
            f"process may open {self.limit}: at most {self.prefetch} deliveries are taken at once; raise the limit "
            "(LimitNOFILE= in the unit, ulimit -n, --ulimit nofile), or lower amqp.prefetch"
        )


def needed(prefetch: int) -> int:
    """Descriptors for this `amqp.prefetch`: the live lane has it whole, the bulk lane a quarter beside it."""
    return PER_EVENT * (prefetch + max(1, prefetch // 4)) + OF_THE_SERVICE


def fitting(wanted_prefetch: int, limit: int) -> int:
    """The largest prefetch, at most the wanted and at least 1, whose descriptors a limit allows."""
    if needed(wanted_prefetch) <= limit:
        return wanted_prefetch
    low, high = 1, wanted_prefetch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= limit else (low, middle)
    return low


def make_room(wanted_prefetch: int) -> Room:
    """Raise this process's limit as far as it is needed and allowed, and see what fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed(wanted_prefetch)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = wanted if soft == resource.RLIM_INFINITY else soft
    return Room(limit, wanted_prefetch, fitting(wanted_prefetch, limit))
