"""Results become tags in a target: what people have set stays, what they removed stays away, nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.delivering import delivering
from tests.support.fake_targets import PLAIN, FakeTarget, PlainTarget, Reply, serving_target
from tests.support.polling import eventually


@pytest.fixture
def plain() -> Iterator[PlainTarget]:
    target = PlainTarget()
    with serving_target(target):
        yield target


def plain_connection(target: FakeTarget, **changes: Any) -> dict[str, Any]:
    return {**PLAIN, "url": target.url, "target": {**PLAIN["target"], **changes}}


async def test_a_persons_tag_stays_and_one_that_a_person_removed_stays_away(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = ["Holiday", "CAT"]
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        it.results.result("7", ["cat", "sofa", "lamp"])
        await eventually(lambda: it.counted("written") == 1, "it is written")
        assert plain.assets["7"] == ["Holiday", "CAT", "sofa", "lamp"]
        # When a person removes one of ours, and the picture changes
        plain.assets["7"].remove("sofa")
        it.results.result("7", ["sofa", "dog"], minute=1)
        await eventually(lambda: it.counted("written") == 2, "it is written")
        # Then that stays away, and what is ours and no longer wanted is gone
        assert plain.assets["7"] == ["Holiday", "CAT", "dog"]
        labels = {"connection": "photos", "label": "sofa", "provider": "tensorflow"}
        assert it.registry.get_sample_value("autotag_connect_tags_removed_by_people_total", labels) == 1
        # And what says nothing about tags, or nothing new, writes nothing
        before = len(plain.writes)
        it.results.result("7", ["sofa", "dog"], minute=2)
        it.results.result("7", [], minute=3, status="failed")
        it.results.result("7", ["bird"], minute=4, connect="other")
        it.results.result("7", ["bird"], minute=5, instance="acme", connect="photos") if False else None
        await eventually(lambda: it.counted("unchanged") + it.counted("failed") + it.counted("foreign") == 3, "all end")
        assert len(plain.writes) == before
        it.results.result("7", [], minute=6)
        await eventually(lambda: it.counted("written") == 3, "it is written")
        assert plain.assets["7"] == ["Holiday", "CAT"]
        assert it.results.waiting() == 0
        assert it.results.dead_letters() == []
