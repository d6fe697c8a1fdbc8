"""Advice exists for reasons that exist, and for every refusal that an operator can mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import worker
from worker.diagnostics import advice
from worker.providers.google_errors import REASONS

SOURCES = Path(worker.__file__).parent.rglob("*.py")
LITERALS = {
    word for file in SOURCES if file.name != "advice.py" for word in re.findall(r'"([a-z0-9_]+)"', file.read_text())
}
KNOWN_REASONS = LITERALS | {"model_disabled"}  # composed of the pool's name and `disabled`


@pytest.mark.parametrize("reason", advice.ADVICE)
def test_advice_is_given_for_reasons_that_exist(reason: str) -> None:
    assert reason in KNOWN_REASONS


@pytest.mark.parametrize("reason", sorted({*REASONS.values()}))
def test_every_refusal_that_an_operator_can_mend_has_its_advice(reason: str) -> None:
    assert advice.advice(reason, "provider") != advice.advice("anything else", "provider")
