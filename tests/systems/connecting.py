"""A service with its model and a connector, both real and both of one configuration, for a system under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.connector import RunningConnector, running_connector
from tests.support.service import running_service


@contextmanager
def connected(broker: str, prefix: str, folder: Path, configuration: str) -> Iterator[RunningConnector]:
    """Both processes, with one configuration file; each is ready."""
    file = folder / "autotag.toml"
    file.write_text(configuration)
    file.chmod(0o600)
    models = '["efficientnet-lite2", "picture-kind"]'
    with (
        running_service(broker, prefix, folder, CONFIG=str(file), TENSORFLOW__MODELS=models) as service,
        running_connector(broker, prefix, folder, configuration) as connector,
    ):
        service.ready(within_s=120)
        yield connector
        assert service.stop() == 0
