"""The files for RabbitMQ's administrator match what the code declares."""

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
    found: list[dict[str, object]] = json.loads((RABBITMQ / "policies.json").read_text())["policies"]
    return found


def test_the_definitions_are_those_of_the_code() -> None:
    text = runpy.run_path(str(RABBITMQ / "write_definitions.py"))["text"]
    checked_in = (RABBITMQ / "definitions.json").read_text()
    assert checked_in == text(SETTINGS.amqp.queue_prefix), "run python deploy/rabbitmq/write_definitions.py"


@pytest.mark.parametrize("policy", policies(), ids=lambda policy: str(policy["name"]))
def test_a_policy_applies_to_its_queues_and_overrides_none_of_their_arguments(policy: dict[str, object]) -> None:
    pattern, definition = str(policy["pattern"]), policy["definition"]
    assert isinstance(definition, dict)
    matching = [queue for queue in LAYOUT.queues if re.search(pattern, queue.name)]
    assert matching, "no queue has such a name"
    for queue in matching:
        # An argument takes precedence over a policy, so a key in both would have no effect in the policy.
        assert not {f"x-{key}" for key in definition} & set(queue.arguments)


def test_at_most_one_policy_applies_to_each_queue() -> None:
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
