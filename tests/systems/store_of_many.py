"""A store with very many objects, in a process of its own: S3's listing (version 2) and tagging of objects, no more."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import MutableMapping
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-27T10:00:00.000Z</LastModified>"
    "<ETag>&quot;{etag}&quot;</ETag><Size>1000</Size></Contents>"
)


class Store:
    """Its objects, and their tags as they were written. `counts` has the objects that were tagged in each second."""

    def __init__(self, objects: int) -> None:
        self._keys = [f"{number // 1000:03}/übung +{number:06} &.jpg" for number in range(objects)]
        self._tags: dict[str, bytes] = {}
        self.counts: Counter[int] = Counter()

    def answer(self, method: str, target: str, body: bytes) -> bytes:
        """The answer to a request: of the bucket, its listing; of an object, its tags."""
        parts = urlsplit(target)
        key = unquote(parts.path).partition("/pictures/")[2]
        if not key:
            return self._listing(parse_qs(parts.query))
        if method == "PUT":
            if key not in self._tags:
                self.counts[int(time.time())] += 1
            self._tags[key] = body
            return b""
        return self._tags.get(key, f"<Tagging {_SPACE}><TagSet></TagSet></Tagging>".encode())

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        after = query.get("start-after", [""])[0]
        first = self._keys.index(after) + 1 if after else 0
        page = self._keys[first : first + int(query["max-keys"][0])]
        found = "".join(_OBJECT.format(key=escape(key), etag=number) for number, key in enumerate(page, first))
        more = str(first + len(page) < len(self._keys)).lower()
        return f"<ListBucketResult {_SPACE}><IsTruncated>{more}</IsTruncated>{found}</ListBucketResult>".encode()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = first.split(" ")
                said = self.answer(method, target, body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n")
                writer.write(f"Content-Length: {len(said)}\r\n\r\n".encode() + said)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def serve(pipe: Connection, objects: int, seconds: MutableMapping[int, int]) -> None:
    """Serve until killed; sends the port. `seconds` gets the store's counts."""
    store = Store(objects)

    async def main() -> None:
        server = await asyncio.start_server(store.handle, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.sleep(0.5)
            seconds.update(store.counts)

    asyncio.run(main())
