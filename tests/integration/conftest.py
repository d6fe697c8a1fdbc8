"""What several of these modules ask for beside their own `prefix` and `service`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rabbitmq_node import PrivateBroker

from tests.support.service import Dms, RunningService


@pytest.fixture(scope="module")
def one_node() -> Iterator[PrivateBroker]:
    """A broker that is private to one module: its alarms and its connections are the tests' own."""
    with PrivateBroker() as node:
        yield node


@pytest.fixture
def node(one_node: PrivateBroker) -> Iterator[PrivateBroker]:
    """A broker that the test may freeze or block, but not stop: RabbitMQ may be unusable after a restart.

    It is repaired for the next test, in case this one fails half-way.
    """
    yield one_node
    one_node.resume()
    one_node.set_memory_alarm(False)
    one_node.set_disk_alarm(False)


@pytest.fixture
def dms(broker: str, prefix: str, service: RunningService) -> Iterator[Dms]:
    """The DMS of the module's running `service`, on the queues of its `prefix`."""
    dms = Dms(broker, prefix)
    yield dms
    dms.close()
