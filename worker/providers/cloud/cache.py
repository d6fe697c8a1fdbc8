"""Answers kept on disk, so that the same image is not paid for twice. Off by default.

The files are those of `cachelib`, with JSON inside: reading a cache that somebody else could write to must not run
code. An answer is found again by the image's digest and everything that decides what the service would say; the
instance and its key are no part of that.
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
_FORM = 1
"""Goes into every key; raised when what is stored changes."""

_PUTS_BETWEEN_SWEEPS = 500
_FULL_AFTER_SWEEP = 0.9
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own


class _JsonFiles(FileSystemCache):
    serializer = JSONSerializer()  # type: ignore[assignment]  # declared as its own pickling kind; any serializer is meant


class AnswerCache:
    """Answers by key, none older than `maximum_age_s`, in files that take about `maximum_bytes` of the disk at most."""

    def __init__(self, directory: Path, *, maximum_bytes: int, maximum_age_s: float) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._maximum_bytes = maximum_bytes
        # Without a threshold: the library would look at every file at every put once that is reached.
        self._files = _JsonFiles(str(directory), threshold=0, default_timeout=int(maximum_age_s))
        self._puts = 0

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
        """Keep an answer, and make room now and then. Failing to (a full disk) is logged and does no other harm."""
        tree = {"model": answer.model, "suggestions": [[each.name, each.confidence] for each in answer.suggestions]}
        if not await asyncio.to_thread(self._files.set, key, tree):
            _log.warning("an answer could not be kept in the cache", key=key)
        if self._puts % _PUTS_BETWEEN_SWEEPS == 0:
            await asyncio.to_thread(self._sweep)
        self._puts += 1

    def _sweep(self) -> None:
        """Remove the oldest files until the rest takes less than nine tenths of the room."""
        files = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process may sweep too
                    facts = entry.stat()
                    files.append((facts.st_mtime, facts.st_blocks * _BLOCK_BYTES, entry.path))
        taken_bytes = sum(size_bytes for _, size_bytes, _ in files)
        if taken_bytes <= self._maximum_bytes:
            return
        for _, size_bytes, path in sorted(files):
            if taken_bytes <= self._maximum_bytes * _FULL_AFTER_SWEEP:
                break
            with suppress(FileNotFoundError):
                os.remove(path)
            taken_bytes -= size_bytes


def _answer(tree: dict[str, Any]) -> Answer:
    suggestions = tuple(Suggestion(str(name), float(confidence)) for name, confidence in tree["suggestions"])
    return Answer(suggestions, str(tree["model"]))
