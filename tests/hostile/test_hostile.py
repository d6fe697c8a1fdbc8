"""Some of the hostile files through a real decoder; `make hostile` sends ten thousand through a whole service."""

from __future__ import annotations

import itertools

from tests.hostile import files
from tests.hostile.run import HEAD, Kind, _outcome
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool

QUICK_BOMBS = (
    "JPEG of filling alone",
    "PNG that claims 2^31 pixels a side",
    "TIFF whose directories go round",
    "WebP of 34 bytes and 49 megapixels",
    "WebP of 34 bytes and 268 megapixels",
)

MUTATIONS = 252
"""Fourteen of each of 18 kinds of picture: some thirty are found corrupt."""


async def test_every_hostile_file_is_decoded_or_refused_with_a_reason_by_the_same_decoder() -> None:
    bombs = files.bombs()
    chosen = itertools.chain(
        ((name, bombs[name]()) for name in QUICK_BOMBS), files.polyglots().items(), files.mutations(MUTATIONS, seed=7)
    )
    outcomes = Kind()
    async with DecoderPool(DecoderOptions()) as pool:
        await pool.wait_started()
        (before,) = [state.pid for state in pool.states()]
        for name, data in chosen:
            outcome = await _outcome(pool, data)
            assert outcome == "decoded" or outcome.startswith("image_"), name
            assert outcome not in ("image_killed_decoder", "image_too_slow"), name
            outcomes.outcomes[outcome] += 1
        assert before in [state.pid for state in pool.states()]
    assert outcomes.outcomes["decoded"] > 20
    assert outcomes.outcomes["image_corrupt"] > 20
    assert outcomes.row("all").count("|") == HEAD.splitlines()[0].count("|")
