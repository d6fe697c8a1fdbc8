"""What `autotag shadow report` shows, as values: they cross the control socket. It imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class ChangedTag:
    """How often a tag would be added or removed, beside how often it would be the same."""

    name: str
    times: int
    same: int


@dataclass(frozen=True, slots=True)
class ChangedImage:
    """An image whose tags would change, each with its confidence."""

    asset_id: str
    instance: str
    added: list[tuple[str, float]]
    removed: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What would change with the candidate. `state`: whether it runs, for people.

    `skipped`: images of the share that were not compared, by reason. `mean_change`: of the confidence of tags that
    would be the same. `real_cpu_ms` and `candidate_cpu_ms`: processor time of the model children for each image.
    """

    model: str
    state: str
    share: float
    compared: int
    alike: int
    skipped: dict[str, int]
    added: list[ChangedTag]
    removed: list[ChangedTag]
    mean_change: float | None
    real_cpu_ms: float | None
    candidate_cpu_ms: float | None
    examples: list[ChangedImage]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        tree: dict[str, Any] = _REPORT.dump_python(self, mode="json")
        return tree

    @classmethod
    def from_json(cls, tree: object) -> ShadowReport:
        """The report that `to_json` wrote. Raises ValueError if a service of another version wrote other fields."""
        return _REPORT.validate_python(tree)


_REPORT = TypeAdapter(ShadowReport)
