"""The events of a chaos run, and how each has to end: decided before the first fault, and a function of the seed.

Several tenants take part, each with settings of its own, so that an answer made with another one's settings shows.
Photographs come by path, by URL, inside the event and as the message itself, in both lanes; among them are events with
every defect that an upload can have.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from worker.amqp.topology import Lane
from worker.errors import Misconfigured
from worker.messages import EVENT_TYPE
from worker.messages.events import CLOUDEVENTS_JSON
from worker.providers.base import GOOGLE_CLOUD_VISION, MICROSOFT_VISION, TENSORFLOW

BAD_SHARE = 0.05

GOOGLE_KEY = "autotag-chaos-google-0123456789"
MICROSOFT_KEY = "autotag-chaos-microsoft-0123456789"
"""The keys with which the stand-ins of the cloud services are called; each belongs to one tenant."""

LOCAL_TENANT = "local"
"""The tenant that has nothing but the local model: its events wait while the model is disabled."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

_BULK_EVERY = 4
"""One event in so many is bulk work."""

ContentKind = Literal["path", "url", "base64", "body", "none"]
"""How an event carries its image; `none`: it is no event at all."""

_KIND_WEIGHTS: dict[ContentKind, int] = {"path": 3, "url": 1, "base64": 1, "body": 1}


class ExpectedEnd(StrEnum):
    """How an event has to end."""

    TAGGED = "tagged"
    """With a complete result that has the labels known beforehand."""
    SKIPPED = "skipped"
    """With a result, as its tenant is switched off."""
    FAILED = "failed"
    """With a `failed` result and a dead letter."""
    DEAD_LETTERED = "dead_lettered"
    """With a dead letter only: no asset id can be read, so there is no result to publish."""


@dataclass(frozen=True, slots=True, eq=False)
class Tenant:
    """An instance that takes part: its table of settings, and what can be seen of them in its results."""

    name: str
    settings: Mapping[str, Any]
    providers: frozenset[str]
    """Those that are switched on; none: the tenant itself is switched off."""
    threshold: float = 0.0
    """No tag of the local model is below this."""
    maximum_tags: int = 0
    """0: any number."""
    weight: int = 1
    """Its share of the events, against those of the others."""


def tenants(google_endpoint: str | None, microsoft_endpoint: str | None) -> tuple[Tenant, ...]:
    """The tenants of a run: those with a cloud service only where its endpoint is named."""
    local = {"enabled": True, "tags": "labels"}
    found = [
        Tenant(LOCAL_TENANT, {"tensorflow": local}, frozenset({TENSORFLOW}), threshold=0.1, weight=3),
        Tenant(
            "strict",
            {"tensorflow": local | {"confidence_threshold": 0.3}, "maximum_number_of_tags_per_asset": 1},
            frozenset({TENSORFLOW}),
            threshold=0.3,
            maximum_tags=1,
            weight=2,
        ),
        Tenant("switched-off", {"enabled": False, "tensorflow": local}, frozenset()),
    ]
    if google_endpoint is not None:
        google = {"enabled": True, "endpoint": google_endpoint, "api_key": GOOGLE_KEY}
        found.append(
            Tenant(
                "both",
                {"tensorflow": local, GOOGLE_CLOUD_VISION: google, "provider_wait_s": 0.2},
                frozenset({TENSORFLOW, GOOGLE_CLOUD_VISION}),
                threshold=0.1,
            )
        )
    if microsoft_endpoint is not None:
        microsoft = {"enabled": True, "api_endpoint": microsoft_endpoint, "api_key": MICROSOFT_KEY}
        found.append(Tenant("cloud", {MICROSOFT_VISION: microsoft}, frozenset({MICROSOFT_VISION})))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Expectation:
    """All that is known beforehand about an event's end."""

    end: ExpectedEnd
    instance: str = ""
    asset_id: str = ""
    reasons: frozenset[str] = frozenset()
    """One of these is the reason of a skipped or failed result and of a dead letter."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """By provider, for every provider that is asked: a tag that it gives to this image when nothing disturbs it."""
    sha256: str | None = None
    threshold: float = 0.0
    maximum_tags: int = 0


@dataclass(frozen=True, slots=True)
class EventMessage:
    """An event as it is published."""

    body: bytes
    content_type: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """An event to publish. `event_id` is the AMQP message id too; `content` is a path, a URL or the image itself."""

    event_id: str
    expected: Expectation
    lane: Lane = Lane.LIVE
    kind: ContentKind = "path"
    content: str | bytes = ""

    def message(self) -> EventMessage:
        """The message, made only when it is published: ten thousand images would not fit into memory."""
        if self.kind == "none":
            return EventMessage(b'{"specversion": "1.0", "id": "cut o', CLOUDEVENTS_JSON, {})
        expected = self.expected
        attributes = {"specversion": "1.0", "id": self.event_id, "source": "autotag chaos", "type": EVENT_TYPE}
        if isinstance(self.content, bytes) and self.kind == "body":
            own = attributes | {"assetid": expected.asset_id, "instance": expected.instance}
            return EventMessage(self.content, "image/jpeg", {f"cloudEvents:{name}": text for name, text in own.items()})
        text = self.content if isinstance(self.content, str) else base64.b64encode(self.content).decode()
        data = {"asset_id": expected.asset_id, "instance": expected.instance, "content": {self.kind: text}}
        return EventMessage(json.dumps({**attributes, "data": data}).encode(), CLOUDEVENTS_JSON, {})


Labels = Mapping[tuple[str, Path], Mapping[str, str]]
"""By tenant and photograph: a label of each of its providers. What is not named was not tagged by all of them."""


def photographs_in(directory: Path) -> list[Path]:
    """The image files of a directory. Raises Misconfigured when there are none."""
    found = sorted(file for file in directory.resolve().iterdir() if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise Misconfigured(f"there are no JPEG, PNG or WebP files in {directory}; name a directory of photographs")
    return found


def plan(
    seed: int, events: int, taking_part: Sequence[Tenant], known: Labels, folder: Path, served: str | None = None
) -> list[PlannedEvent]:
    """The events of a run, the same for the same seed. Bad files are written into `folder`.

    `served`: the address under which the photographs can be fetched; None: no event has a URL.
    """
    randomly = random.Random(seed + 1)  # noqa: S311 - it has to be repeatable
    good = _good_events(randomly, taking_part, known, served)
    # A file that is not there is looked for again after each delay: early, so that the end of a run need not wait.
    defects = list(_defects(min((file for _, file in known), default=None), folder, served))
    number_bad = min(events // 2, max(len(defects), round(events * BAD_SHARE)))
    bad = dict(zip(sorted(randomly.sample(range(events * 2 // 3), number_bad)), itertools.cycle(defects), strict=False))
    planned = []
    for number in range(events):
        event_id = str(uuid.UUID(int=randomly.getrandbits(128), version=4))
        lane = Lane.BULK if number % _BULK_EVERY == 1 else Lane.LIVE
        kind, content, make = bad.get(number) or next(good)
        planned.append(PlannedEvent(event_id, make(f"asset-{number}"), lane, kind, content))
    return planned


@dataclass(frozen=True, slots=True)
class _Maker:
    """An expectation that lacks only the asset's id."""

    end: ExpectedEnd
    tenant: Tenant | None = None
    reasons: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None

    def __call__(self, asset_id: str) -> Expectation:
        tenant = self.tenant
        return Expectation(
            self.end,
            instance=tenant.name if tenant else LOCAL_TENANT,
            asset_id=asset_id,
            reasons=frozenset(self.reasons),
            labels=self.labels,
            sha256=self.sha256,
            threshold=tenant.threshold if tenant else 0.0,
            maximum_tags=tenant.maximum_tags if tenant else 0,
        )


