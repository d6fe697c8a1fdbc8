"""The running parts of one connection: its inlet and its poller, built from its settings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from worker.amqp.topology import Lane
from worker.connect.client import SystemClient
from worker.connect.inlets.http import HttpInlet
from worker.connect.inlets.listing import BucketListing, Listing, RequestListing
from worker.connect.inlets.poll import Poller
from worker.connect.intake import UploadIntake
from worker.connect.metrics import InMetrics
from worker.connect.outlet import Outlet
from worker.connect.seen import Seen
from worker.connect.uploads import UploadMapping
from worker.settings import ConnectionSettings, SourcesSettings
from worker.settings.connect import ConnectionCredentialSettings
from worker.sources.s3 import bucket_url


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of the process use."""

    outlet: Outlet
    seen: Seen
    metrics: InMetrics
    sources: SourcesSettings


class Connection:
    """From `start` to `close`. `settings` are those it was built from."""

    def __init__(self, name: str, settings: ConnectionSettings, shared: Shared) -> None:
        self.name = name
        self.settings = settings
        intake = UploadIntake(name, Lane(settings.lane), shared.outlet, shared.seen, shared.metrics)
        self.inlet: HttpInlet | None = None
        self.poller: Poller | None = None
        self._client: SystemClient | None = None
        self._task: asyncio.Task[None] | None = None
        if settings.inlet.enabled:
            mapping = UploadMapping(name, settings, settings.inlet, "inlet")
            self.inlet = HttpInlet(settings.inlet, mapping, intake)
        if settings.poll.enabled:
            self._client, listing = listing_of(name, settings, shared.sources)
            self.poller = Poller(listing, settings.poll.every_s, intake, shared.seen, shared.metrics)

    def start(self) -> None:
        """Begin to list."""
        if self.poller is not None:
            self._task = asyncio.create_task(self.poller.run(), name=f"poll {self.name}")

    async def close(self) -> None:
        """Take nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._client is not None:
            await self._client.close()

    def status(self) -> dict[str, Any]:
        """Its state, as a JSON value."""
        status: dict[str, Any] = {"instance": self.settings.instance, "inlet": self.inlet is not None}
        if self.poller is not None:
            trouble = self.poller.trouble
            status["poll"] = {
                "last_complete_s": self.poller.last_complete_s,
                "trouble": None
                if trouble is None
                else {"reason": trouble.reason, "message": trouble.message, "since_s": trouble.since_s},
            }
        return status


def listing_of(name: str, settings: ConnectionSettings, sources: SourcesSettings) -> tuple[SystemClient, Listing]:
    """The listing of a connection whose poller is on, and the client that it uses, which the caller closes."""
    poll = settings.poll
    if poll.kind == "s3":
        service = sources.s3[settings.s3 or ""]
        url = str(bucket_url(poll.bucket or "", service))
        keys = {"access_key": service.access_key, "secret_key": service.secret_key}
        credential = ConnectionCredentialSettings(
            kind="sigv4", **keys, session_token=service.session_token, region=service.region
        )
        unsigned = ConnectionCredentialSettings()
        changes = {"url": url, "credential": credential if service.access_key is not None else unsigned}
        client = SystemClient(name, settings.model_copy(update=changes), sources)
        return client, BucketListing(poll, name, url, client)
    client = SystemClient(name, settings, sources)
    mapping = UploadMapping(name, settings, poll, "poll")
    return client, RequestListing(name, settings.url or "", poll, mapping, client)
