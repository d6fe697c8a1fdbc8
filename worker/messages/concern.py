"""Which asset and instance an event that cannot be read seems to concern, so that its sender gets an answer.

A result for the wrong asset is worse than none: of two values that contradict each other neither is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError

from worker.messages.fields import GivenAssetId, GivenInstance

_ASSET_ID: TypeAdapter[str] = TypeAdapter(GivenAssetId)
_INSTANCE: TypeAdapter[str] = TypeAdapter(GivenInstance)

_HEAD_BYTES: Final = 1 << 16
_VALUE: Final = rb'"%s"\s*:(?:\s*(?:"([^"\\\x00-\x1f\x7f]{1,1024})"|(-?[0-9]{1,1024})(?=[\s,}])))?'
"""A field with a text without escapes or a whole number; without a group where it has another value."""


@dataclass(frozen=True, slots=True)
class Concern:
    """The asset and the instance, each None where it cannot be known."""

    asset_id: str | None = None
    instance: str | None = None

    def or_else(self, other: Concern) -> Concern:
        """This one if it names an asset, else the other, with this one's instance where that names none."""
        if self.asset_id is not None:
            return self
        return Concern(other.asset_id, other.instance or self.instance)


def concern_in(fields: Mapping[str, object]) -> Concern:
    """What the fields `asset_id` and `instance` name, as far as they are valid."""
    return Concern(_valid(_ASSET_ID, fields.get("asset_id")), _valid(_INSTANCE, fields.get("instance")))


def concern_in_text(body: bytes) -> Concern:
    """What JSON that is broken, or too large to be parsed, names within its first 64 KiB."""
    head = body[:_HEAD_BYTES]
    return concern_in({name: _only_value(name, head) for name in ("asset_id", "instance")})


def _only_value(name: str, head: bytes) -> str | None:
    """The value that a field has wherever its name is; None where it has several, or one that is not seen as it is."""
    found = {text or digits or None for text, digits in re.findall(_VALUE % name.encode(), head)}
    value = found.pop() if len(found) == 1 else None
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return None


def _valid(kind: TypeAdapter[str], value: object) -> str | None:
    try:
        return kind.validate_python(value, strict=True) or None
    except ValidationError:
        return None
