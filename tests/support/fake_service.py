"""A real HTTP server that stands in for a cloud service: it records every call and injects faults on demand.

Subclasses implement the normal responses. It runs in threads of its own, so that tests of any kind can use it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(slots=True)
class Call:
    """One recorded request, and the status of its response."""

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
    """A complete HTTP response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, tree: object, **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(tree).encode(), {"Content-Type": "application/json; charset=UTF-8"} | named)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call. Without `response`, `close` or `raw` the response is the normal one, after `delay_s`.

    `stall_mid_body_s` is a pause in the middle of the body, which with `released` lasts until that is set: for what has
    to be seen while a call is in flight. `close` ends the connection without a response; `raw` sends these bytes before
    that.
    """

    response: Response | None = None
    delay_s: float = 0.0
    stall_mid_body_s: float = 0.0
    released: threading.Event | None = None
    close: bool = False
    raw: bytes | None = None


def respond_with(status: int, tree: object, **headers: str) -> Fault:
    return Fault(Response.json(status, tree, **headers))


HTML_PAGE = Fault(Response(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"}))
CLOSE = Fault(close=True)
GARBAGE = Fault(raw=b"\x16\x03\x01 this is no HTTP at all\r\n\r\n")


class FakeService(ABC):
    """Answers on `url` between `start` and `stop`; also a context manager."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.always: Fault | None = None
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._at_once = 0
        self.maximum_concurrent_calls = 0

    @abstractmethod
    def answer(self, call: Call) -> Response:
        """The normal response."""

    @abstractmethod
    def key_of(self, call: Call) -> str | None:
        """The key that a call was made with."""

    def next(self, *faults: Fault) -> None:
        """Inject these faults into the next calls, one each; `always` holds for the calls after them."""
        self._faults.extend(faults)

    @property
    def keys(self) -> list[str | None]:
        return [self.key_of(call) for call in self.calls]

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between each call and the next."""
        return [later.at_s - earlier.at_s for earlier, later in zip(self.calls, self.calls[1:], strict=False)]

    def handle(self, call: Call) -> Fault:
        """Record a call, and return its outcome, which has a response unless there is to be none."""
        with self._lock:
            self.calls.append(call)
            fault = self._faults.popleft() if self._faults else (self.always or Fault())
        self._stopping.wait(fault.delay_s)
        if fault.response is None and not fault.close and fault.raw is None:
            fault = replace(fault, response=self.answer(call))
        if fault.response is not None:
            call.status = fault.response.status
        return fault

    @contextmanager
    def counting_concurrency(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.maximum_concurrent_calls = max(self.maximum_concurrent_calls, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def stall(self, fault: Fault) -> None:
        """The pause in the middle of a body, or less when the service is stopped."""
        self._stopping.wait(fault.stall_mid_body_s)
        while fault.released is not None and not fault.released.is_set() and not self._stopping.wait(0.01):
            pass

    def start(self) -> Self:
        fake: FakeService = self

        class Handler(_Handler):
            service = fake

        self._server = FakeServer(("127.0.0.1", 0), Handler)
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


class FakeServer(ThreadingHTTPServer):
    """Serves any number of clients, each of which may be killed at any time."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FakeService
    timeout = 30

    def do_POST(self) -> None:
        with self.service.counting_concurrency():
            self._post()

    do_GET = do_POST  # noqa: N815 - http.server's way of naming

    def _post(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.service.handle(_call(self.command, self.path, dict(self.headers.items()), body, "1.1"))
        with suppress(ConnectionError):  # the client may have disconnected
            self._send(fault)

    def _send(self, fault: Fault) -> None:
        if fault.raw is not None or fault.close:
            self.wfile.write(fault.raw or b"")
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        response = fault.response
        assert response is not None
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        stalls = fault.stall_mid_body_s or fault.released is not None
        middle = len(response.body) // 2 if stalls else len(response.body)
        self.wfile.write(response.body[:middle])
        self.wfile.flush()
        self.service.stall(fault)
        self.wfile.write(response.body[middle:])

    def log_message(self, *_what: object) -> None:
        """Log nothing: keys must not get into the test's output here."""


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
    """The same service over TLS with HTTP/2, for complete responses only. Yields its address."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        target = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        call = _call(scope["method"], target, headers, body, scope["http_version"])
        response = (await asyncio.to_thread(service.handle, call)).response
        assert response is not None
        raw_headers = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": raw_headers})
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
            listening.detach()  # hypercorn owns the socket and has closed it
