"""A reverse proxy that serves a site below a path, as nginx's `location /autotag/ { proxy_pass … }` does."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"})


@contextmanager
def below_a_path(site: str, path: str, *, removed: bool) -> Iterator[str]:
    """The URL of `site` below `path`, which is removed from requests, or not, as some proxies do not.

    The Host header is passed on; every address outside the path is answered with 404.
    """
    target = urlsplit(site).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if not (self.path.startswith(f"{path}/") or (self.path == path and not removed)):
                self._answer(404, [], b"nothing here\n")
                return
            connection = http.client.HTTPConnection(target, timeout=30)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            asked = self.path.removeprefix(path) if removed else self.path
            connection.request(self.command, asked, body, kept)
            response = connection.getresponse()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
            self._answer(response.status, headers, response.read())
            connection.close()

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
