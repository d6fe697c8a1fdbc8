"""What the tests that break things share: one service whose children may be hurt, one broker that may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledger import Ledger
from tests.support.scene import Scene, scene
from tests.support.service import Dms

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def one_service(
    broker: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A service that outlives every fault of its children: one for all the tests that hurt only those."""
    with scene(broker, f"faults-{os.getpid()}", tmp_path_factory.mktemp("faults"), photographs) as it:
        yield it


@pytest.fixture
def it(one_service: Scene, broker: str) -> Iterator[Scene]:
    """The service at rest, all its children well, and an account of this test's events alone."""
    one_service.dms.close()  # idle for as long as the last test took, it may have been given up by the broker
    one_service.ledger = Ledger(Dms(broker, one_service.ledger.dms.prefix))
    one_service.ready()
    one_service.come_to_rest()
    yield one_service
    one_service.dms.close()
