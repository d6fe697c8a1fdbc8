"""The files for RabbitMQ's administrator say what the code declares."""

import json
import re
import runpy
from pathlib import Path

import pytest

from worker.amqp.topology import topology
from worker.settings import Settings

RABBITMQ = Path(__file__).parents[3] / "deploy" / "rabbitmq"
SETTINGS = Settings()
LAYOUT = topology(SETTINGS.amqp.queue_prefix, SETTINGS.retry.delays_s)


def policies() -> list[dict[str, object]]:
    return json.loads((RABBITMQ / "policies.json").read_text())["policies"]


def test_the_definitions_are_those_of_the_code() -> None:
    text = runpy.run_path(str(RABBITMQ / "write_definitions.py"))["text"]
    checked_in = (RABBITMQ / "definitions.json").read_text()
    assert checked_in == text(SETTINGS.amqp.queue_prefix), "run python deploy/rabbitmq/write_definitions.py"


@pytest.mark.parametrize("policy", policies(), ids=lambda policy: str(policy["name"]))
def test_a_policy_reaches_its_queues_and_overrides_none_of_their_arguments(policy: dict[str, object]) -> None:
    pattern, definition = str(policy["pattern"]), policy["definition"]
    assert isinstance(definition, dict)
    reached = [queue for queue in LAYOUT.queues if re.search(pattern, queue.name)]
    assert reached, "no queue has such a name"
    for queue in reached:
        # An argument comes before a policy, so a key in both would be a line without effect.
        assert not {f"x-{key}" for key in definition} & set(queue.arguments)


def test_each_queue_is_reached_by_one_policy_at_most() -> None:
    for queue in LAYOUT.queues:
        names = [policy["name"] for policy in policies() if re.search(str(policy["pattern"]), queue.name)]
        assert len(names) <= 1, names


def test_a_limit_refuses_new_messages_and_never_drops_old_ones() -> None:
    for policy in policies():
        definition = policy["definition"]
        assert isinstance(definition, dict)
        for queue in LAYOUT.queues:
            if re.search(str(policy["pattern"]), queue.name) and "max-length-bytes" in definition:
                assert "reject-publish" in (definition.get("overflow"), queue.arguments.get("x-overflow"))
