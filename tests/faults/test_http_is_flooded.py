"""Clients of the HTTP port hold connections on which nothing happens, or half of a request."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.monitoring import fetch, http_url, total
from tests.support.polling import until
from tests.support.processes import descriptors
from tests.support.scene import Scene, scene

DESCRIPTORS = 1024
HALF_A_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "
NO_BODY = b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 100\r\n\r\n"


@pytest.fixture(scope="module")
def small(
    broker: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Scene, str]]:
    """A service that may have 1,024 descriptors, and its URL."""
    folder = tmp_path_factory.mktemp("flooded")
    prefix = f"flooded-{time.time_ns()}"
    with descriptors(DESCRIPTORS):
        running = scene(broker, prefix, folder, photographs)
        it = running.__enter__()
    try:
        assert psutil.Process(it.service.process.pid).rlimit(resource.RLIMIT_NOFILE)[0] == DESCRIPTORS
        yield it, http_url(it.service)
    finally:
        running.__exit__(None, None, None)


@contextmanager
def held(url: str, number: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each of which sends these bytes and then nothing."""
    parts = urlsplit(url)
    clients: list[socket.socket] = []
    try:
        for _ in range(number):
            clients.append(socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=10))
            if sent:
                with suppress(ConnectionError):
                    clients[-1].sendall(sent)
        yield clients
    finally:
        for client in clients:
            client.close()


def still_open(clients: list[socket.socket]) -> int:
    """How many of these connections the service has not closed."""
    found = 0
    for client in clients:
        client.setblocking(False)
        try:
            found += client.recv(1 << 16) != b""
        except BlockingIOError:
            found += 1
        except ConnectionError:
            pass
    return found


def assert_that_nothing_was_a_fault_of_ours(it: Scene) -> None:
    assert [line for line in it.lines() if "exception" in line] == []
    assert "Traceback" not in it.service.logged()


def test_twelve_hundred_idle_connections_stop_neither_tagging_nor_health_nor_the_control_socket(
    small: tuple[Scene, str],
) -> None:
    it, url = small
    # Given more idle connections than the service has descriptors
    with held(url, 1200) as clients:
        assert len(clients) > DESCRIPTORS
        # When events come
        ids = it.load(60)
        # Then health is answered on a new connection, and so are the control socket and the page
        for path in ("/livez", "/readyz", "/"):
            assert fetch(f"{url}{path}").status == 200, path
        assert (it.service.status() or {})["ready"] is True
        # And every event is tagged, at its first attempt
        it.ledger.settle()
        assert it.ledger.statuses(ids) == {"tagged"}
        assert {line["attempt"] for line in it.logged("event ended")} == {1}
        open_files = psutil.Process(it.service.process.pid).num_fds()
        assert open_files < DESCRIPTORS / 2
        assert total(fetch(f"{url}/metrics").body, "autotag_http_connections_refused_total", reason="make_room") >= 900
    assert_that_nothing_was_a_fault_of_ours(it)


def test_two_hundred_half_sent_requests_keep_nobody_from_health_and_page(small: tuple[Scene, str]) -> None:
    it, url = small
    with held(url, 205, HALF_A_REQUEST) as clients:
        for path in ("/livez", "/readyz", "/startupz", "/"):
            assert fetch(f"{url}{path}").status == 200, path
        assert still_open(clients) > 150, "they were held meanwhile"
        # And they are closed when their time is over, although every one of them sends a byte now and then
        deadline_s = time.monotonic() + 15
        while still_open(clients):
            assert time.monotonic() < deadline_s
            for client in clients:
                with suppress(OSError):
                    client.send(b"a")
            time.sleep(0.2)
    assert_that_nothing_was_a_fault_of_ours(it)


def test_two_hundred_requests_without_their_bodies_keep_nobody_from_health_and_page(small: tuple[Scene, str]) -> None:
    it, url = small
    with held(url, 205, NO_BODY) as clients:
        for path in ("/livez", "/readyz", "/"):
            assert fetch(f"{url}{path}").status == 200, path
        assert still_open(clients) > 150, "they were held meanwhile"
        until(lambda: not still_open(clients), "they were closed when their time was over", within_s=15)
    assert_that_nothing_was_a_fault_of_ours(it)
