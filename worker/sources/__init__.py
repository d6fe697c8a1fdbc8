"""Opens the image of an event: in the message itself, in a file below a configured root, or on an allowed host.

Everything an event names is treated as hostile: each kind of source has its own limits, checked before and during
reading.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from types import TracebackType
from typing import Self

from worker.errors import TryLater
from worker.images.content import Content
from worker.messages import Event
from worker.settings import SourcesSettings
from worker.sources.blocking import BlockingCalls
from worker.sources.inline import open_inline
from worker.sources.network import Resolver, system_resolver
from worker.sources.path import open_path
from worker.sources.url import UrlFetcher

__all__ = ["Sources"]


class Sources:
    """Opens the content of events. At most `concurrency` paths and URLs are opened at a time.

    `resolve` and `tls` replace the system's name resolution and trusted certificates, for tests.
    """

    def __init__(self, concurrency: int, *, resolve: Resolver | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        # Separate, so that a file server that hangs does not stop name resolution.
        self._file_calls = BlockingCalls(4 * concurrency)
        name_calls = BlockingCalls(4 * concurrency)
        self._urls = UrlFetcher(resolve or system_resolver(name_calls), tls=tls)

    async def open_content(self, event: Event, image_bytes: bytes | None, settings: SourcesSettings) -> Content:
        """The image of an event; the caller closes it. `image_bytes` is what `read_event` found in the message.

        Raises CannotBeDone for what must not or cannot be opened, TryLater for what may become available later. When
        this machine has run out of descriptors or memory, that is a ResourceExhausted or an OSError that `exhausted`
        knows.
        """
        content = event.data.content
        match content.path, content.url:
            case str(path), _:
                async with self._slots:
                    return await self._open_path(path, settings)
            case _, str(url):
                async with self._slots:
                    return await self._urls.open_url(url, settings)
            case _:
                return open_inline(event, image_bytes, settings)

    async def start(self) -> None:
        """Connections are opened as they are needed."""

    async def close(self) -> None:
        """Close every connection. Hung calls are abandoned; their daemon threads end with the process."""
        await self._urls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open_path(self, path: str, settings: SourcesSettings) -> Content:
        limit_s = settings.total_timeout_s
        try:
            return await self._file_calls.call(
                partial(open_path, path, settings), timeout_s=limit_s, discard=Content.close
            )
        except TimeoutError as error:
            raise TryLater(
                f"the file {path!r} could not be opened within {limit_s:g} s: does the file server answer?",
                reason="content_unreachable",
            ) from error
