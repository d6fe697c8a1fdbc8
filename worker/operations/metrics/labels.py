"""Label values that come from outside this program, kept from becoming more series than a Prometheus can bear."""

from __future__ import annotations

import re
from collections.abc import Iterable

from worker.messages import DEFAULT_INSTANCE

OTHER = "other"

_SLUG = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_REASONS = 200


class Reasons:
    """Fixed words are let through as they are, until there are too many of them to be fixed words.

    Most reasons stand in our own code. Those of providers from elsewhere and of children need not.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, reason: str | None) -> str:
        """The label value for a reason; empty where there is none."""
        if reason is None:
            return ""
        if reason in self._known:
            return reason
        if len(self._known) < _MOST_REASONS and _SLUG.fullmatch(reason):
            self._known.add(reason)
            return reason
        return OTHER


class Instances:
    """Events may name any instance; only those that the settings name have series of their own."""

    def __init__(self) -> None:
        self._configured: frozenset[str] = frozenset()

    def configure(self, names: Iterable[str]) -> None:
        """Take the instances that the settings name from now on."""
        self._configured = frozenset(names)

    def __call__(self, instance: str) -> str:
        """The label value for an instance."""
        return instance if instance == DEFAULT_INSTANCE or instance in self._configured else OTHER
