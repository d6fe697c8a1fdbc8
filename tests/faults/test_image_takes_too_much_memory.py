"""A real file exhausts the memory of a decoder: few bytes, allowed pixels, more memory than a decoder may use."""

from __future__ import annotations

from tests.support.bombs import png_of_many_pixels
from tests.support.processes import gone
from tests.support.scene import Scene


def test_an_image_that_needs_more_memory_than_allowed_is_refused_by_name_among_good_ones(it: Scene) -> None:
    bomb = it.folder / "navy.png"
    bomb.write_bytes(png_of_many_pixels())
    model = it.child("model")

    before = it.load(20)
    (bad,) = it.ledger.publish(bomb, asset_id="navy blue")
    after = it.load(20)
    it.ledger.settle()

    (result,) = it.ledger.results[bad]
    assert (result.data["status"], result.data["reason"]) == ("failed", "image_too_large_memory")
    assert "navy" in result.data["message"]
    assert set(it.ledger.dead) == {bad}
    assert it.ledger.dead[bad][0].properties.headers["x-autotag-asset"] == "navy blue"
    assert it.ledger.statuses([*before, *after]) == {"tagged"}
    assert not gone(model)
