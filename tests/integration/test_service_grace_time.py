"""The grace time ends, whatever hangs: a connection that is being closed, a thread in a call, the loop itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.polling import until
from tests.support.processes import children_started_by

GRACE_S = 4.0

SERVICE = """
import asyncio, sys, threading, time
from pathlib import Path
from worker.operations import logs
from worker.service import Service
from worker.settings import LoadedSettings, Settings

async def never(): await asyncio.Event().wait()
async def blocked(): time.sleep(3600)
def thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()  # the interpreter waits for its end

logs.configure("info", "json")
folder = Path(sys.argv[1])
settings = Settings(
    amqp={{"url": "amqp://127.0.0.1:1/"}}, http={{"enabled": False}}, control_socket=folder / "control.sock",
    state_dir=folder, cache_dir=folder, decoder={{"children": 1}}, shutdown_grace_s={grace_s},
)

async def serve():
    service = Service(LoadedSettings(settings, dict(), None), lambda **_: LoadedSettings(settings, dict(), None))
    {hang}
    return await service.run()

sys.exit(asyncio.run(serve()))
"""


def written_at(log: Path, event: str) -> datetime:
    """When the only line about an event was written."""
    (line,) = (line for line in map(json.loads, log.read_text().splitlines()) if event in line["event"])
    return datetime.fromisoformat(line["timestamp"])


@pytest.mark.parametrize("hang", ["service.broker.close = never", "service.broker.close = blocked", "thread()"])
def test_it_ends_with_status_0_within_its_grace_time(tmp_path: Path, hang: str) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVICE.format(hang=hang, grace_s=GRACE_S), str(tmp_path)],
            stderr=output,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
    try:
        until(lambda: "engine is open" in log.read_text(), "it runs")
        process.send_signal(signal.SIGTERM)
        assert process.wait(GRACE_S + 10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    # By its own clock: the last line comes with its end, whenever this process gets to see that
    asked, ended = (written_at(log, event) for event in ("stopping", "the rest is left to the kernel"))
    assert timedelta(seconds=GRACE_S / 2) < ended - asked < timedelta(seconds=GRACE_S), "what hangs is waited for"
    until(lambda: children_started_by(process.pid) == [], "no child is left")
