"""`autotag dead-letters`: list what could not be done, remove the cause, replay it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.polling import until
from tests.support.service import Dms, running_service


def test_an_operator_lists_mends_and_replays_what_could_not_be_done(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "cup.jpg").write_bytes(b"not an image yet")
    roots = json.dumps([str(images)])
    with running_service(broker, queue_prefix, tmp_path / "run", SOURCES__PATH_ROOTS=roots) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        # Given two events that could not be done: a file that is no image, and no event at all
        event = dms.publish({"path": "cup.jpg"}, asset_id="the cup")
        dms.publish_body(b"no json")
        until(lambda: dms.depth("dead-letters") == 2, "both were dead-lettered")
        dms.results_of([event])
        # When they are listed, each has its reason, and nothing changes
        listed = service.autotag("dead-letters", "list", "--json")
        letters = {letter["reason"]: letter for letter in map(json.loads, listed.stdout.splitlines())}
        assert set(letters) == {"image_unrecognised", "event_not_json"}
        assert letters["image_unrecognised"]["asset_id"] == "the cup"
        shown = json.loads(service.autotag("dead-letters", "show", letters["image_unrecognised"]["id"]).stdout)
        assert json.loads(shown["event"])["data"]["content"] == {"path": "cup.jpg"}
        # RabbitMQ requeues asynchronously what a command has only browsed
        until(lambda: dms.depth("dead-letters") == 2, "both are still there")
        assert service.autotag("dead-letters", "show", "no such id").returncode == 1
        # And when the cause is removed and the letter with that reason replayed, it is tagged
        (images / "cup.jpg").write_bytes(photographs["coffee"].read_bytes())
        replayed = service.autotag("dead-letters", "replay", "--reason", "image_unrecognised", "--json")
        assert json.loads(replayed.stdout) == {"replayed": 1}
        found = dms.results_of([event])[event][0].data
        assert "espresso" in {tag["name"] for tag in found["tags"]}
        # And the other is purged, but only with --yes
        assert service.autotag("dead-letters", "purge", "--reason", "event_not_json").returncode != 0
        until(lambda: dms.depth("dead-letters") == 1, "the other is still there")
        assert service.autotag("dead-letters", "purge", "--reason", "event_not_json", "--yes").returncode == 0
        assert dms.depth("dead-letters") == 0
        dms.close()
        assert service.stop() == 0


def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    ids = [f"7f3c0000-0000-4000-8000-00000000000{number}" for number in range(3)] + ["9a00-only", "1b2c3d4e-x"]
    with running_service(broker, queue_prefix, tmp_path / "run") as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        for each in ids:
            dms.publish_body(b"no json", message_id=each)
        until(lambda: dms.depth("dead-letters") == len(ids), "all were dead-lettered")

        def letters(*words: str) -> tuple[int, str, str]:
            until(lambda: dms.depth("dead-letters") == left, "what was browsed is back")
            done = service.autotag("dead-letters", *words)
            return done.returncode, done.stdout, done.stderr

        left = len(ids)
        # Listed on a narrow screen, ids are whole
        status, listed, _ = letters("list")
        assert status == 0
        assert [line.split()[0] for line in listed.splitlines()[::2]] == ids
        # The only one that begins so
        status, shown, _ = letters("show", "9a00", "--json")
        assert (status, json.loads(shown)["id"], shown.count("\n")) == (0, "9a00-only", 1)
        # More than one: refused, and they are named
        for command in (["show", "7f3c"], ["replay", "--id", "7f3c"], ["purge", "--yes", "--id", "7f3c"]):
            status, out, errors = letters(*command)
            assert (status, out) == (1, "")
            assert "3 ids begin with 7f3c" in errors
            assert all(each in errors for each in ids[:3])
            assert ids[3] not in errors
        # None, and one that is too short to be meant
        for start in ("7f3d", "9a0", ""):
            status, out, errors = letters("purge", "--yes", "--id", start)
            assert (status, out) == (1, "")
            assert "there is no dead letter" in errors
        # Purged and replayed is only the one that is meant
        assert letters("purge", "--yes", "--id", "9a00-on", "--json")[:2] == (0, '{"purged": 1}\n')
        left -= 1
        status, listed, _ = letters("list", "--json", "--id", "1b2c")
        assert [json.loads(line)["id"] for line in listed.splitlines()] == ["1b2c3d4e-x"]
        assert letters("replay", "--id", "1b2c", "--json")[:2] == (0, '{"replayed": 1}\n')
        until(lambda: dms.depth("dead-letters") == left, "what is no JSON has become a dead letter again")
        dms.close()
        assert service.stop() == 0


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202egpj.exe"
SHOWN = r"\x1b]0;owned\x07\x9b31m\u202egpj.exe"


def test_a_hostile_letter_commands_no_terminal_and_keeps_its_value_in_json(
    broker: str, queue_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    asset = "cup" + HOSTILE.partition("\x07")[2]  # an asset's id may not have the characters before
    (tmp_path / asset).write_bytes(b"no image")
    roots = json.dumps([str(tmp_path)])
    with running_service(broker, queue_prefix, tmp_path / "run", SOURCES__PATH_ROOTS=roots) as service:
        service.ready(within_s=120)
        dms = Dms(broker, queue_prefix)
        # Given letters whose asset, message and id hold commands for a terminal and reverse the text
        body = json.dumps({"asset_id": asset, "content": {"path": asset}}).encode()
        dms.publish_body(body, message_id="one")
        dms.publish_body(b"no json", message_id=f"id{HOSTILE}")
        until(lambda: dms.depth("dead-letters") == 2, "both were dead-lettered")
        # When they are listed and shown
        table = service.autotag("dead-letters", "list")
        until(lambda: dms.depth("dead-letters") == 2, "what was browsed is back")
        listed = service.autotag("dead-letters", "list", "--json")
        until(lambda: dms.depth("dead-letters") == 2, "both are still there")
        shown = service.autotag("dead-letters", "show", f"id{HOSTILE}")
        unknown = service.autotag("dead-letters", "show", f"none{HOSTILE}")
        # Then a terminal would obey nothing of it
        for done in (table, listed, shown, unknown):
            assert [each for each in (done.stdout + done.stderr).replace("\n", "") if not each.isprintable()] == []
        # And people see what was there
        assert f"id{SHOWN}" in table.stdout
        assert r"cup\x9b31m\u202egpj.exe" in table.stdout
        assert f"none{SHOWN}" in unknown.stderr
        # And programs read the value itself
        letters = {letter["id"]: letter for letter in map(json.loads, listed.stdout.splitlines())}
        assert letters["one"]["asset_id"] == asset
        assert json.loads(shown.stdout)["id"] == f"id{HOSTILE}"
        dms.close()
        assert service.stop() == 0
