"""What several of these modules ask for beside their own `prefix` and `service`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.service import Dms, RunningService


@pytest.fixture
def dms(broker: str, prefix: str, service: RunningService) -> Iterator[Dms]:
    """The DMS of the module's running `service`, on the queues of its `prefix`."""
    dms = Dms(broker, prefix)
    yield dms
    dms.close()
