"""Answers kept on disk, so that the same image is not paid for twice. Off by default.

The files are those of `cachelib`, with JSON inside: reading a cache that somebody else could write to must not run
code. An answer is found again by the image's digest and everything that decides what the service would say; the
instance and its key are no part of that.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import structlog
from cachelib.file import FileSystemCache
from cachelib.serializers import JSONSerializer

from worker.providers.base import Answer, Suggestion

_log = structlog.get_logger(__name__)
_FORM = 1
"""Goes into every key; raised when what is stored changes."""


class _JsonFiles(FileSystemCache):
    serializer = JSONSerializer()  # type: ignore[assignment]  # declared as its own pickling kind; any serializer is meant


class AnswerCache:
    """Answers by key, at most `maximum_entries` of them (the oldest go first) and none older than `maximum_age_s`."""

    def __init__(self, directory: Path, *, maximum_entries: int, maximum_age_s: float) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = _JsonFiles(str(directory), threshold=maximum_entries, default_timeout=int(maximum_age_s))
        self._one_writer = asyncio.Lock()

    @staticmethod
    def key(image_sha256: str, *ingredients: object) -> str:
        """The key for an image and what else decides the answer; the ingredients must be JSON."""
        return hashlib.sha256(json.dumps([_FORM, image_sha256, *ingredients]).encode()).hexdigest()

    async def get(self, key: str) -> Answer | None:
        """The answer kept under `key`, or None; a damaged entry counts as none."""
        found = await asyncio.to_thread(self._files.get, key)
        try:
            return _answer(found) if found is not None else None
        except (KeyError, TypeError, ValueError):
            _log.warning("a cached answer is damaged and was ignored", key=key)
            return None

    async def put(self, key: str, answer: Answer) -> None:
        """Keep an answer. Failing to (a full disk) is logged and does no other harm."""
        tree = {"model": answer.model, "suggestions": [[each.name, each.confidence] for each in answer.suggestions]}
        async with self._one_writer:  # the library's count of files is read, changed and written
            if not await asyncio.to_thread(self._files.set, key, tree):
                _log.warning("an answer could not be kept in the cache", key=key)


def _answer(tree: dict[str, Any]) -> Answer:
    return Answer(
        tuple(Suggestion(str(name), float(confidence)) for name, confidence in tree["suggestions"]), tree["model"]
    )
