"""How long events take beside the trouble of other instances: results with the moment at which they came, and hosts."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pika
from PIL import Image

from tests.support.polling import until


class ResultsWatch:
    """Consumes the results queue in a thread of its own."""

    def __init__(self, url: str, queue: str) -> None:
        self.came_at_s: dict[str, float] = {}
        """When each event's first result came; monotonic."""
        self.results: dict[str, dict[str, Any]] = {}
        """The data of each event's last result."""
        self._url = url
        self._queue = queue
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._consume, daemon=True)

    def __enter__(self) -> ResultsWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(timeout=10)

    def _consume(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        for _, _, body in channel.consume(self._queue, auto_ack=True, inactivity_timeout=0.2):
            if body is not None:
                data = json.loads(body)["data"]
                self.came_at_s.setdefault(data["event_id"], time.monotonic())
                self.results[data["event_id"]] = data
            if self._ending.is_set():
                break
        connection.close()

    def took_s(self, publish: Callable[[], str], *, within_s: float = 60.0) -> float:
        """How long the event that `publish` publishes takes to have its result."""
        began_s = time.monotonic()
        event = publish()
        deadline_s = began_s + within_s
        while event not in self.came_at_s:
            assert time.monotonic() < deadline_s, f"no result within {within_s:g} s"
            time.sleep(0.002)
        return self.came_at_s[event] - began_s

    def median_s(self, publish: Callable[[], str], number: int, *, pause_s: float = 0.0) -> float:
        """The median over `number` events, one after the other."""
        took = []
        for _ in range(number):
            took.append(self.took_s(publish))
            time.sleep(pause_s)
        return statistics.median(took)

    def count(self, events: set[str]) -> int:
        """How many of these events have a result."""
        return len(events & set(self.came_at_s))

    def all_of(self, events: set[str], *, within_s: float = 60.0) -> None:
        """Wait until each of the events has a result."""
        until(lambda: self.count(events) == len(events), f"{len(events)} results came", within_s=within_s)


def small_image(folder: Path) -> Path:
    """A picture that is quickly decoded."""
    file = folder / "small.jpg"
    Image.new("RGB", (64, 64), (90, 140, 60)).save(file)
    return file


@contextmanager
def watching(url: str, prefix: str) -> Iterator[ResultsWatch]:
    """The results of a service, watched for the length of the block."""
    with ResultsWatch(url, f"{prefix}.results") as watch:
        yield watch


class ImageHost:
    """An HTTP server on loopback that serves one image to everybody, answers 503, or accepts and never answers."""

    def __init__(self, image: bytes | None = None, *, unavailable: bool = False) -> None:
        self._image = image
        self._unavailable = unavailable
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._held: list[socket.socket] = []
        self.accepted = 0
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        """An image on it."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/a.jpg"

    def answer_with(self, image: bytes) -> None:
        """Serve an image from now on; the connections that hang are closed."""
        self._image = image
        self._unavailable = False
        while self._held:
            self._held.pop().close()

    def __enter__(self) -> ImageHost:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._accepting.join(timeout=10)
        self._socket.close()
        for each in self._held:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                self.accepted += 1
                if self._unavailable:
                    threading.Thread(target=self._serve, args=(connection, "503 Busy", b""), daemon=True).start()
                elif self._image is None:
                    self._held.append(connection)
                else:
                    threading.Thread(target=self._serve, args=(connection, "200 OK", self._image), daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket, status: str, image: bytes) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(image)}\r\nconnection: close\r\n\r\n"
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(head.encode() + image)
