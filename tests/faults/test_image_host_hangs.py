"""The image host of one instance, or of many, accepts connections and never answers, or answers 503."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.neighbours import ImageHost, ResultsWatch, watching
from tests.support.polling import until
from tests.support.scene import Scene, scene

_log = logging.getLogger(__name__)

URLS = {"SOURCES__URL_ALLOWED_HOSTS": '["127.0.0.1:*"]', "SOURCES__URL_ALLOW_PRIVATE_ADDRESSES": "true"}


@pytest.fixture
def it(broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path) -> Iterator[Scene]:
    with scene(broker, queue_prefix, tmp_path, photographs, **URLS) as it:
        yield it


@pytest.fixture
def watch(it: Scene, broker: str) -> Iterator[ResultsWatch]:
    with watching(broker, it.dms.prefix) as watch:
        yield watch


def test_with_one_instances_host_hung_anothers_events_take_at_most_three_times_as_long(
    it: Scene, watch: ResultsWatch
) -> None:
    with ImageHost() as hung, ImageHost(it.good.read_bytes()) as host:
        # Given how long an event of an instance takes, with images by path and by URL
        for content in ({"path": str(it.good)}, {"url": host.url}):

            def publish(content: dict[str, str] = content) -> str:
                return it.dms.publish(content, instance="quiet")

            watch.median_s(publish, 5)
            usual_s = watch.median_s(publish, 15)
            # When 240 events of another instance wait, whose image host hangs
            for _ in range(240):
                it.dms.publish({"url": hung.url}, instance="hung")
            first_s = watch.took_s(publish)
            beside_s = watch.median_s(publish, 15)
            assert hung.accepted, "the host was asked, and hangs"
            _log.warning(f"usual {usual_s:.3f} s, first {first_s:.3f} s, beside the hung host {beside_s:.3f} s")
            # Then it takes hardly longer
            assert beside_s < 3 * usual_s + 1.5
            assert first_s < 3 * usual_s + 1.0


def test_with_eight_instances_hosts_hung_a_ninths_events_are_fetched_as_ever(it: Scene, watch: ResultsWatch) -> None:
    with ExitStack() as hosts, ImageHost(it.good.read_bytes()) as host:
        hung = [hosts.enter_context(ImageHost()) for _ in range(8)]

        def publish() -> str:
            return it.dms.publish({"url": host.url}, instance="ninth")

        watch.median_s(publish, 5)
        usual_s = watch.median_s(publish, 15)
        for _ in range(30):
            for number, each in enumerate(hung):
                it.dms.publish({"url": each.url}, instance=f"hung-{number}")
        until(lambda: all(each.accepted for each in hung), "each of the hosts was asked and hangs")
        beside_s = watch.median_s(publish, 15)
        _log.warning(f"usual {usual_s:.3f} s, beside eight hung hosts {beside_s:.3f} s")
        assert beside_s < 3 * usual_s + 1.5


@pytest.mark.parametrize("unavailable", [False, True], ids=["hangs", "answers 503"])
def test_a_host_that_fails_is_left_alone_and_its_events_use_up_no_attempts(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path, unavailable: bool
) -> None:
    short = {
        "SOURCES__READ_TIMEOUT_S": "0.5",
        "SOURCES__RETRIES": "0",
        "SOURCES__CIRCUIT_OPEN_S": "2",
        "RETRY__MAXIMUM_NUMBER_OF_ATTEMPTS": "4",
    }
    with (
        scene(broker, queue_prefix, tmp_path, photographs, **URLS, **short) as it,
        ImageHost(unavailable=unavailable) as host,
    ):
        # Given 100 events whose host fails, each of which is failed after four attempts
        ids = {it.dms.publish({"url": host.url}, instance="hung") for _ in range(100)}
        until(lambda: it.logged("event ended", reason="source_circuit_open"), "the circuit has opened")
        asked = host.accepted
        until(lambda: len(it.logged("event ended", reason="source_circuit_open")) > 400, "they came back and back")
        assert host.accepted < asked + 20, "meanwhile the host was probed and no more"
        # When the host answers again
        host.answer_with(it.good.read_bytes())
        # Then all but a few that were probes are tagged
        it.ledger.published |= ids
        it.ledger.settle(within_s=120)
        failed = [event for event in ids if event in it.ledger.dead]
        _log.warning(f"{len(failed)} of {len(ids)} failed")
        assert len(failed) <= 3
