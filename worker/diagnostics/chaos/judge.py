"""The judge of a chaos run: what is wrong with one result or dead letter, given how its event has to end. Pure.

A kill from outside is never an image's fault, so no good image may fail for it: not one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from worker.diagnostics.chaos.workload import Expectation, ExpectedEnd
from worker.providers.base import TENSORFLOW

_ROUNDING = 1e-4
"""Confidences are published with four decimals."""


class Flaw(StrEnum):
    """What makes a run unsound, of one event or result."""

    LOST = "lost"
    """An event without an end."""
    SECOND_END = "second_end"
    """An event with two different ends: two final results that differ, or a dead letter beside an answer."""
    DIFFERING_DUPLICATE = "differing_duplicate"
    """Results with the same message id that differ in more than measured times and the trace."""
    STRANGER = "stranger"
    """A result or dead letter that belongs to no published event, or cannot be read."""
    BLAMED = "blamed"
    """A good image that failed."""
    UNTAGGED = "untagged"
    """A good image that was answered without its tags: `no_tags`, or `skipped` by a tenant that is switched on."""
    WRONG_LABEL = "wrong_label"
    """A result without the labels that its image is known to have, or about another image."""
    WRONG_TENANT = "wrong_tenant"
    """A result that another tenant's providers or settings had a part in."""
    MISJUDGED = "misjudged"
    """A bad image, or one of a tenant that is switched off, that was answered like a good one."""
    WRONG_REASON = "wrong_reason"
    """An event that had to fail or to be skipped, and did so for another reason."""


MEANING: Mapping[Flaw, str] = {
    Flaw.LOST: "no end: no final result, and no dead letter",
    Flaw.SECOND_END: "two different ends: final results that differ, or a dead letter beside an answer",
    Flaw.DIFFERING_DUPLICATE: "two results under one message id that differ",
    Flaw.STRANGER: "of no published event, or not readable",
    Flaw.BLAMED: "failed, and the image is good",
    Flaw.UNTAGGED: "answered without tags, and the image is good",
    Flaw.WRONG_LABEL: "without the labels that the image has undisturbed, or about another image",
    Flaw.WRONG_TENANT: "with parts of another tenant's providers or settings",
    Flaw.MISJUDGED: "answered like a good image, instead of failed or skipped",
    Flaw.WRONG_REASON: "failed or skipped for another reason than the right one",
}
"""What is wrong with an event that has the flaw, in words."""


def flaws_of_result(expected: Expectation, data: Mapping[str, Any]) -> set[Flaw]:
    """What is wrong with a result; `data` is that of its body."""
    status, final = data["status"], data["complete"]
    found = set()
    if data["instance"] != expected.instance:
        found.add(Flaw.WRONG_TENANT)
    if data["asset_id"] != expected.asset_id:
        found.add(Flaw.WRONG_LABEL)
    match expected.end:
        case ExpectedEnd.TAGGED if status == "tagged":
            found.update(_flaws_of_tags(expected, data))
        case ExpectedEnd.TAGGED if status == "failed":
            found.add(Flaw.BLAMED)
        case ExpectedEnd.TAGGED:
            if final:  # an incomplete one may have no tags yet
                found.add(Flaw.UNTAGGED)
        case ExpectedEnd.SKIPPED | ExpectedEnd.FAILED if status == expected.end.value and final:
            if data["reason"] not in expected.reasons:
                found.add(Flaw.WRONG_REASON)
        case ExpectedEnd.SKIPPED if status == "failed":
            found.add(Flaw.BLAMED)
        case _:
            found.add(Flaw.MISJUDGED)
    return found


def flaws_of_dead_letter(expected: Expectation, reason: str | None) -> set[Flaw]:
    """What is wrong with a dead letter; `reason` is its header, None without one."""
    if expected.end in (ExpectedEnd.TAGGED, ExpectedEnd.SKIPPED):
        return {Flaw.BLAMED}
    return set() if reason in expected.reasons else {Flaw.WRONG_REASON}


def lacks_model(data: Mapping[str, Any]) -> bool:
    """Whether a final result was made while the local model was disabled, from another provider's answer alone."""
    return bool(data["complete"]) and data["status"] == "tagged" and _unavailable(data, TENSORFLOW)


def _flaws_of_tags(expected: Expectation, data: Mapping[str, Any]) -> Iterator[Flaw]:
    reports = {report["name"]: report["status"] for report in data["providers"]}
    tags = data["tags"]
    if set(reports) != set(expected.labels) or any(tag["provider"] not in expected.labels for tag in tags):
        yield Flaw.WRONG_TENANT
    if expected.maximum_tags and len(tags) > expected.maximum_tags:
        yield Flaw.WRONG_TENANT
    local = [tag["confidence"] for tag in tags if tag["provider"] == TENSORFLOW]
    if min(local, default=1.0) < expected.threshold - _ROUNDING:
        yield Flaw.WRONG_TENANT
    if data["image"] is None or data["image"]["sha256"] != expected.sha256:
        yield Flaw.WRONG_LABEL
    named = {(tag["provider"], tag["name"]) for tag in tags}
    for provider, label in expected.labels.items():
        if provider == TENSORFLOW and _unavailable(data, provider):
            continue  # the model was disabled; whether it may have been is for the run to judge
        if reports.get(provider) != "ok" and not data["complete"]:
            continue  # it is still to come
        if (provider, label) not in named:
            yield Flaw.WRONG_LABEL


def _unavailable(data: Mapping[str, Any], provider: str) -> bool:
    others = [report["status"] for report in data["providers"] if report["name"] != provider]
    mine = [report["status"] for report in data["providers"] if report["name"] == provider]
    return mine == ["unavailable"] and "ok" in others
