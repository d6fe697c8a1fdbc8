"""Chaos for the connector: 2,000 results into a target that fails, stalls and goes away, connector and broker killed.

In the end every asset has exactly the right tags, no person's tag was touched, and nothing is lost. The seed is in the
table, and read from AUTOTAG_TEST_SEED.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rabbitmq_node import PrivateBroker

from tests.support.connector import running_connector
from tests.support.delivering import ResultPublisher, connection_settings
from tests.support.fake_targets import PLAIN, PlainTarget, Reply, Request, serving_target
from tests.support.polling import until
from tests.systems.conftest import Table

pytestmark = pytest.mark.timeout(1500)

ASSETS, ROUNDS = 500, 4
LABELS = [f"label {number}" for number in range(30)]
COMMON = "removed by a person"
CHAOS_S = 90.0
_CONFIGURATION = """
[retry]
maximum_number_of_attempts = 100
[connector]
delays_s = [0.3, 1, 5]
[connect.photos]
url = "{url}"
credential = {{ kind = "header", header = "x-api-key", value = "{key}" }}
[connect.photos.target]
enabled = true
timeout_s = 2
writes_per_s = 1000
read = {{ path = "/assets/{{asset_id}}/tags" }}
add = {{ method = "PUT", path = "/assets/{{asset_id}}/tags/{{tag}}" }}
remove = {{ method = "DELETE", path = "/assets/{{asset_id}}/tags/{{tag}}" }}
probe = {{ path = "/ping" }}
"""


@dataclass
class BadTarget:
    """Answers in the target's place, more often badly the worse it gets: by chance, or all of it while it is away."""

    chance: random.Random
    share: float = 0.0
    away: bool = False
    answers: Counter[str] = field(default_factory=Counter)

    def fault(self, request: Request) -> Reply | None:
        if self.away:
            self.answers["away"] += 1
            raise OSError("it is away")  # the connection is closed without an answer
        if self.chance.random() >= self.share:
            return Reply(0)
        kind = self.chance.choice(["500", "503", "429", "garbage", "reset", "stall"])
        self.answers[kind] += 1
        match kind:
            case "500" | "503":
                return Reply(int(kind), b"<html>oops</html>", {"Content-Type": "text/plain"})
            case "429":
                return Reply(429, b"", {"Retry-After": "1"})
            case "garbage" if not request.is_write:  # a write that was not made is not answered so
                return Reply(200, b'[{"nam', {"Content-Type": "application/json"})
            case "reset" | "garbage":
                raise OSError("reset")
        time.sleep(2.5)  # longer than `timeout_s`
        raise OSError("stalled")


class KilledConnector:
    """A connector that is killed and started again. `start` returns once it is ready, whatever RabbitMQ does."""

    def __init__(self, node: PrivateBroker, folder: Path, configuration: str) -> None:
        self._arguments = (node.url, "chaos", folder, configuration)
        self._stack = ExitStack()
        self.started = 0

    def start(self) -> None:
        self._stack = ExitStack()
        self.running = self._stack.enter_context(running_connector(*self._arguments))
        self.started += 1

    def kill(self) -> None:
        self._stack.close()  # SIGKILL


@contextmanager
def chaos(act: Callable[[], None]) -> Iterator[None]:
    """Does things to all of them, one after the other, for the length of the block."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                act()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if failures:
            raise failures[0]


def right_tags(theirs: list[str], ours: list[str]) -> set[str]:
    """People's tags, and those of ours that are not theirs, however these are written."""
    known = {tag.casefold() for tag in theirs}
    return {*theirs, *(tag for tag in ours if tag.casefold() not in known)}


def test_every_asset_has_the_right_tags_after_all_of_it(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path, table: Table
) -> None:
    seed = int(os.environ.get("AUTOTAG_TEST_SEED", "1"))
    chance = random.Random(seed)
    node = private_broker()
    target, bad = PlainTarget(), BadTarget(random.Random(seed))
    theirs = {str(asset): ["Holiday", chance.choice(LABELS).upper()] for asset in range(ASSETS)}
    target.assets = {asset: list(tags) for asset, tags in theirs.items()}
    target.fault = bad.fault
    wanted: dict[str, list[str]] = {}
    with serving_target(target), ExitStack() as stack:
        settings = connection_settings(node.url, "chaos", {**PLAIN, "url": target.url})
        results = ResultPublisher(node.url, "chaos", settings)
        connector = KilledConnector(node, tmp_path, _CONFIGURATION.format(url=target.url, key=target.token))
        stack.callback(connector.kill)
        connector.start()
        # RabbitMQ 3 breaks off the connection of anyone who asks for a queue while another declares it.
        until(lambda: "results are taken" in connector.running.logged(), "its queue is there")
        node.flush_metadata()

        def publish(minute: int) -> None:
            for asset in theirs:
                wanted[asset] = [COMMON, *chance.sample(LABELS, 4)]
                results.result(asset, wanted[asset], minute=minute)

        # Given assets with tags of people's, to which ours are added, and of which people remove one
        publish(0)
        until(lambda: all(COMMON in tags for tags in target.assets.values()), "all are tagged", within_s=180)
        until(lambda: results.waiting() == 0, "nothing waits")
        removed = set(chance.sample(sorted(theirs), 50))
        for asset in removed:
            target.assets[asset].remove(COMMON)
        # When further results come while everything fails that can
        done: Counter[str] = Counter()

        def act() -> None:
            kind = chance.choice(["connector", "broker", "target", "share"])
            done[kind] += 1
            if kind == "connector":
                connector.kill()
                connector.start()
            elif kind == "broker":
                node.kill()
                time.sleep(chance.uniform(0, 2))
                node.start()
            elif kind == "target":
                bad.away = True
                time.sleep(chance.uniform(0.2, 4))
                bad.away = False
            bad.share = chance.choice([0.02, 0.1, 0.3])
            time.sleep(chance.uniform(0.2, 3))

        for minute in range(1, ROUNDS):
            publish(minute)
        results.close()  # it would be lost with the broker
        with chaos(act):
            time.sleep(CHAOS_S)
        bad.share, bad.away = 0.0, False
        results = ResultPublisher(node.url, "chaos", settings)
        stack.callback(results.close)

        # Then each asset comes to have exactly what it should
        right = {
            asset: right_tags(tags, [tag for tag in wanted[asset] if tag != COMMON or asset not in removed])
            for asset, tags in theirs.items()
        }

        def all_right() -> bool:
            return {asset: set(tags) for asset, tags in target.assets.items()} == right

        until(lambda: results.waiting() == 0 and all_right(), f"all are right, after {dict(done)}", within_s=300)
        assert results.dead_letters() == []
        assert all(set(tags) <= set(target.assets[asset]) for asset, tags in theirs.items())
        assert all(len(tags) == len(set(tags)) for tags in target.assets.values())
        assert min(done[kind] for kind in ("connector", "broker", "target")) > 0, done
        what = f"seed {seed}: {dict(done)}; connector started {connector.started} times; target: {dict(bad.answers)}"
        table.row("Chaos: 2,000 results for 500 assets", what, ["all right, 0 lost, 0 of people's touched"])
