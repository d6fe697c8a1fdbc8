"""A real HTTP server that stands in for a cloud service: it records every call, and does on demand what services do.

What it answers when nothing else is asked of it is up to the fakes made from it. It runs in threads of its own, so that
tests of any kind can use it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(slots=True)
class Call:
    """One request as it came in, and what was answered."""

    at_s: float
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    protocol: str
    status: int | None = None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, honest or not."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, tree: object, **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(tree).encode(), {"Content-Type": "application/json; charset=UTF-8"} | named)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one call. Without `response` the service answers honestly, after `delay_s`."""

    response: Response | None = None
    delay_s: float = 0.0
    stall_mid_body_s: float = 0.0
    close: bool = False
    raw: bytes | None = None


def instead(status: int, tree: object, **headers: str) -> Fault:
    return Fault(Response.json(status, tree, **headers))


HTML_PAGE = Fault(Response(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"}))
CLOSE = Fault(close=True)
GARBAGE = Fault(raw=b"\x16\x03\x01 this is no HTTP at all\r\n\r\n")


class FakeService(ABC):
    """Answers on `url` between `start` and `stop`; also a context manager."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.always: Fault | None = None
        self._troubles: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._at_once = 0
        self.maximum_concurrent_calls = 0

    @abstractmethod
    def answer(self, call: Call) -> Response:
        """The honest answer."""

    @abstractmethod
    def key_of(self, call: Call) -> str | None:
        """The key a call came with."""

    def next(self, *troubles: Fault) -> None:
        """Let the next calls end so, one each."""
        self._troubles.extend(troubles)

    @property
    def keys(self) -> list[str | None]:
        return [self.key_of(call) for call in self.calls]

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between each call and the next."""
        return [later.at_s - earlier.at_s for earlier, later in zip(self.calls, self.calls[1:], strict=False)]

    def take(self, call: Call) -> Fault:
        """Record a call, and say how it ends: always with a response, unless there is to be none."""
        with self._lock:
            self.calls.append(call)
            trouble = self._troubles.popleft() if self._troubles else (self.always or Fault())
        self._stopping.wait(trouble.delay_s)
        if trouble.response is None and not trouble.close and trouble.raw is None:
            trouble = Fault(self.answer(call), stall_mid_body_s=trouble.stall_mid_body_s)
        if trouble.response is not None:
            call.status = trouble.response.status
        return trouble

    @contextmanager
    def busy(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.maximum_concurrent_calls = max(self.maximum_concurrent_calls, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def start(self) -> Self:
        fake = self

        class Handler(_Handler):
            service = fake

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-service", daemon=True).start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        assert self._server is not None, "the fake has not been started"
        return f"http://127.0.0.1:{self._server.server_port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FakeService
    timeout = 30

    def do_POST(self) -> None:
        with self.service.busy():
            self._post()

    do_GET = do_POST  # noqa: N815 - http.server's way of naming

    def _post(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trouble = self.service.take(_call(self.command, self.path, dict(self.headers.items()), body, "1.1"))
        with suppress(ConnectionError):  # the client may have given up
            self._send(trouble)

    def _send(self, trouble: Fault) -> None:
        if trouble.raw is not None or trouble.close:
            self.wfile.write(trouble.raw or b"")
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        response = trouble.response
        assert response is not None
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        middle = len(response.body) // 2 if trouble.stall_mid_body_s else len(response.body)
        self.wfile.write(response.body[:middle])
        self.wfile.flush()
        self.service.wait(trouble.stall_mid_body_s)
        self.wfile.write(response.body[middle:])

    def log_message(self, *_what: object) -> None:
        """Say nothing: keys are not to stand in the test's output by this way."""


def _call(method: str, target: str, headers: dict[str, str], body: bytes, protocol: str) -> Call:
    parts = urlsplit(target)
    return Call(
        at_s=time.monotonic(),
        method=method,
        path=parts.path,
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        headers={name.lower(): value for name, value in headers.items()},
        body=body,
        protocol=protocol,
    )


@contextmanager
def over_http2(service: FakeService, certificate: Path, key: Path) -> Iterator[str]:
    """The same service over TLS with HTTP/2; honest answers and whole responses only. Gives its address."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        target = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        call = _call(scope["method"], target, headers, body, scope["http_version"])
        response = (await asyncio.to_thread(service.take, call)).response
        assert response is not None
        named = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": named})
        await send({"type": "http.response.body", "body": response.body})

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        config = Config()
        config.bind = [f"fd://{listening.fileno()}"]
        config.certfile, config.keyfile = str(certificate), str(key)
        config.accesslog = config.errorlog = None
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

        thread = threading.Thread(target=run, name="fake-http2", daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{port}"
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            listening.detach()  # closed by hypercorn, which took it over
