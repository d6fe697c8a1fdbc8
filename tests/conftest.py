"""What every test may ask for: brokers, photographs, and the certainty that no process is left at the end."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pika
import psutil
import pytest
import structlog

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))  # scripts are run by path, so they import each other by bare name

from demo import write_photographs  # noqa: E402
from ports import speaks_amqp  # noqa: E402
from rabbitmq_node import PrivateBroker  # noqa: E402

from tests.support.service import delete_topology  # noqa: E402
from worker.amqp.topology import topology  # noqa: E402
from worker.operations import logs  # noqa: E402
from worker.settings import RetrySettings  # noqa: E402

LEAVE_TIME_S = 5.0

# A background job of a script (`make test &`) begins with SIGINT ignored, and so would every process a test starts and
# interrupts. A handler of Python's becomes the default action in them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine an example may take any time. That is no property of what is tested.
hypothesis.settings.register_profile("autotag", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("autotag")


BROKER_FIXTURES = {"broker", "private_broker", "node", "one_node", "sandbox"}
"""Fixtures that start or name a RabbitMQ. A test that asks for one, however indirectly, gets the marker `broker`."""

OTHER_SUBJECTS = (
    *("test_children_", "test_decoder_", "test_image_", "test_images_", "test_model_", "test_poison_"),
    *("test_bulk_", "test_file_server_", "test_one_instance_", "test_service_cloud", "test_sockets_"),
    *("test_clock_", "test_container_", "test_descriptors_", "test_disk_", "test_nobody_", "test_reload_"),
    *("test_documented_", "test_history_", "test_page_", "test_settings_", "test_publisher_"),
    *("test_http", "test_printable_", "test_prometheus", "test_status_page", "test_tracing"),
    *("test_canary", "test_shadow", "test_several_models", "test_service_disabled", "test_near_duplicates"),
    *("test_every_command_", "test_odd_names", "test_logs_service", "test_nothing_is_switched_on"),
    *("test_health_check", "test_reverse_proxy", "test_forwarded_", "test_connect_poll"),
)
"""How modules begin whose tests need some broker and are about something else: which version it is decides nothing.

A test among them that is about the broker after all has the marker above it.
"""


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what `-m` does not want
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a broker and are about what it does."""
    for item in items:
        if item.path.name.startswith(OTHER_SUBJECTS):
            continue
        if BROKER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("broker")


def pytest_collection_finish() -> None:
    """What has been imported stays: left out of every later collection, garbage is collected in milliseconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Whatever a test sets up for the log, as a command does that is called in this process, ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.LIBRARIES}
    structlog_was = structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, its_level in levels.items():
        logging.getLogger(name).setLevel(its_level)
    structlog.configure(**structlog_was)


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Whatever the tests started must have ended, and been waited for, when the last test has run."""
    before = set(psutil.Process().children(recursive=True))
    yield
    deadline_s = time.monotonic() + LEAVE_TIME_S
    while left := set(psutil.Process().children(recursive=True)) - before:
        if time.monotonic() > deadline_s:
            pytest.fail(f"Processes left by the tests: {', '.join(map(describe, left))}")
        time.sleep(0.05)


def describe(process: psutil.Process) -> str:
    """Process id, state and command line, as far as they can still be read."""
    try:
        return f"{process.pid} ({process.status()}) {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error:
        return str(process.pid)


@pytest.fixture(scope="session")
def broker() -> str:
    """AMQP URL of the broker that the tests share. Never break it: `private_broker` gives one that may be broken."""
    url = os.environ.get("AUTOTAG_AMQP__URL", "")
    if not url:
        pytest.fail("These tests need RabbitMQ: run `make test`, which starts one, or set AUTOTAG_AMQP__URL.")
    parameters = pika.URLParameters(url)
    if parameters.ssl_options is None and not speaks_amqp(parameters.port, parameters.host):
        pytest.fail(
            f"No broker answers at {parameters.host}:{parameters.port}, named by AUTOTAG_AMQP__URL: start it, or unset "
            "the variable and run `make test`, which starts one."
        )
    return url


@pytest.fixture
def queue_prefix(broker: str) -> Iterator[str]:
    """An `amqp.queue_prefix` that no other test has; what was declared with it is removed."""
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    yield prefix
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    delete_topology(connection.channel(), topology(prefix, RetrySettings().delays_s))
    connection.close()


@pytest.fixture
def private_broker() -> Iterator[Callable[..., PrivateBroker]]:
    """Starts RabbitMQ nodes that the test may break, with the options of PrivateBroker; all are gone after the test."""
    with ExitStack() as nodes:
        yield lambda **options: nodes.enter_context(PrivateBroker(**options))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """JPEG files by name: astronaut, chelsea (a cat), coffee, rocket, motorcycle_left."""
    return {file.stem: file for file in write_photographs(tmp_path_factory.mktemp("photographs"))}


@pytest.fixture(scope="session")
def images100() -> Path:
    """Directory of 100 labelled ImageNet photographs and their labels.csv; the project does not ship it."""
    directory = Path(os.environ.get("AUTOTAG_TEST_PHOTOGRAPHS") or ROOT.parent / "shared/data/images100")
    if not (directory / "labels.csv").is_file():
        pytest.skip(f"There are no labelled photographs in {directory}; AUTOTAG_TEST_PHOTOGRAPHS names another place.")
    return directory
