"""Systems that take tags, as their sources and documentation have it: Immich, Nextcloud, Paperless, a plain one.

Each keeps tags by asset. `fault` is asked before every request, and may answer in the system's place.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_write(self) -> bool:
        return self.method in ("PUT", "POST", "DELETE", "PATCH")


@dataclass(frozen=True)
class Reply:
    """An answer. `None` in place of one means: none at all, the connection is held open."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Reply:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


class FakeTarget:
    """What all have in common. `assets` has the names of each asset's tags."""

    token = "s3cret-key"
    token_header = "x-api-key"

    def __init__(self) -> None:
        self.assets: dict[str, list[str]] = {}
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Reply | None] = lambda _request: Reply(0)
        """Answers in the system's place, unless the status is 0; None: never."""
        self.lock = threading.RLock()
        self.url = ""
        self.stopped = threading.Event()

    @property
    def writes(self) -> list[Request]:
        return [each for each in self.requests if each.is_write]

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def is_let_in(self, request: Request) -> bool:
        return request.headers.get(self.token_header) == self.token


class PlainTarget(FakeTarget):
    """`GET /assets/ID/tags` lists names, `PUT` and `DELETE /assets/ID/tags/NAME` add and remove one."""

    def answer(self, request: Request) -> Reply:
        parts = [unquote(each) for each in request.path.split("?")[0].split("/")[1:]]
        if parts == ["ping"]:
            return Reply.of("pong")
        tags = self.assets.get(parts[1])
        if tags is None:
            return Reply.of({"error": "no such asset"}, 404)
        match request.method, parts[3:]:
            case "GET", []:
                return Reply.of(list(tags))
            case "PUT", [name]:
                if len(name) > 40:
                    return Reply.of({"error": f"{name} is too long", "key": self.token}, 400)
                if name not in tags:
                    tags.append(name)
                return Reply(204)
            case "DELETE", [name]:
                if name in tags:
                    tags.remove(name)
                return Reply(204)
        return Reply(405)


PLAIN: dict[str, Any] = {
    "credential": {"kind": "header", "header": "x-api-key", "value": FakeTarget.token},
    "target": {
        "enabled": True,
        "read": {"path": "/assets/{asset_id}/tags"},
        "add": {"method": "PUT", "path": "/assets/{asset_id}/tags/{tag}"},
        "remove": {"method": "DELETE", "path": "/assets/{asset_id}/tags/{tag}"},
        "probe": {"path": "/ping"},
        "writes_per_s": 1000,
    },
}
"""The settings of a connection to a PlainTarget, without its `url`."""


def plain_connection(name: str, target: PlainTarget) -> str:
    """A connection to it in TOML."""
    return f"""
[connect.{name}]
url = "{target.url}"
credential = {{kind = "header", header = "x-api-key", value = "{target.token}"}}
[connect.{name}.target]
enabled = true
read = {{path = "/assets/{{asset_id}}/tags"}}
add = {{method = "PUT", path = "/assets/{{asset_id}}/tags/{{tag}}"}}
remove = {{method = "DELETE", path = "/assets/{{asset_id}}/tags/{{tag}}"}}
probe = {{path = "/ping"}}
"""


