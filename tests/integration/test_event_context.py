"""The publisher's context is in the result after retries, and in the dead letter, whose replay has it again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support.polling import until
from tests.support.service import Message
from tests.support.tenants import tenancy
from worker.messages.examples import EVENT_DATA

CONTEXT = {"bucket": "b", "key": "é/1.jpg", "version": None, "sizes": [1, 2.5, 10**20]}


def context_of(message: Message) -> object:
    return message.data["context"]


def test_the_context_comes_back_after_retries_and_after_a_replay(broker: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    prefix = f"test-context-{os.getpid()}"
    with tenancy(
        broker,
        prefix,
        tmp_path / "service",
        instances={"acme": {"tensorflow": {"enabled": True}}},
        sources={"path_roots": [str(tmp_path / "images")]},
        retry={"delays_s": [1, 3, 5], "maximum_number_of_attempts": 2},
    ) as it:
        # Given an event whose file never comes, and one that cannot be read
        event = it.dms.publish({"path": "missing.jpg"}, instance="acme", context=CONTEXT)
        it.dms.publish_body(json.dumps(EVENT_DATA | {"content": {}, "context": CONTEXT}).encode(), message_id="bad")
        # When their attempts are over
        results = it.dms.results_of([event, "bad"])
        # Then the failed results have it
        assert [context_of(each) for each in results[event]] == [CONTEXT]
        assert [context_of(each) for each in results["bad"]] == [CONTEXT]
        # And a dead letter that is replayed still does
        until(lambda: it.dms.depth("dead-letters") == 2, "both were dead-lettered, which is done after their results")
        replayed = it.service.autotag("dead-letters", "replay", "--reason", "content_missing")
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr
        assert [context_of(each) for each in it.dms.results_of([event])[event]] == [CONTEXT]
