"""A reverse proxy that serves a site below a path, as nginx's `location /autotag/ { proxy_pass … }` does."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"})


@contextmanager
def below_a_path(
    site: str,
    path: str,
    *,
    removed: bool,
    before_request: Callable[[str], object] = lambda _asked: None,
    before_answer: Callable[[str, int], object] = lambda _asked, _status: None,
) -> Iterator[str]:
    """The URL of `site` below `path`, which is removed from requests, or not, as some proxies do not.

    The Host header is passed on; every address outside the path is answered with 404. `before_request` gets what is
    asked for, `before_answer` that and the status; they may hold the request or the answer back.
    """
    target = urlsplit(site).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if not (self.path.startswith(f"{path}/") or (self.path == path and not removed)):
                self._answer(404, [], b"nothing here\n")
                return
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            asked = self.path.removeprefix(path) if removed else self.path
            before_request(asked)
            with closing(http.client.HTTPConnection(target, timeout=30)) as connection:
                connection.request(self.command, asked, body, kept)
                response = connection.getresponse()
                headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
                before_answer(asked, response.status)
                with suppress(ConnectionError):  # a browser that has gone on to another page
                    self._answer(response.status, headers, response.read())

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _pass_on  # noqa: N815 - as in the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{path}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
