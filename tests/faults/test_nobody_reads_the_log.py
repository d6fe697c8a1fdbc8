"""Standard error is a pipe that nobody reads: events are answered and health checks too, and the lines come later."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from ports import free_ports

from tests.support.monitoring import fetch
from tests.support.polling import until
from tests.support.service import Dms, running_service

EVENTS = 150
PIPE_BYTES = 4096


def test_a_log_that_nobody_reads_holds_up_neither_events_nor_health_checks(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    # Given a service whose standard error is a small pipe that nobody reads
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    roots = json.dumps([str(photographs["coffee"].parent)])
    (port,) = free_ports(1)
    settings = {"SOURCES__PATH_ROOTS": roots, "HTTP__PORT": str(port)}
    with running_service(broker, queue_prefix, tmp_path, writing, **settings) as service:
        until(lambda: (service.status() or {}).get("ready"), "it is ready")
        # When it has far more to log than the pipe holds
        dms = Dms(broker, queue_prefix)
        events = [dms.publish({"path": str(photographs["coffee"])}) for _ in range(EVENTS)]
        found = dms.results_of(events)
        dms.close()
        # Then every event is answered, and it lives and is ready
        assert {message.data["status"] for messages in found.values() for message in messages} == {"tagged"}
        assert [fetch(f"http://127.0.0.1:{port}{path}").status for path in ("/livez", "/readyz")] == [200, 200]
        # And the description of the pipe, which others have too, still blocks
        assert os.get_blocking(writing)
        # And when somebody reads again, there is a line for each event
        os.set_blocking(reading, False)
        read = bytearray()

        def all_logged() -> bool:
            with suppress(BlockingIOError):
                read.extend(os.read(reading, 1 << 16))
            return read.count(b'"event ended"') == EVENTS

        until(all_logged, "the lines that were kept have come")
        assert b"log lines were lost" not in read
        os.set_blocking(reading, True)
        assert service.stop() == 0
    os.close(reading)
    os.close(writing)
