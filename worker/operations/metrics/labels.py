"""Label values that come from outside this program, bounded so that they do not create too many series."""

from __future__ import annotations

import re
from collections.abc import Iterable

from worker.messages import DEFAULT_INSTANCE

OTHER = "other"

_SLUG = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAXIMUM_REASONS = 200


class Reasons:
    """Passes reason codes on unchanged, up to a number that fixed codes do not reach; then they become `other`.

    Most reason codes are constants in our own code. Those of third-party providers and of children need not be.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, reason: str | None) -> str:
        """The label value for a reason code; empty for None."""
        if reason is None:
            return ""
        if reason in self._known:
            return reason
        if len(self._known) < _MAXIMUM_REASONS and _SLUG.fullmatch(reason):
            self._known.add(reason)
            return reason
        return OTHER


class Instances:
    """Passes on the names of configured instances; all others, which events may make up, become `other`."""

    def __init__(self) -> None:
        self._configured: frozenset[str] = frozenset()
        self._in_histograms: frozenset[str] = frozenset()
        self.with_histograms: tuple[str, ...] = ()
        """Those with histograms of their own, besides `default`: the first of the settings, on every worker."""

    def configure(self, names: Iterable[str], *, histograms: int = 100) -> None:
        """Replace the names of the configured instances, and how many of them may have histograms of their own."""
        ordered = tuple(name for name in names if name != DEFAULT_INSTANCE)
        self._configured = frozenset(ordered)
        self.with_histograms = ordered[:histograms]
        self._in_histograms = frozenset(self.with_histograms)

    def __call__(self, instance: str | None) -> str:
        """The label value for an instance; None is one that nobody knows."""
        return self._label(instance, self._configured)

    def in_histograms(self, instance: str | None) -> str:
        """The label value for an instance in a histogram, which has a score of series where a counter has one."""
        return self._label(instance, self._in_histograms)

    @staticmethod
    def _label(instance: str | None, named: frozenset[str]) -> str:
        return instance if instance is not None and (instance == DEFAULT_INSTANCE or instance in named) else OTHER
