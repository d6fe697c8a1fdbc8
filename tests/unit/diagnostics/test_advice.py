"""What is advised for a failure: for each reason that exists, and for none that does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import worker
from worker.diagnostics import advice
from worker.providers.google_errors import REASONS

SOURCES = Path(worker.__file__).parent.rglob("*.py")
WORDS = {word for file in SOURCES if file.name != "advice.py" for word in re.findall(r'"([a-z_]+)"', file.read_text())}
REASONS_THERE_ARE = WORDS | {"model_disabled"}  # put together of the pool's name and a word


@pytest.mark.parametrize("reason", advice._OF_REASONS)
def test_advice_is_given_for_reasons_that_exist(reason: str) -> None:
    assert reason in REASONS_THERE_ARE


@pytest.mark.parametrize("reason", sorted({*REASONS.values()}))
def test_every_refusal_that_an_operator_can_mend_has_its_advice(reason: str) -> None:
    assert advice.advice(reason, "provider") != advice.advice("anything else", "provider")
