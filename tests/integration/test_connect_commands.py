"""`autotag connect check`, `report` and `dead-letters --connection`, as an operator types them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.delivering import NAME, ResultPublisher, connection_settings, delivering
from tests.support.fake_targets import PLAIN, PlainTarget, Reply, serving_target
from tests.support.polling import eventually
from tests.support.tenants import as_toml
from worker.connect.ledger import AssetRecord, OwnTag, TagLedger
from worker.connect.service import LEDGER_FILE


def autotag(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    command = [sys.executable, "-m", "worker", "--config", str(folder / "autotag.toml"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=folder)


def started_connector(folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    command = [sys.executable, "-m", "worker", "--config", str(folder / "autotag.toml"), "connect"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)


async def test_an_operator_checks_a_target_reads_what_people_removed_and_lists_its_dead_letters(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    plain = PlainTarget()
    plain.assets["7"] = ["Holiday"]
    with serving_target(plain):
        connection = {**PLAIN, "url": plain.url}
        tree = {
            "state_dir": str(tmp_path),
            "amqp": {"url": broker, "queue_prefix": queue_prefix},
            "connect": {NAME: connection},
        }
        (tmp_path / "autotag.toml").write_text(as_toml(tree))
        (tmp_path / "autotag.toml").chmod(0o600)
        async with delivering(broker, queue_prefix, connection, tmp_path / LEDGER_FILE) as it:
            it.results.result("7", ["cat", "x" * 50])
            await eventually(lambda: it.counted("dead_letter") == 1, "one is set aside")
            await eventually(lambda: it.results.depth(it.results.names.dead_letters_queue) == 1, "it is there")
            listed = autotag(tmp_path, "dead-letters", "list", "--json", "--connection", NAME)
            assert listed.returncode == 0, listed.stderr
            [letter] = map(json.loads, listed.stdout.splitlines())
            assert (letter["connection"], letter["asset_id"], letter["reason"]) == (NAME, "7", "target_rejected")
            other = autotag(tmp_path, "dead-letters", "list", "--connection", "other")
            assert "no such dead letters" in other.stdout
        writes = len(plain.writes)
        fine = autotag(tmp_path, "connect", "check", "--json")
        assert fine.returncode == 0, fine.stdout + fine.stderr
        assert "asset 7 has 2 tags" in json.loads(fine.stdout)["message"]
        plain.fault = lambda _request: Reply(401, plain.token.encode())
        refused = autotag(tmp_path, "connect", "check", NAME)
        assert refused.returncode == 1
        assert "401" in refused.stdout
        assert plain.token not in refused.stdout
        assert len(plain.writes) == writes, "a check writes nothing"


@pytest.mark.parametrize("label", ["cat", 'a "cat" \\ here'])
def test_the_report_has_a_rule_that_can_be_pasted_into_the_settings(tmp_path: Path, label: str) -> None:
    ledger = TagLedger(tmp_path / LEDGER_FILE)
    unwanted = OwnTag(label, label, "tensorflow")
    for number in range(4):
        ledger.put(NAME, str(number), AssetRecord(removed=(unwanted,)))
    ledger.put(NAME, "5", AssetRecord(mine=(unwanted,), removed=(OwnTag("dog", "dog", "tensorflow"),)))
    ledger.close()
    tree = {"state_dir": str(tmp_path), "connect": {NAME: {**PLAIN, "url": "http://127.0.0.1:9"}}}
    (tmp_path / "autotag.toml").write_text(as_toml(tree))
    (tmp_path / "autotag.toml").chmod(0o600)

    shown = autotag(tmp_path, "connect", "report")
    assert shown.returncode == 0, shown.stderr
    assert f"{NAME}: {label} (tensorflow): removed from 4, stands on 1" in shown.stdout
    rule = shown.stdout[shown.stdout.index("[instances") :]
    (tmp_path / "autotag.toml").write_text(as_toml(tree) + "\n" + rule)
    settings = autotag(tmp_path, "config", "show", "--json", "--instance", "default")
    assert settings.returncode == 0, settings.stderr
    assert json.dumps(label)[1:-1] in settings.stdout or label in settings.stdout


async def test_try_shows_the_write_that_the_connector_would_make_and_the_connector_makes_it(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    plain = PlainTarget()
    plain.assets["7"] = ["Holiday"]
    with serving_target(plain):
        connection = {**PLAIN, "url": plain.url}
        tree = {
            "state_dir": str(tmp_path),
            "amqp": {"url": broker, "queue_prefix": queue_prefix},
            "connector": {"http": {"enabled": False}},
            "connect": {NAME: connection},
        }
        (tmp_path / "autotag.toml").write_text(as_toml(tree))
        (tmp_path / "autotag.toml").chmod(0o600)
        settings = connection_settings(broker, queue_prefix, connection)
        results = ResultPublisher(broker, queue_prefix, settings)
        results.declare()
        connector = started_connector(tmp_path)
        try:
            url = ("--content", f"{plain.url}/7.jpg", "--timeout", "30", "--json")
            trying = asyncio.create_task(
                asyncio.to_thread(autotag, tmp_path, "connect", "try", NAME, "--asset", "7", *url)
            )
            # The service's part: it takes the event, and publishes a result with the event's context
            event = await eventually(results.take_event, "the event is published", within_s=30)
            assert event["data"]["context"] == {"connect_try": NAME}
            results.result("7", ["cat"], connect=None, event_id=event["id"], connect_try=NAME)
            tried = await trying
            assert tried.returncode == 0, tried.stderr
            shown = json.loads(tried.stdout)
            assert (shown["add"], shown["remove"], shown["standing"]) == (["cat"], [], ["Holiday"])
            assert shown["requests"] == [f"PUT {plain.url}/assets/7/tags/cat"]
            assert plain.assets["7"] == ["Holiday"], "nothing was written"
            # A result of the connection itself is written
            results.result("7", ["cat"])
            await eventually(lambda: plain.assets["7"] == ["Holiday", "cat"], "it is written", within_s=30)
            connector.terminate()
            assert connector.wait(timeout=20) == 0
        finally:
            connector.kill()
            connector.wait()
            results.clean()
