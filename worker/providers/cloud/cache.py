"""A cache of answers on disk, so that the same image is not paid for twice. Off by default.

The files are written by `cachelib`, with JSON inside instead of pickles: reading a cache that another user could write
to must not execute code. An answer is cached under the image's digest and everything else that determines what the
service would answer; the instance and its key do not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from cachelib.file import FileSystemCache
from cachelib.serializers import JSONSerializer

from worker.providers.base import Answer, Suggestion

_log = structlog.get_logger(__name__)
_FORMAT = 1
"""The version of the stored format, a part of every key; increased when the format changes."""

_PUTS_PER_EVICTION = 500
_FULL_AFTER_EVICTION = 0.9
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own


class _JsonFiles(FileSystemCache):
    serializer = JSONSerializer()  # type: ignore[assignment]  # the attribute is declared with the pickling class


class AnswerCache:
    """Answers by key, none older than `maximum_age_s`, in files that take up at most about `maximum_bytes` of disk."""

    def __init__(self, directory: Path, *, maximum_bytes: int, maximum_age_s: float) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._maximum_bytes = maximum_bytes
        # Without a threshold: once it is reached, the library would open every file at every put.
        self._files = _JsonFiles(str(directory), threshold=0, default_timeout=int(maximum_age_s))
        self._puts = 0

    @staticmethod
    def key(image_sha256: str, *parts: object) -> str:
        """The key for an image and everything else that determines the answer; `parts` must be JSON values."""
        return hashlib.sha256(json.dumps([_FORMAT, image_sha256, *parts]).encode()).hexdigest()

    async def get(self, key: str) -> Answer | None:
        """The answer cached under `key`, or None. A damaged entry is logged and treated as absent."""
        tree = await asyncio.to_thread(self._files.get, key)
        try:
            return _answer(tree) if tree is not None else None
        except (KeyError, TypeError, ValueError):
            _log.warning("a cached answer is damaged and was ignored", key=key)
            return None

    async def put(self, key: str, answer: Answer) -> None:
        """Store an answer; every 500th time, evict old ones. A failure to write (a full disk) is only logged."""
        tree = {"model": answer.model, "suggestions": [[each.name, each.confidence] for each in answer.suggestions]}
        if not await asyncio.to_thread(self._files.set, key, tree):
            _log.warning("an answer could not be kept in the cache", key=key)
        if self._puts % _PUTS_PER_EVICTION == 0:
            await asyncio.to_thread(self._evict)
        self._puts += 1

    def _evict(self) -> None:
        """If the files take up more than the maximum, remove the oldest until the rest takes less than 90 % of it."""
        files = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process may be evicting too
                    stat = entry.stat()
                    files.append((stat.st_mtime, stat.st_blocks * _BLOCK_BYTES, entry.path))
        used_bytes = sum(size_bytes for _, size_bytes, _ in files)
        if used_bytes <= self._maximum_bytes:
            return
        for _, size_bytes, path in sorted(files):
            if used_bytes <= self._maximum_bytes * _FULL_AFTER_EVICTION:
                break
            with suppress(FileNotFoundError):
                os.remove(path)
            used_bytes -= size_bytes


def _answer(tree: dict[str, Any]) -> Answer:
    suggestions = tuple(Suggestion(str(name), float(confidence)) for name, confidence in tree["suggestions"])
    return Answer(suggestions, str(tree["model"]))
