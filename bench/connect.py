"""How fast `autotag connect` writes: results a second on one core, from result to tag, and its memory.

    .venv/bin/python scripts/private_broker.py run -- .venv/bin/python bench/connect.py --results 5000

Results are published into a real RabbitMQ; the target is a server of this machine that answers at once, in a process of
its own. What delivers runs pinned to one core. Each asset costs a read and a write.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from measuring import percentile  # noqa: E402

from tests.support.delivering import (  # noqa: E402
    ResultPublisher,
    connection_settings,
    delivering_process,
)

_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n["holiday"]'
_DONE = b"HTTP/1.1 204 No Content\r\n\r\n"


def _serve(pipe: Connection) -> None:
    """A target that answers at once: reads a line and headers, needs no body, notes when each asset was written."""
    import asyncio

    written: dict[str, float] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):
                    writer.write(_ANSWER)
                else:
                    written[head.split(b"/", 2)[1].decode()] = time.time()
                    writer.write(_DONE)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.sleep(0.02)
            while pipe.poll():
                if pipe.recv() == "take":
                    pipe.send(dict(written))
                    written.clear()
                else:
                    pipe.send(len(written))

    asyncio.run(main())


def _until(condition: Callable[[], bool], within_s: float = 60) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError
        time.sleep(0.02)


def measure(url: str, results: int, rate_per_s: float, seconds: float) -> dict[str, Any]:
    """The figures, beside the broker at `url`."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()

    def ask(what: str) -> Any:
        ours.send(what)
        return ours.recv()

    connection = {
        "url": f"http://127.0.0.1:{port}",
        "target": {
            "enabled": True,
            "read": {"path": "/assets/{asset_id}/tags"},
            "add": {"method": "PUT", "path": "/{asset_id}/tags/{tag}"},
            "remove": {"method": "DELETE", "path": "/{asset_id}/tags/{tag}"},
            "writes_per_s": 100_000,
        },
    }
    settings = connection_settings(url, f"bench-{secrets.token_hex(4)}", connection)
    publisher = ResultPublisher(url, settings.amqp.queue_prefix, settings)
    with (
        tempfile.TemporaryDirectory() as folder,
        delivering_process(settings, Path(folder, "ledger"), Path(folder, "log")) as process,
    ):
        try:
            psutil.Process(process.pid).cpu_affinity([0])
            publisher.declare()
            publisher.result("first", ["cat"])
            _until(lambda: ask("count") == 1)
            resident_before = psutil.Process(process.pid).memory_info().rss
            ask("take")
            for number in range(results):
                publisher.result(f"a{number}", ["cat"])
            cpu = psutil.Process(process.pid).cpu_times()
            # What was published before the last was written meanwhile: the rate is that of the whole run
            began_s = time.time()
            left = results - ask("count")
            _until(lambda: ask("count") == results)
            took_s = time.time() - began_s
            cpu_after = psutil.Process(process.pid).cpu_times()
            cpu_s = cpu_after.user + cpu_after.system - cpu.user - cpu.system
            ask("take")
            sent = {}
            for number in range(int(rate_per_s * seconds)):
                due_s = number / rate_per_s
                time.sleep(max(0.0, began_s + took_s + 0.5 + due_s - time.time()))
                sent[f"b{number}"] = time.time()
                publisher.result(f"b{number}", ["cat"], time=datetime.now(UTC))
            _until(lambda: ask("count") == len(sent))
            written = ask("take")
            waited_ms = [(written[name] - at_s) * 1000 for name, at_s in sent.items()]
            return {
                "writes_per_s": round(left / took_s, 1),
                "writes_measured": left,
                "cpu_ms_a_write": round(1000 * cpu_s / left, 3),
                "latency_at_rate_per_s": rate_per_s,
                "p50_ms": round(percentile(waited_ms, 0.5), 1),
                "p95_ms": round(percentile(waited_ms, 0.95), 1),
                "p99_ms": round(percentile(waited_ms, 0.99), 1),
                "resident_mb_first": round(resident_before / 1e6, 1),
                "resident_mb_last": round(psutil.Process(process.pid).memory_info().rss / 1e6, 1),
            }
        finally:
            server.kill()
            publisher.clean()


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=50, help="results a second while latency is measured")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    figures = measure(os.environ["AUTOTAG_AMQP__URL"], options.results, options.rate, options.seconds)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
