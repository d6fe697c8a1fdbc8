"""Pixels that kill the model child every time must not disable tagging for all other images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.scene import Scene, scene


@pytest.fixture
def with_default_rule(broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]) -> Iterator[Scene]:
    """A service with the default relaunch rule."""
    rule = {
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "5",
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "60",
    }
    with scene(broker, queue_prefix, tmp_path, photographs, **rule) as it:
        yield it


def test_a_poison_image_fails_after_four_crashes_and_the_model_is_not_disabled(with_default_rule: Scene) -> None:
    it = with_default_rule
    # Given an image whose pixels kill the model child, among good ones
    poison = it.folder / "magenta.png"
    Image.new("RGB", (300, 300), (255, 0, 255)).save(poison)
    it.faults.poison(True)
    before = it.load(20)
    (bad,) = it.ledger.publish(poison, asset_id="poison")
    after = it.load(20)
    # When all have ended
    it.ledger.settle()
    # Then it was in hand at four crashes, and its dead letter gives that reason
    assert len(it.logged("child crashed", reason="killed_by_sigsegv")) == 4
    assert set(it.ledger.dead) == {bad}
    headers = it.ledger.dead[bad][0].properties.headers
    assert headers["x-autotag-reason"] == "image_in_hand_at_model_crashes"
    assert "4 crashes" in headers["x-autotag-message"]
    # And the other images have their tags, and the model is not disabled
    assert it.ledger.statuses([*before, *after]) == {"tagged"}
    assert (it.service.status() or {})["model"]["disabled"] is None