class FakeImmich(FakeTarget):
    """Tags form a tree; metadata extraction, some time after the upload, drops what was set before (PR #29258)."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}
        self.extracts_at_s: dict[str, float] = {}

    def answer(self, request: Request) -> Reply:
        with self.lock:
            now_s = time.monotonic()
            for asset, at_s in list(self.extracts_at_s.items()):
                if now_s >= at_s:
                    self.assets[asset] = []
                    del self.extracts_at_s[asset]
            return self._answer(request)

    def _answer(self, request: Request) -> Reply:  # noqa: C901 - a row of routes
        path = request.path
        if path == "/api/tags" and request.method == "GET":
            return Reply.of(
                [{"id": each, "value": name, "name": name.rpartition("/")[2]} for name, each in self.tags.items()]
            )
        if path == "/api/tags" and request.method == "PUT":
            made = []
            for name in request.json()["tags"]:
                self.tags.setdefault(name, f"00000000-0000-4000-8000-{len(self.tags):012d}")
                made.append({"id": self.tags[name], "value": name})
            return Reply.of(made)
        names = {each: name for name, each in self.tags.items()}
        if path == "/api/tags/assets" and request.method == "PUT":
            body = request.json()
            if not all(each in names for each in body["tagIds"]):
                return Reply.of({"message": "Not found or no tag.asset access"}, 400)
            for asset in body["assetIds"]:
                self.assets[asset] += [names[each] for each in body["tagIds"] if names[each] not in self.assets[asset]]
            return Reply.of({"count": len(body["tagIds"])})
        if found := re.fullmatch(r"/api/tags/([^/]+)/assets", path):
            for asset in request.json()["ids"]:
                self.assets[asset] = [each for each in self.assets[asset] if each != names.get(found[1])]
            return Reply.of([{"id": each, "success": True} for each in request.json()["ids"]])
        if found := re.fullmatch(r"/api/assets/([^/]+)", path):
            if found[1] not in self.assets:
                return Reply.of({"message": "Not found or no asset.read access"}, 400)
            tags = [{"id": self.tags.get(name, "theirs"), "value": name} for name in self.assets[found[1]]]
            return Reply.of({"id": found[1], "tags": tags})
        return Reply(404)


@dataclass
class StoredFile:
    """A file of Nextcloud. One that a scan of the storage has found has no time of its upload."""

    path: str
    etag: str
    uploaded_s: int
    mime_type: str = "image/jpeg"


class FakeNextcloud(FakeTarget):
    """Collaborative tags over WebDAV: names are cut at 64 bytes and compared without case, 409 exists, 412 unknown.

    SEARCH as its backend has it: hrefs are encoded, and a time that is neither a number nor in ATOM's form is 0.
    """

    token_header = "authorization"
    token = "Basic YWRtaW46YXBwLXBhc3N3b3Jk"

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}
        self.files: dict[str, StoredFile] = {}

    def answer(self, request: Request) -> Reply:  # noqa: C901 - all that is answered, in one place
        with self.lock:
            path = request.path
            if request.method == "SEARCH" and path == "/remote.php/dav/":
                return self._found(request.body)
            if path.rstrip("/") == "/remote.php/dav/systemtags":
                if request.method == "PROPFIND":
                    return self._listed(self.tags)
                name = request.json()["name"].encode()[:64].decode("utf-8", "ignore")
                if name.casefold() in {each.casefold() for each in self.tags.values()}:
                    return Reply(409, b"<d:error xmlns:d='DAV:'/>", {"Content-Type": "application/xml"})
                its_id = str(max(map(int, self.tags), default=0) + 1)
                self.tags[its_id] = name
                return Reply(201, b"", {"Content-Location": f"/remote.php/dav/systemtags/{its_id}"})
            found = re.fullmatch(r"/remote.php/dav/systemtags-relations/files/([^/]+)(?:/([^/]*))?", path)
            if not found or found[1] not in self.assets:
                return Reply(404, b"<d:error/>", {"Content-Type": "application/xml"})
            file, its_id = self.assets[found[1]], found[2]
            if request.method == "PROPFIND":
                return self._listed({key: name for key, name in self.tags.items() if name in file})
            if its_id not in self.tags:
                return Reply(412 if request.method == "PUT" else 404)
            if request.method == "PUT":
                if self.tags[its_id] in file:
                    return Reply(409)
                file.append(self.tags[its_id])
                return Reply(201)
            if self.tags[its_id] not in file:
                return Reply(404)
            file.remove(self.tags[its_id])
            return Reply(204)

    def _found(self, body: bytes) -> Reply:
        dav, nextcloud, pages = "{DAV:}", "{http://nextcloud.org/ns}", "{https://github.com/icewind1991/SearchDAV/ns}"
        search = ElementTree.fromstring(body).find(f"{dav}basicsearch")  # noqa: S314 - our own
        assert search is not None
        order = search.find(f"{dav}orderby/{dav}order")
        assert order is not None
        assert order.find(f"{dav}prop/{nextcloud}upload_time") is not None
        assert order.find(f"{dav}ascending") is not None
        folder = search.findtext(f"{dav}from/{dav}scope/{dav}href") or ""
        where = search.find(f"{dav}where/{dav}and")
        assert where is not None
        since = where.findtext(f"{dav}gte/{dav}literal") or ""
        try:
            since_s = int(since)
        except ValueError:
            since_s = (
                int(datetime.fromisoformat(since).timestamp()) if re.fullmatch(r"\S{19}[+-]\d\d:\d\d", since) else 0
            )
        mime_type = (where.findtext(f"{dav}like/{dav}literal") or "").replace("%", "")
        size = int(search.findtext(f"{dav}limit/{dav}nresults") or 0) or 100
        first = int(search.findtext(f"{dav}limit/{pages}firstresult") or 0)
        found = [
            (its_id, file)
            for its_id, file in self.files.items()
            if file.path.startswith(f"{folder}/")
            and file.mime_type.startswith(mime_type)
            and file.uploaded_s >= max(since_s, 1)
        ]
        found = sorted(found, key=lambda each: each[1].uploaded_s)[first : first + size]
        responses = "".join(
            f"<d:response><d:href>/remote.php/dav{quote(file.path)}</d:href><d:propstat><d:prop><oc:fileid>{its_id}"
            f"</oc:fileid><d:getetag>&quot;{file.etag}&quot;</d:getetag><d:getcontenttype>{file.mime_type}"
            f"</d:getcontenttype><nc:upload_time>{file.uploaded_s}</nc:upload_time></d:prop><d:status>HTTP/1.1 200 OK"
            "</d:status></d:propstat><d:propstat><d:prop><d:getlastmodified/></d:prop><d:status>HTTP/1.1 404 Not Found"
            "</d:status></d:propstat></d:response>"
            for its_id, file in found
        )
        names = 'xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns" xmlns:nc="http://nextcloud.org/ns"'
        answered = f'<?xml version="1.0"?><d:multistatus {names}>{responses}</d:multistatus>'
        return Reply(207, answered.encode(), {"Content-Type": "application/xml; charset=utf-8"})

    @staticmethod
    def _listed(tags: dict[str, str]) -> Reply:
        def response(href: str, inside: str) -> str:
            return (
                f"<d:response><d:href>{href}</d:href><d:propstat><d:prop>{inside}</d:prop>"
                "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
            )

        inside = [
            response(
                f"/remote.php/dav/systemtags/{key}",
                f"<oc:id>{key}</oc:id><oc:display-name>{escape(name)}</oc:display-name>",
            )
            for key, name in tags.items()
        ]
        first = response("/remote.php/dav/systemtags/", "<oc:id/><oc:display-name/>")
        body = (
            '<?xml version="1.0"?><d:multistatus xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns" '
            f'xmlns:s="http://sabredav.org/ns">{first}{"".join(inside)}</d:multistatus>'
        )
        return Reply(207, body.encode(), {"Content-Type": "application/xml; charset=utf-8"})


class FakePaperless(FakeTarget):
    """A document lists its tags as numbers; `bulk_edit` adds and removes at once, and refuses numbers of no tag."""

    token_header = "authorization"
    token = "Token 0123456789abcdef"

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[int, str] = {}

    def answer(self, request: Request) -> Reply:
        with self.lock:
            parts = urlsplit(request.path)
            if parts.path == "/api/tags/" and request.method == "GET":
                tags = [{"id": key, "name": name} for key, name in self.tags.items()]
                return Reply.of({"count": len(tags), "results": tags})
            if parts.path == "/api/tags/":
                body = request.json()
                if body.get("matching_algorithm") != 0 or len(body["name"]) > 128:
                    return Reply.of({"name": ["refused"]}, 400)
                self.tags[len(self.tags) + 1] = body["name"]
                return Reply.of({"id": len(self.tags), "name": body["name"]}, 201)
            if parts.path == "/api/documents/bulk_edit/":
                body = request.json()
                changes = body["parameters"]
                if body["method"] != "modify_tags" or not all(isinstance(each, int) for each in body["documents"]):
                    return Reply.of({"method": ["refused"]}, 400)
                if not set(changes["add_tags"]) | set(changes["remove_tags"]) <= set(self.tags):
                    return Reply.of({"parameters": ["Some tags in add_tags don't exist"]}, 400)
                for document in body["documents"]:
                    names = self.assets[str(document)]
                    gone = {self.tags[each] for each in changes["remove_tags"]}
                    self.assets[str(document)] = [each for each in names if each not in gone]
                    self.assets[str(document)] += [self.tags[each] for each in changes["add_tags"]]
                return Reply.of({"result": "OK"})
            if found := re.fullmatch(r"/api/documents/(\d+)/", parts.path):
                if found[1] not in self.assets:
                    return Reply.of({"detail": "No Document matches the given query."}, 404)
                ids = [key for key, name in self.tags.items() if name in self.assets[found[1]]]
                return Reply.of({"id": int(found[1]), "tags": ids})
            return Reply(404)


class FakeResourceSpace(FakeTarget):
    """Each query is signed with the user's private key; what is refused for other reasons is `false`, with status 200.

    A field of keywords is a text with ", " between them, and is replaced as a whole (api/index.php, api_bindings.php).
    """

    user = "auto tag@example.org"
    key = "3eabfbcbea3404b1b5c2f884ec8e86bf"

    def __init__(self) -> None:
        super().__init__()
        self.locked: set[str] = set()
        """Resources that the user may not edit."""
        self.images: dict[str, bytes] = {}
        """Previews by resource, which need no signature."""

    def is_let_in(self, request: Request) -> bool:
        query = urlsplit(request.path).query
        said, _, sign = query.rpartition("&sign=")
        right = hashlib.sha256((self.key + said).encode()).hexdigest()
        return "/filestore/" in request.path or (sign == right and parse_qs(said)["user"] == [self.user])

    def answer(self, request: Request) -> Reply:
        with self.lock:
            if found := re.fullmatch(r"/filestore/(\d+)_scr\.jpg\?v=1", request.path):
                return Reply(200, self.images[found[1]], {"Content-Type": "image/jpeg"})
            given = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query, True).items()}
            asset = given.get("param1", "")
            match given["function"]:
                case "get_system_status":
                    return Reply.of({"status": "OK"})
                case "search_get_previews":
                    rows = [
                        {"ref": each, "url_scr": f"{self.url}/filestore/{each}_scr.jpg?v=1"} for each in self.images
                    ]
                    return Reply.of([{**row, "file_checksum": f"sum of {row['ref']}"} for row in reversed(rows)])
                case "get_resource_field_data" if asset in self.assets:
                    fields = [{"ref": "8", "name": "title", "value": "A title, with a comma"}]
                    return Reply.of([*fields, {"name": "autotags", "value": ", ".join(self.assets[asset])}])
                case "update_field" if asset in self.assets and asset not in self.locked:
                    self.assets[asset] = [each.strip() for each in given["param3"].split(",") if each.strip()]
                    return Reply.of(True)
            return Reply.of(False)


@contextmanager
def serving_target(target: FakeTarget) -> Iterator[FakeTarget]:
    """The target, listening on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            target.requests.append(request)
            reply = target.fault(request)
            if reply is None:
                target.stopped.wait(30)
                self.close_connection = True
                return
            if reply.status == 0:
                reply = target.answer(request) if target.is_let_in(request) else Reply.of({"error": "who?"}, 401)
            head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
            size = "" if reply.status == 204 else f"Content-Length: {len(reply.body)}\r\n"
            self.wfile.write(f"HTTP/1.1 {reply.status} -\r\n{head}{size}\r\n".encode() + reply.body)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self._any
            raise AttributeError(name)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 100

    server = Server(("127.0.0.1", 0), Handler)
    target.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, name="fake target", kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield target
    finally:
        target.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
