"""Shared by the fault tests: a service whose children may be killed, and a service whose broker may be killed."""

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
    """One service for all tests that break only its children, which it survives."""
    with scene(broker, f"faults-{os.getpid()}", tmp_path_factory.mktemp("faults"), photographs) as it:
        yield it


@pytest.fixture
def it(one_service: Scene, broker: str) -> Iterator[Scene]:
    """That service, ready and idle, with an empty ledger for this test's events."""
    one_service.dms.close()  # it was idle during the last test, and the broker may have closed it
    one_service.ledger = Ledger(Dms(broker, one_service.ledger.dms.prefix))
    one_service.ready()
    one_service.reset()
    yield one_service
    one_service.dms.close()


@pytest.fixture(scope="session")
def node() -> Iterator[PrivateBroker]:
    """A broker that tests may break. A test that does repairs it."""
    with PrivateBroker() as node:
        node.ctl("add_user", "worker", "secret")
        node.ctl("set_permissions", "worker", ".*", ".*", ".*")
        yield node


@pytest.fixture(scope="session")
def proxy(node: PrivateBroker) -> Iterator[Proxy]:
    """The network between the service and that broker."""
    with Proxy(node.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def one_service_far_away(
    node: PrivateBroker, proxy: Proxy, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A service that connects to that broker through the proxy, as the user `worker`."""
    url = f"amqp://worker:secret@127.0.0.1:{proxy.port}/%2F"
    folder = tmp_path_factory.mktemp("far-away")
    with scene(url, "far-away", folder, photographs, dms_url=node.url) as it:
        node.flush_metadata()
        yield it


@pytest.fixture
def far(one_service_far_away: Scene, node: PrivateBroker, proxy: Proxy) -> Iterator[Scene]:
    """That service, ready and idle, with a working network and an empty ledger for this test's events."""
    proxy.heal()
    one_service_far_away.reconnect(node.url)
    one_service_far_away.ready()
    one_service_far_away.reset()
    yield one_service_far_away
    one_service_far_away.dms.close()
