"""`autotag check`, where it needs no service: what it finds out from the settings alone."""

from __future__ import annotations

from typing import Any

import pytest

from worker.diagnostics import preflight
from worker.settings import Settings

KEY = "k" * 32


@pytest.mark.parametrize(
    ("amqp", "status"),
    [
        ({}, "warning"),
        ({"password": "guest"}, "warning"),
        ({"password": ""}, "warning"),
        ({"password": "secret"}, "ok"),
        ({"url": "amqp://autotag:secret@host/"}, "ok"),
        ({"header_key": KEY}, "ok"),
    ],
    ids=str,
)
async def test_a_header_key_made_of_a_password_that_everybody_knows_is_a_warning(
    amqp: dict[str, Any], status: str
) -> None:
    check = await preflight._headers(Settings.model_validate({"amqp": amqp}))
    assert check.status == status
    assert ("amqp.header_key" in check.message) == ("header_key" in amqp or status == "warning")
    assert KEY not in check.message
