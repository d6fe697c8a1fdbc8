"""What Autotag knows of RabbitMQ's versions: which it works with, and what of each an operator should know.

docs/rabbitmq.md has the whole list, with sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

OLDEST = (3, 10)
"""The first series whose quorum queues have message expiry and dead-lettering at-least-once, which we need."""

NEWEST = (4, 3)
"""The newest series whose changes docs/rabbitmq.md lists."""

_NO_END = (1 << 30, 0)

_REMARKS: tuple[tuple[tuple[int, int], tuple[int, int], str], ...] = (
    (
        (0, 0),
        OLDEST,
        "older than 3.10: its quorum queues know no message expiry, so retries cannot wait; upgrade it",
    ),
    (
        OLDEST,
        (4, 0),
        "the 3.x series is out of community support; from 4.0 on the default max_message_size is 16 MiB, not 128 MiB",
    ),
    ((4, 0), _NO_END, "takes messages of up to 16 MiB unless its max_message_size says otherwise"),
    (
        (4, 3),
        _NO_END,
        "a requeued event (basic.nack) does not count towards the delivery limit, and a consumer timeout ends the "
        "consumer, not its channel",
    ),
    ((NEWEST[0], NEWEST[1] + 1), _NO_END, "newer than 4.3, the newest that docs/rabbitmq.md knows"),
)
"""From this series, up to but not including that one: what matters."""


@dataclass(frozen=True, slots=True)
class BrokerVersion:
    """The product and version that a broker names when a client connects."""

    product: str
    number: str

    @classmethod
    def of(cls, server_properties: Mapping[str, object] | None) -> Self:
        """Read from AMQP's `server-properties`."""
        properties = server_properties or {}
        return cls(str(properties.get("product") or "an unnamed broker"), str(properties.get("version") or "?"))

    def __str__(self) -> str:
        return f"{self.product} {self.number}"

    @property
    def series(self) -> tuple[int, int] | None:
        """Major and minor version; None where the broker is not RabbitMQ or its version cannot be read."""
        found = re.match(r"(\d+)\.(\d+)", self.number)
        return (int(found[1]), int(found[2])) if found and self.product == "RabbitMQ" else None

    @property
    def supported(self) -> bool:
        """Whether it is a RabbitMQ that Autotag can work with."""
        return self.series is not None and self.series >= OLDEST

    def remarks(self) -> list[str]:
        """What an operator should know of it, a sentence each."""
        series = self.series
        if series is None:
            return [f"not a RabbitMQ of a version that Autotag knows ({OLDEST[0]}.{OLDEST[1]} or newer): not tested"]
        return [text for first, end, text in _REMARKS if first <= series < end]
