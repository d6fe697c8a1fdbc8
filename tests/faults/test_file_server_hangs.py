"""The file server of one instance hangs: opening a file there never returns."""

from __future__ import annotations

import logging
from pathlib import Path

import psutil

from tests.support.hung_files import hung_file_system
from tests.support.neighbours import ImageHost, watching
from tests.support.polling import until
from tests.support.scene import scene

_log = logging.getLogger(__name__)

SETTINGS = {
    "SOURCES__URL_ALLOWED_HOSTS": '["127.0.0.1:*"]',
    "SOURCES__URL_ALLOW_PRIVATE_ADDRESSES": "true",
    "SOURCES__TOTAL_TIMEOUT_S": "5",
    "SOURCES__CIRCUIT_OPEN_S": "3",
}


def test_a_hung_file_server_stops_neither_urls_nor_the_files_of_others_and_holds_few_threads(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    with (
        scene(broker, queue_prefix, tmp_path, photographs, **SETTINGS) as it,
        watching(broker, queue_prefix) as watch,
        ImageHost(it.good.read_bytes()) as host,
        hung_file_system(tmp_path / "hung") as folder,
    ):
        # Given how long events of an instance take, with images by path and by URL
        def by_path() -> str:
            return it.dms.publish({"path": str(it.good)}, instance="quiet")

        def by_url() -> str:
            return it.dms.publish({"url": host.url}, instance="quiet")

        watch.median_s(by_path, 5)
        usual_s = watch.median_s(by_path, 15), watch.median_s(by_url, 15)
        # When 240 events of another instance name files on the server that hangs
        for number in range(240):
            it.dms.publish({"path": str(folder / f"{number}.jpg")}, instance="hung")
        beside_s = watch.median_s(by_path, 15), watch.median_s(by_url, 15)
        # Then those of the first take hardly longer
        _log.warning("path: %.3f s -> %.3f s; url: %.3f s -> %.3f s", usual_s[0], beside_s[0], usual_s[1], beside_s[1])
        assert all(beside < 3 * usual + 0.3 for usual, beside in zip(usual_s, beside_s, strict=True))
        # And when opening has been given up, the server is left alone, and only probed
        until(lambda: it.logged("event ended", reason="content_unreachable"), "the fault happened")
        until(lambda: len(it.logged("event ended", reason="source_circuit_open")) > 300, "events wait for the server")
        threads = psutil.Process(it.service.process.pid).num_threads()
        assert threads < 60, "calls that do not return hold few threads"
        assert watch.median_s(by_path, 15) < 3 * usual_s[0] + 0.3
        assert it.dms.depth("dead-letters") == 0, "waiting for the server is no attempt"
