"""What every target does, and the errors it raises: one class for each decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from worker.connect.names import NameRules
from worker.errors import AutotagError

TagId = str | int
"""A target's own id of a tag."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One asset of a target: its id, and what the event carried for its sake."""

    asset_id: str
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """The tags of one asset in the target."""

    tags: tuple[str, ...]
    """All, people's and ours, as the target spells them."""
    mine: tuple[str, ...] | None = None
    """Those that we have written, where the target itself keeps that; None: only the ledger knows."""
    ids: Mapping[str, TagId] = field(default_factory=dict)
    """The target's own id of a tag, by its name, where it has any."""


class Target(Protocol):
    """Reads and writes the tags of assets. Every method raises AssetGone, TargetBusy, TargetRefused or Rejected."""

    @property
    def names(self) -> NameRules:
        """What names it takes."""
        ...

    @property
    def origin(self) -> str:
        """Scheme, host and port, for people."""
        ...

    async def read(self, asset: Asset) -> Standing:
        """The tags of an asset."""
        ...

    async def change(
        self, asset: Asset, add: Sequence[str], remove: Sequence[str], standing: Standing
    ) -> tuple[str, ...]:
        """Add tags and remove others; returns those that were added, which are fewer where no more fit.

        `standing` is what `read` has returned just before. Where it fails, any part of it may have been done.
        """
        ...

    def planned(self, asset: Asset, add: Sequence[str], remove: Sequence[str], standing: Standing) -> list[str]:
        """The requests that `change` would make, a line each, for people."""
        ...

    async def probe(self) -> None:
        """Ask something harmless."""

    async def close(self) -> None:
        """Close all connections."""


class AssetGone(AutotagError):
    """The target has no such asset any more: there is nothing to write."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="asset_gone")


class TargetBusy(AutotagError):
    """It may succeed later. `after_s` is what the target asked for, 0 where it asked for nothing.

    `is_answer`: the target has answered, so that it does nothing about the request any more.
    """

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0, is_answer: bool = False) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s
        self.is_answer = is_answer


class TargetRefused(AutotagError):
    """The target lets us in no more, whatever the asset: an operator has to act."""


class Rejected(AutotagError):
    """This write can never succeed. The message has method, path, status and the beginning of the answer."""

    def __init__(self, message: str, *, reason: str = "target_rejected") -> None:
        super().__init__(message, reason=reason)
