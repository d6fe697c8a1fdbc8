"""What an answer of a target means: a page to sign in is no success, and an answer without a page is one."""

from __future__ import annotations

import pytest

from worker.connect.targets.answers import raise_unless_done
from worker.connect.targets.base import TargetRefused
from worker.connect.targets.client import TargetAnswer
from worker.settings import ConnectionSettings

SETTINGS = ConnectionSettings().target


def answer(content_type: str, body: bytes, status: int = 200) -> TargetAnswer:
    return TargetAnswer(status, {"content-type": content_type}, body, "PUT /x", body.decode())


@pytest.mark.parametrize("content_type", ["text/html", "TEXT/HTML; charset=utf-8", "application/xhtml+xml"])
def test_a_page_in_place_of_an_answer_is_a_refusal(content_type: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        raise_unless_done(answer(content_type, b"<h1>Sign in</h1>"), SETTINGS)
    assert refused.value.reason == "web_page"


@pytest.mark.parametrize("body", [b"", b" \r\n"])
@pytest.mark.parametrize("status", [200, 201, 204])
def test_an_answer_without_a_body_is_no_page_whatever_the_server_calls_it(status: int, body: bytes) -> None:
    raise_unless_done(answer("text/html; charset=utf-8", body, status), SETTINGS)
