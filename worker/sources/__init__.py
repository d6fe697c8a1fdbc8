"""Opens the image of an event: in the message itself, below a configured root, on an allowed host, or in a bucket.

Everything an event names is treated as hostile: each kind of source has its own limits, checked before and during
reading.
"""

from __future__ import annotations

import ssl
from functools import partial
from types import TracebackType
from typing import Self

from worker.errors import TryLater
from worker.images.content import Content
from worker.messages import Event, LargeImage
from worker.messages.s3_notifications import S3Content
from worker.settings import SourcesSettings
from worker.sources.blocking import BlockingCalls
from worker.sources.breaker import SOURCE_CIRCUIT_OPEN, SourceBreakers, SourceFailed
from worker.sources.hosts import without_secrets
from worker.sources.inline import open_inline
from worker.sources.network import Resolver, system_resolver
from worker.sources.path import missing, open_below, roots_of
from worker.sources.slots import FairSlots
from worker.sources.url import UrlFetcher
from worker.supervision.turns import Turn

__all__ = ["Sources"]

_DEFAULTS = SourcesSettings()

_PROBE_BESIDE_HUNG_S = 600.0
"""A root is not probed while a younger call to it hangs: that shows enough, and each probe would take a thread more.

Not for ever, because calls to a file system that was detached never come back though another is mounted in its place.
"""


class Sources:
    """Opens the content of events: at most `concurrency` paths and as many URLs at a time, for each lane.

    Instances share these fairly, and a source that fails `failures` times in a row for one of them is left alone for
    `circuit_open_s`, but for a probe. `resolve` and `tls` replace the system's name resolution and trusted
    certificates, for tests.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        failures: int = _DEFAULTS.failures_to_open_circuit,
        circuit_open_s: float = _DEFAULTS.circuit_open_s,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        # Separate, so that a file server that hangs stops neither URLs nor name resolution, and bulk work nothing live.
        self._path_slots = {bulk: FairSlots(concurrency) for bulk in (False, True)}
        self._url_slots = {bulk: FairSlots(concurrency) for bulk in (False, True)}
        self._file_calls = BlockingCalls(4 * concurrency)
        name_calls = BlockingCalls(4 * concurrency)
        self._circuit_open_s = circuit_open_s
        self._breakers = SourceBreakers(failures, circuit_open_s)
        self._urls = UrlFetcher(resolve or system_resolver(name_calls), self._breakers, tls=tls)

    async def open_content(
        self, event: Event, image_bytes: bytes | LargeImage | None, settings: SourcesSettings, turn: Turn | None = None
    ) -> Content:
        """The image of an event; the caller closes it. `image_bytes` is what `read_event` found in the message.

        `turn` is on whose behalf; by default live, for the event's instance.

        Raises CannotBeDone for what must not or cannot be opened, TryLater for what may become available later: not
        counted where the instance is over its share of the fetches, or the source's circuit is open. When
        this machine has run out of descriptors or memory, that is a ResourceExhausted or an OSError that `exhausted`
        knows.
        """
        content, turn = event.data.content, turn or Turn(event.data.instance)
        if isinstance(content, S3Content):
            with await self._url_slots[turn.bulk].take(turn.instance, f"the object {event.data.asset_id}"):
                return await self._urls.open_object(content, settings, turn.instance)
        match content.path, content.url:
            case str(path), _:
                with await self._path_slots[turn.bulk].take(turn.instance, f"the file {path!r}"):
                    return await self._open_path(path, settings, turn.instance)
            case _, str(url):
                with await self._url_slots[turn.bulk].take(turn.instance, without_secrets(url)):
                    return await self._urls.open_url(url, settings, turn.instance)
            case _:
                return open_inline(event, image_bytes, settings)

    async def start(self) -> None:
        """Connections are opened as they are needed."""

    async def close(self) -> None:
        """No connection is kept open. Hung calls are abandoned; their daemon threads end with the process."""
        self._urls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open_path(self, path: str, settings: SourcesSettings, instance: str) -> Content:
        """Ask the roots in turn, each through its own circuit: none is asked before one that comes first has answered.

        So a root that hangs holds up what is below it, and the relative paths that a root before it does not have.
        """
        for root in roots_of(path, settings):
            if (content := await self._open_below(root, path, settings, instance)) is not None:
                return content
        raise missing(path, settings)

    async def _open_below(self, root: str, path: str, settings: SourcesSettings, instance: str) -> Content | None:
        limit_s, holder = settings.total_timeout_s, f"{root} (for {instance})"
        breaker = self._breakers.of(instance, root)
        hangs_for_s = self._file_calls.hangs_for_s(holder)
        if hangs_for_s is not None and hangs_for_s < _PROBE_BESIDE_HUNG_S and breaker.half_open:
            raise TryLater(
                f"the file {path!r} waits: a call to {holder} has not come back for {hangs_for_s:.0f} s",
                reason=SOURCE_CIRCUIT_OPEN,
                after_s=self._circuit_open_s,
                counted=False,
            )

        async def open_in_thread() -> Content | None:
            try:
                return await self._file_calls.call(
                    partial(open_below, root, path, settings), timeout_s=limit_s, discard=_close, holder=holder
                )
            except TimeoutError as error:
                raise SourceFailed(
                    f"the file {path!r} could not be opened within {limit_s:g} s: does the file server answer?",
                    reason="content_unreachable",
                ) from error

        return await breaker.call(open_in_thread)


def _close(content: Content | None) -> None:
    if content is not None:
        content.close()
