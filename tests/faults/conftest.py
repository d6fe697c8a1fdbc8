"""What the tests that break things share: one service whose children may be hurt, one broker that may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rabbitmq_node import PrivateBroker

from tests.support.ledger import Ledger
from tests.support.proxy import Proxy
from tests.support.scene import Scene, scene
from tests.support.service import Dms


@pytest.fixture(scope="session")
def one_service(broker: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A service that outlives every fault of its children: one for all the tests that hurt only those."""
    with scene(broker, f"faults-{os.getpid()}", tmp_path_factory.mktemp("faults"), photographs) as it:
        yield it


@pytest.fixture
def it(one_service: Scene, broker: str) -> Iterator[Scene]:
    """The service at rest, all its children well, and an account of this test's events alone."""
    one_service.dms.close()  # idle for as long as the last test took, it may have been given up by the broker
    one_service.ledger = Ledger(Dms(broker, one_service.ledger.dms.prefix))
    one_service.ready()
    one_service.reset()
    yield one_service
    one_service.dms.close()


@pytest.fixture(scope="session")
def node() -> Iterator[PrivateBroker]:
    """A broker that may be broken. A test that breaks it repairs it."""
    with PrivateBroker() as node:
        node.ctl("add_user", "worker", "secret")
        node.ctl("set_permissions", "worker", ".*", ".*", ".*")
        yield node


@pytest.fixture(scope="session")
def proxy(node: PrivateBroker) -> Iterator[Proxy]:
    """What lies between the service and that broker."""
    with Proxy(node.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def one_service_far_away(
    node: PrivateBroker, proxy: Proxy, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A service that reaches the broker through the proxy, as a user of its own."""
    url = f"amqp://worker:secret@127.0.0.1:{proxy.port}/%2F"
    folder = tmp_path_factory.mktemp("far-away")
    with scene(url, "far-away", folder, photographs, dms_url=node.url) as it:
        node.settle()
        yield it


@pytest.fixture
def far(one_service_far_away: Scene, node: PrivateBroker, proxy: Proxy) -> Iterator[Scene]:
    """That service at rest, the broker and the network whole, and an account of this test's events alone."""
    proxy.heal()
    one_service_far_away.reconnect(node.url)
    one_service_far_away.ready()
    one_service_far_away.reset()
    yield one_service_far_away
    one_service_far_away.dms.close()
