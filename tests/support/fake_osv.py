"""A stand-in for OSV's API: `POST /v1/query` with a package and its version.

Described at https://google.github.io/osv.dev/post-v1-query/.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeOsv:
    """Answers with `advisories` by package name; anything else has none. `down`: it answers 503."""

    def __init__(self, advisories: dict[str, list[dict[str, Any]]] | None = None, *, down: bool = False) -> None:
        found = advisories or {}
        asked: list[tuple[str, str]] = []
        self.asked = asked

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append((query["package"]["name"], query["version"]))
                vulns = found.get(query["package"]["name"])
                body = json.dumps({"vulns": vulns} if vulns else {}).encode()
                self.send_response(503 if down else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/query"

    def __enter__(self) -> FakeOsv:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
