"""Real files that have their decoder killed: each takes far more processor time than one image is allowed."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.bombs import jpeg_of_many_scans
from tests.support.processes import gone
from tests.support.scene import Scene

KILLERS = 5
GOOD = 500


def test_an_image_that_takes_too_long_fails_once_with_signal_stage_and_digest(it: Scene) -> None:
    content = jpeg_of_many_scans(shade=1)
    (it.folder / "bomb.jpg").write_bytes(content)

    (bad,) = it.ledger.publish(it.folder / "bomb.jpg", asset_id="a bomb")
    good = it.load(20)
    it.ledger.settle()

    # It had all the time that there is, once, in the slow lane
    deaths = it.logged("child killed by its work")
    assert [(death["child"], "SIGXCPU" in death["cause"]) for death in deaths] == [("decoder-slow-1", True)]
    (result,) = it.ledger.results[bad]
    assert (result.data["status"], result.data["reason"]) == ("failed", "image_too_slow")
    for evidence in ("a bomb", "bomb.jpg", "SIGXCPU", "decode", hashlib.sha256(content).hexdigest()):
        assert evidence in result.data["message"]
    (letter,) = it.ledger.dead[bad]
    assert letter.properties.headers["x-autotag-reason"] == "image_too_slow"
    assert it.ledger.statuses(good) == {"tagged"}


@pytest.mark.slow_fault
def test_five_killers_among_five_hundred_affect_no_other_image_and_count_as_no_crash(it: Scene) -> None:
    model = it.child("model")
    bad = []
    for number in range(KILLERS):
        it.load(GOOD // KILLERS)
        file = it.folder / f"killer-{number}.jpg"
        file.write_bytes(jpeg_of_many_scans(shade=number))
        bad += it.ledger.publish(file, asset_id=f"killer {number}")

    it.ledger.settle(within_s=120)

    assert len(it.logged("child killed by its work")) == KILLERS
    failed = {key: messages for key, messages in it.ledger.results.items() if messages[0].data["status"] == "failed"}
    assert set(failed) == set(bad) == set(it.ledger.dead)
    for number, key in enumerate(bad):
        assert f"killer {number}" in failed[key][0].data["message"]
    good = it.ledger.published - set(bad)
    assert len(good) == GOOD
    assert it.ledger.statuses(good) == {"tagged"}
    # No crash is counted, and the model child is still the same
    assert it.logged("child crashed") == []
    assert not gone(model)
    assert it.child("model").pid == model.pid
