"""What is kept of an ended event on disk, and what may be searched for: plain values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

from worker.amqp.delivery import Ending
from worker.messages import ProviderReport, Tag
from worker.operations.history.results import truncate

if TYPE_CHECKING:
    from worker.operations.history.history import EndedDelivery

MAXIMUM_TAGS = 100
"""Of one result; the number of all of them is kept too."""

STATUSES = ("tagged", "no_tags", "skipped", "failed")

_ENCODER = json.JSONEncoder(separators=(",", ":"))
_TAG = tuple((each.name, each.default) for each in fields_of(Tag))
_PROVIDER_REPORT = tuple((each.name, each.default) for each in fields_of(ProviderReport))

_KEPT = (Ending.ANSWERED, Ending.DEAD_LETTERED)


@dataclass(frozen=True, slots=True)
class KeptResult:
    """How an event ended. `at_s`: seconds since 1970. `number`: its place in the file, 0 before it has one."""

    at_s: float
    asset_id: str
    instance: str
    file_name: str | None
    status: str
    reason: str | None
    message: str | None
    dead_lettered: bool
    complete: bool
    took_s: float
    tags: tuple[Tag, ...]
    number_of_tags: int
    providers: tuple[ProviderReport, ...]
    format: str | None
    width: int | None
    height: int | None
    number: int = 0

    @classmethod
    def of(cls, ended: EndedDelivery, clock_s: float) -> KeptResult | None:
        """What is kept of a delivery; None for one that comes again, or has neither a result nor an asset."""
        result = ended.result
        if ended.ending not in _KEPT or (result is None and ended.asset_id is None):
            return None
        image = result.image if result is not None else None
        message = ended.message or (result.message if result is not None else None)
        return cls(
            at_s=clock_s,
            asset_id=_text(ended.asset_id or (result.asset_id if result is not None else "")),
            instance=_text(ended.instance or ""),
            file_name=_text(truncate(ended.file_name)) if ended.file_name else None,
            status=ended.status or "failed",
            reason=ended.reason or (result.reason if result is not None else None),
            message=_text(truncate(message)) if message else None,
            dead_lettered=ended.ending is Ending.DEAD_LETTERED,
            complete=result.complete if result is not None else True,
            took_s=ended.took_s,
            tags=result.tags[:MAXIMUM_TAGS] if result is not None else (),
            number_of_tags=len(result.tags) if result is not None else 0,
            providers=result.providers if result is not None else (),
            format=image.format if image is not None else None,
            width=image.width if image is not None else None,
            height=image.height if image is not None else None,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for programs."""
        fields = asdict(self)
        del fields["number"]
        return fields

    def details(self) -> str:
        """What is not searched for, as JSON."""
        return _ENCODER.encode(
            {
                "message": self.message,
                "tags": [_without_defaults(_TAG, tag) for tag in self.tags],
                "number_of_tags": self.number_of_tags,
                "providers": [_report(report) for report in self.providers],
                "image": (self.format, self.width, self.height),
            }
        )


def with_details(fields: dict[str, Any], details: str) -> KeptResult:
    """The result whose `details()` were kept. Raises ValueError, KeyError or TypeError for anything else.

    Names that are not known are passed over: another version may have written them.
    """
    kept = json.loads(details)
    form, width, height = kept["image"]
    return KeptResult(
        **fields,
        message=kept["message"],
        tags=tuple(Tag(**_known(Tag, each)) for each in kept["tags"]),
        number_of_tags=kept["number_of_tags"],
        providers=tuple(ProviderReport(**_known(ProviderReport, each)) for each in kept["providers"]),
        format=form,
        width=width,
        height=height,
    )


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """What is searched for: results that match every given field, the newest first.

    `asset`: a part of the asset's id or file name; `tag`: one whole, in any case; the others: exactly. `since_s`:
    seconds since 1970. `before`: only those with a smaller number, for the next page.
    """

    asset: str | None = None
    instance: str | None = None
    status: str | None = None
    tag: str | None = None
    since_s: float | None = None
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """What was found. `more`: there may be further ones; `in_time`: whether all was looked through in time."""

    results: tuple[KeptResult, ...]
    more: bool
    in_time: bool = True


def _report(report: ProviderReport) -> dict[str, Any]:
    fields = _without_defaults(_PROVIDER_REPORT, report)
    if report.message is not None:
        fields["message"] = truncate(report.message)
    return fields


def _without_defaults(defaults: tuple[tuple[str, Any], ...], value: Tag | ProviderReport) -> dict[str, Any]:
    """The fields that are not as they are by default: a fraction of the text, in a fraction of the time of `asdict`."""
    return {name: found for name, default in defaults if (found := getattr(value, name)) != default}


def _known(kind: Any, fields: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in fields.items() if name in kind.__dataclass_fields__}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}


def _text(text: str) -> str:
    """Text that SQLite takes: a name that is not UTF-8 has lone surrogates, which become "?"."""
    return text.encode(errors="replace").decode()
