"""Pixels that kill the model child every time it sees them must not switch tagging off for everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.scene import Scene, scene


@pytest.fixture
def usual(broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]) -> Iterator[Scene]:
    """A service with the relaunch rule as it is by default."""
    rule = {
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "5",
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "60",
    }
    with scene(broker, queue_prefix, tmp_path, photographs, **rule) as it:
        yield it


def test_a_poison_image_is_set_aside_after_four_crashes_and_the_model_is_not_disabled(usual: Scene) -> None:
    # Given an image whose pixels kill the model child, in the middle of good ones
    poison = usual.folder / "magenta.png"
    Image.new("RGB", (300, 300), (255, 0, 255)).save(poison)
    usual.orders.poison(True)
    before = usual.load(20)
    (bad,) = usual.ledger.publish(poison, asset_id="poison")
    after = usual.load(20)
    # When all have ended
    usual.ledger.settle()
    # Then it was in hand at four crashes, and is a dead letter that says so
    assert len(usual.logged("child crashed", reason="killed_by_sigsegv")) == 4
    assert set(usual.ledger.dead) == {bad}
    headers = usual.ledger.dead[bad][0].properties.headers
    assert headers["x-autotag-reason"] == "image_in_hand_at_model_crashes"
    assert "4 crashes" in headers["x-autotag-message"]
    # And its neighbours have their tags, and the model goes on
    assert usual.ledger.statuses([*before, *after]) == {"tagged"}
    assert (usual.service.status() or {})["model"]["disabled"] is None