_Recipe = tuple[ContentKind, str | bytes, _Maker]


def _good_events(
    randomly: random.Random, taking_part: Sequence[Tenant], known: Labels, served: str | None
) -> Iterator[_Recipe]:
    """Photographs without end. Each tenant has its share of every kind of content, in an order of its own each time."""
    images = {file: file.read_bytes() for file in sorted({file for _, file in known})}
    kinds = [kind for kind, weight in _KIND_WEIGHTS.items() if kind != "url" or served for _ in range(weight)]
    deck = [(tenant, kind) for tenant in taking_part for kind in kinds for _ in range(tenant.weight)]
    while True:
        randomly.shuffle(deck)
        for tenant, kind in deck:
            file = randomly.choice([each for name, each in known if name == tenant.name or not tenant.providers])
            if tenant.providers:
                digest = hashlib.sha256(images[file]).hexdigest()
                make = _Maker(ExpectedEnd.TAGGED, tenant, labels=known[tenant.name, file], sha256=digest)
            else:
                make = _Maker(ExpectedEnd.SKIPPED, tenant, ("instance_disabled",))
            yield kind, _content(kind, file, images[file], served), make


def _content(kind: ContentKind, file: Path, image: bytes, served: str | None) -> str | bytes:
    match kind:
        case "path":
            return str(file)
        case "url":
            return f"{served}/{quote(file.name)}"
        case _:
            return image


def _defects(photograph: Path | None, folder: Path, served: str | None) -> Iterator[_Recipe]:
    """Everything that can be wrong with an upload, each with the reason that its failure has to give."""

    def failed(*reasons: str) -> _Maker:
        return _Maker(ExpectedEnd.FAILED, reasons=reasons)

    whole = photograph.read_bytes() if photograph is not None else b""
    files = {
        "truncated.jpg": (whole[: len(whole) // 2], failed("image_truncated", "image_corrupt")),
        "text.jpg": (b"This is no picture, whatever its name says.\n", failed("image_unrecognised")),
        "empty.jpg": (b"", failed("content_empty")),
        "only-a-header.png": (b"\x89PNG\r\n\x1a\n", failed("image_truncated", "image_corrupt")),
    }
    for name, (content, make) in files.items():
        (folder / name).write_bytes(content)
        yield "path", str(folder / name), make
    yield "path", str(folder / "missing.jpg"), failed("content_missing")
    yield "path", "/etc/hostname", failed("path_outside_roots")
    yield "base64", b"This is no picture either.\n", failed("image_unrecognised")
    yield "none", "", _Maker(ExpectedEnd.DEAD_LETTERED, reasons=("event_not_json",))
    if served is not None:
        yield "url", f"{served}/no-such-picture.jpg", failed("content_missing")
    yield "url", "http://elsewhere.invalid/picture.jpg", failed("url_host_not_allowed")
