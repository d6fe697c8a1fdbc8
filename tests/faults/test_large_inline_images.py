"""Large images inside the messages: the parent holds no more of them than it has room for."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.monitoring import http_url
from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import scene
from tests.support.service import Dms, inline

MEBIBYTE = 1024**2
TOKEN = "a-token-that-is-long-enough"
IMAGE_LIMIT = 16 * MEBIBYTE
INLINE_BYTES = 12_000_000
"""Of an image in a message of 16 MB."""

PIXELS_BYTES = 4_000_000
"""More than the decoded images, scaled down, that are handed to the model."""

MESSAGES = 64
IMAGE_BYTES = 6 * MEBIBYTE
MOST_RESIDENT_BYTES = 120_000_000
MOST_BYTES_IN_FILES = 40_000_000
"""Images are given to the decoders in files in memory, which are the parent's too and count for no process."""


class Memory:
    """The most memory that a process had at a time in the block: its own, and in files in memory that it holds."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.resident_bytes = self.bytes_in_files = self.samples = 0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _sample(self) -> None:
        while not self._stop.wait(0.01):
            self.resident_bytes = max(self.resident_bytes, self._process.memory_info().rss)
            self.bytes_in_files = max(self.bytes_in_files, bytes_in_files_in_memory(self._process.pid))
            self.samples += 1


def bytes_in_files_in_memory(pid: int) -> int:
    """The sizes of all files in memory that a process has open, each counted once."""
    sizes = {}
    folder = Path(f"/proc/{pid}/fd")
    for entry in folder.iterdir():
        try:
            if os.readlink(entry).startswith("/memfd:"):
                status = entry.stat()
                sizes[status.st_ino] = status.st_size
        except FileNotFoundError:  # closed meanwhile
            continue
    return sum(sizes.values())


def publish_as_body(dms: Dms, image: bytes, number: int) -> None:
    dms.publish_body(image, content_type="image/jpeg", message_id=f"event-{number}", headers={"asset_id": str(number)})


def publish_as_base64(dms: Dms, image: bytes, number: int) -> None:
    dms.publish(inline(image), asset_id=str(number))


@pytest.mark.parametrize("publish", [publish_as_body, publish_as_base64])
def test_sixty_four_messages_of_six_megabytes_are_answered_in_bounded_memory(
    publish: Callable[[Dms, bytes, int], None],
    broker: str,
    queue_prefix: str,
    tmp_path: Path,
    photographs: dict[str, Path],
) -> None:
    photograph = photographs["coffee"].read_bytes()
    image = photograph + bytes(IMAGE_BYTES - len(photograph))  # what follows the end of a JPEG is ignored
    with scene(broker, queue_prefix, tmp_path, photographs, TENSORFLOW__BATCH_TIMEOUT_S="150") as it:
        # Given large messages, as many as may be held at once, and a model that is slower than they come
        with it.service.paused():
            for number in range(MESSAGES):
                publish(it.dms, image, number)
            assert it.dms.depth("images.live") == MESSAGES
        with Memory(it.service.process.pid) as memory:
            until(lambda: it.dms.depth("results"), "the first was answered")
            model = it.child("model")
            send(model, signal.SIGSTOP)
            in_hand = settled_number(lambda: (it.service.status() or {})["events_in_hand"])
            waiting = it.dms.depth("images.live")
            assert model.status() == psutil.STATUS_STOPPED
            send(model, signal.SIGCONT)
            found = it.dms.results(MESSAGES, within_s=180)
        # Then each is answered
        assert {message.data["asset_id"] for message in found} == {str(number) for number in range(MESSAGES)}
        assert {message.data["status"] for message in found} == {"tagged"}
        assert it.dms.depth("dead-letters") == 0
        # And the parent had only so much of them at a time
        held = f"{memory.resident_bytes / MEBIBYTE:.0f} MiB resident, {memory.bytes_in_files / MEBIBYTE:.0f} in files"
        held += f"; {in_hand} in hand, {waiting} in the queue"
        assert memory.resident_bytes < MOST_RESIDENT_BYTES, held
        assert memory.bytes_in_files < MOST_BYTES_IN_FILES, held


class Uploads:
    """Clients that upload files of this size to the status page, one after the other, until the block ends."""

    def __init__(self, url: str, body: bytes, clients: int) -> None:
        self._address = urlsplit(url)
        self._body = body
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._upload, daemon=True) for _ in range(clients)]
        self.answers: Counter[int] = Counter()

    def __enter__(self) -> Uploads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _upload(self) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "x-autotag-file": "a.jpg", "Accept": "application/json"}
        while not self._stop.is_set():
            client = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=60)
            with suppress(OSError, http.client.HTTPException), closing(client):  # an early answer closes it
                client.request("POST", "/try", self._body, headers)
                self.answers[client.getresponse().status] += 1


@pytest.mark.parametrize("upload_bytes", [25_000_000, 15_000_000])
def test_messages_of_16_megabytes_and_uploads_on_ten_connections_leave_the_parent_below_120_megabytes(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path], upload_bytes: int
) -> None:
    image = photographs["coffee"].read_bytes()
    content = {"base64": base64.b64encode(image.ljust(INLINE_BYTES, b"\0")).decode()}
    settings = {"HTTP__TOKEN": TOKEN, "DECODER__MAXIMUM_MEMORY_BYTES": "1GiB", "TENSORFLOW__BATCH_TIMEOUT_S": "60"}
    with scene(broker, queue_prefix, tmp_path, photographs, **settings) as it:

        def publish() -> None:
            dms = Dms(broker, it.dms.prefix)
            with closing(dms):
                for _ in range(6):
                    it.ledger.published.add(dms.publish(content))

        publishers = [threading.Thread(target=publish) for _ in range(5)]
        body = image.ljust(upload_bytes, b"\0")
        with Memory(it.service.process.pid) as memory, Uploads(http_url(it.service), body, 5) as uploads:
            for publisher in publishers:
                publisher.start()
            for publisher in publishers:
                publisher.join()
            it.ledger.settle(within_s=240)
        assert it.ledger.statuses() == {"tagged"}
        assert uploads.answers[413 if upload_bytes > IMAGE_LIMIT else 200] > 0, uploads.answers
        assert memory.resident_bytes < MOST_RESIDENT_BYTES, memory.resident_bytes
        # One message is in hand, or two where each lane has one; a third would be too many. One upload is read.
        assert memory.bytes_in_files < 3 * INLINE_BYTES + upload_bytes + PIXELS_BYTES, memory.bytes_in_files


def settled_number(poll: Callable[[], int]) -> int:
    """A number once it has been the same for three seconds."""
    last, since_s = poll(), time.monotonic()

    def settled() -> bool:
        nonlocal last, since_s
        if (now := poll()) != last:
            last, since_s = now, time.monotonic()
        return time.monotonic() - since_s > 3

    until(settled, "no more events were taken, and none was answered")
    return last
