"""Results become tags in a target: what people have set stays, what they removed stays away, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.delivering import NAME, ResultPublisher, connection_settings, delivering, delivering_process
from tests.support.fake_targets import (
    PLAIN,
    FakeImmich,
    FakeNextcloud,
    FakePaperless,
    FakeResourceSpace,
    FakeTarget,
    PlainTarget,
    Reply,
    Request,
    serving_target,
)
from tests.support.polling import eventually, until
from worker.amqp.dead_letters import DeadLetters, Selection
from worker.settings.presets import preset

HTML = Reply(200, b"<html><h1>Please sign in</h1></html>", {"Content-Type": "text/html; charset=utf-8"})


@pytest.fixture
def plain() -> Iterator[PlainTarget]:
    target = PlainTarget()
    with serving_target(target):
        yield target


def plain_connection(target: FakeTarget, **changes: Any) -> dict[str, Any]:
    return {**PLAIN, "url": target.url, "target": {**PLAIN["target"], **changes}}


def with_preset(name: str, target: FakeTarget, **changes: Any) -> dict[str, Any]:
    """A connection of a preset, with its target alone."""
    return {"url": target.url, "target": {**preset(name)["target"], **changes}}


async def test_a_persons_tag_stays_and_one_that_a_person_removed_stays_away(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = ["Holiday", "CAT"]
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        it.results.result("7", ["cat", "sofa", "lamp"])
        await eventually(lambda: it.counted("written") == 1, "it is written")
        assert plain.assets["7"] == ["Holiday", "CAT", "sofa", "lamp"]
        # When a person removes one of ours, and the picture changes
        plain.assets["7"].remove("sofa")
        it.results.result("7", ["sofa", "dog"], minute=1)
        await eventually(lambda: it.counted("written") == 2, "it is written")
        # Then that stays away, and what is ours and no longer wanted is gone
        assert plain.assets["7"] == ["Holiday", "CAT", "dog"]
        labels = {"connection": "photos", "label": "sofa", "provider": "tensorflow"}
        assert it.registry.get_sample_value("autotag_connect_tags_removed_by_people_total", labels) == 1
        # And what says nothing about tags, or nothing new, writes nothing
        before = len(plain.writes)
        it.results.result("7", ["sofa", "dog"], minute=2)
        it.results.result("7", [], minute=3, status="failed")
        it.results.result("7", ["bird"], minute=4, connect="other")
        await eventually(lambda: it.counted("unchanged") + it.counted("failed") + it.counted("foreign") == 3, "all end")
        assert len(plain.writes) == before
        it.results.result("7", [], minute=6)
        await eventually(lambda: it.counted("written") == 3, "it is written")
        assert plain.assets["7"] == ["Holiday", "CAT"]
        assert it.results.waiting() == 0
        assert it.results.dead_letters() == []


# Systems


async def test_immich_gets_its_tags_again_that_its_metadata_extraction_has_dropped(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    immich = FakeImmich()
    immich.assets["a"] = ["holiday"]
    with serving_target(immich):
        connection = with_preset("immich", immich, settle_s=0.2, read_back_s=[2.0])
        connection["credential"] = {"kind": "header", "header": "x-api-key", "value": immich.token}
        async with delivering(broker, queue_prefix, connection, tmp_path / "ledger") as it:
            it.results.result("a", ["cat", "mountain/bike"])
            await eventually(lambda: it.counted("written") == 1, "it is written")
            assert immich.assets["a"] == ["holiday", "autotag/cat", "autotag/mountain bike"]
            # Given an extraction that comes after the write, and drops all tags
            immich.extracts_at_s["a"] = time.monotonic()
            # Then they are written once more, as nobody removed them
            await eventually(lambda: it.counted("written") == 2, "it is written once more")
            assert immich.assets["a"] == ["autotag/cat", "autotag/mountain bike"]
            assert it.ledger.removals() == []
            # And what a person removes afterwards stays away, with a result of an hour later
            immich.assets["a"].remove("autotag/cat")
            it.results.result("a", ["cat", "dog"], minute=60)
            await eventually(lambda: immich.assets["a"] == ["autotag/dog"], "the new ones stand")
            assert [each.label for each in it.ledger.removals()] == ["cat"]


async def test_nextcloud_gets_tags_by_ids_that_are_found_made_and_forgotten(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    cloud = FakeNextcloud()
    cloud.assets["437"] = ["Holiday"]
    cloud.tags = {"1": "Holiday", "2": "CAT"}
    long = "日本語" * 20
    with serving_target(cloud):
        connection = with_preset("nextcloud", cloud)
        connection["credential"] = {"kind": "basic", "username": "admin", "password": "app-password"}
        async with delivering(broker, queue_prefix, connection, tmp_path / "ledger") as it:
            it.results.result("437", ["cat", "a <b> & c", long])
            await eventually(lambda: it.counted("written") == 1, "it is written")
            assert cloud.assets["437"] == ["Holiday", "CAT", "a <b> & c", ("日本語" * 7)]
            # When an administrator deletes a tag whose id is remembered
            del cloud.tags["2"]
            cloud.assets["438"] = []
            it.results.result("438", ["cat"])
            await eventually(lambda: it.counted("written") == 2, "it is written")
            # Then it is found out, and the tag is made
            assert cloud.assets["438"] == ["cat"]
            it.results.result("437", ["dog"], minute=1)
            await eventually(lambda: it.counted("written") == 3, "it is written")
            assert set(cloud.assets["437"]) - {"CAT"} == {"Holiday", "dog"}
            assert it.results.dead_letters() == []


async def test_paperless_gets_numbers_of_tags_in_one_call(broker: str, queue_prefix: str, tmp_path: Path) -> None:
    paperless = FakePaperless()
    paperless.tags = {1: "Inbox", 2: "Cat"}
    paperless.assets["12"] = ["Inbox"]
    bulk = {"method": "POST", "path": "/api/documents/bulk_edit/", "each": "all"}
    body = {"documents": ["=to_number(asset_id)"], "method": "modify_tags"}
    with serving_target(paperless):
        connection = {
            "url": paperless.url,
            "credential": {"kind": "header", "header": "Authorization", "value": paperless.token},
            "target": {
                "enabled": True,
                "gone_on": [404],
                "read": {"path": "/api/documents/{asset_id}/", "tags": "tags"},
                "find": {"path": "/api/tags/?page_size=100000", "tags": "results[].{name: name, id: id}"},
                "create": {
                    "method": "POST",
                    "path": "/api/tags/",
                    "body": {"name": "=tag", "matching_algorithm": 0},
                    "id": "body.id",
                },
                "add": {**bulk, "body": {**body, "parameters": {"add_tags": "=tag_ids", "remove_tags": []}}},
                "remove": {**bulk, "body": {**body, "parameters": {"add_tags": [], "remove_tags": "=tag_ids"}}},
            },
        }
        async with delivering(broker, queue_prefix, connection, tmp_path / "ledger") as it:
            it.results.result("12", ["cat", "dog"])
            await eventually(lambda: it.counted("written") == 1, "it is written")
            assert paperless.assets["12"] == ["Inbox", "Cat", "dog"]
            it.results.result("12", ["dog", "bird"], minute=1)
            await eventually(lambda: it.counted("written") == 2, "it is written")
            assert paperless.assets["12"] == ["Inbox", "dog", "bird"]
            assert [each.path for each in paperless.writes].count("/api/documents/bulk_edit/") == 3


async def test_resourcespace_gets_signed_queries_and_a_false_is_no_success(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    space = FakeResourceSpace()
    space.assets = {"7": ["Holiday"], "8": []}
    space.locked = {"8"}
    credential = {"kind": "signed_query", "username": space.user, "secret_key": space.key}
    with serving_target(space):
        connection = with_preset("resourcespace", space) | {"credential": credential}
        async with delivering(broker, queue_prefix, connection, tmp_path / "ledger") as it:
            it.results.result("7", ["cat", 'big, "bad" dog', "crème & brûlée"])
            await eventually(lambda: it.counted("written") == 1, "it is written")
            assert space.assets["7"] == ["Holiday", "cat", "big bad dog", "crème & brûlée"]
            space.assets["7"].remove("cat")
            it.results.result("7", ["cat"], minute=1)
            await eventually(lambda: it.counted("written") == 2, "it is written")
            assert space.assets["7"] == ["Holiday"]
            it.results.result("8", ["cat"])
            await eventually(lambda: it.counted("dead_letter") == 1, "it is set aside")
            [(headers, _)] = it.results.dead_letters()
            assert headers["x-autotag-reason"] == "not_done"
            assert space.key not in str(headers)
            assert "sign" not in str(headers["x-autotag-message"])
        wrong = connection | {"credential": credential | {"secret_key": "another"}}
        async with delivering(broker, queue_prefix, wrong, tmp_path / "other-ledger") as it:
            it.results.result("7", ["bird"], minute=2)
            await eventually(lambda: it.deliverer.state.pause, "the target is left alone")
            assert it.deliverer.state.pause is not None
            assert it.deliverer.state.pause.reason == "unauthorized"


# What a target answers


async def test_a_target_that_fails_for_long_gets_everything_once_it_works_again(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets.update({str(number): [] for number in range(40)})
    plain.fault = lambda _request: Reply(500, b"oh no")
    others = {"retry": {"maximum_number_of_attempts": 2}}
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger", **others) as it:
        for number in range(40):
            it.results.result(str(number), ["cat"])
        await eventually(lambda: it.deliverer.state.pause, "the target is left alone")
        pause = it.deliverer.state.pause
        assert pause is not None
        assert pause.reason == "status_500"
        assert "oh no" in pause.message
        assert not it.deliverer.state.is_ready
        asked = len(plain.requests)
        await asyncio.sleep(1.5)
        assert len(plain.requests) - asked < 5, "it is not asked for each result"
        plain.fault = lambda _request: Reply(0)
        await eventually(lambda: all(tags == ["cat"] for tags in plain.assets.values()), "all are written", within_s=30)
        await eventually(lambda: it.results.waiting() == 0, "nothing waits")
        assert it.results.dead_letters() == [], "an outage is no attempt of theirs"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Reply(401, b"who are you?"), "unauthorized"),
        (Reply(403, b"no"), "forbidden"),
        (HTML, "web_page"),
        (Reply(302, b"", {"Location": "https://login.example/"}), "redirected"),
    ],
)
async def test_a_target_that_lets_nobody_in_is_left_alone_with_a_reason(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path, answer: Reply, reason: str
) -> None:
    plain.assets.update({str(number): [] for number in range(20)})
    plain.fault = lambda request: Reply(0) if request.path == "/ping" else answer
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        for number in range(20):
            it.results.result(str(number), ["cat"])
        await eventually(lambda: it.deliverer.state.pause, "the target is left alone")
        pause = it.deliverer.state.pause
        assert pause is not None
        assert pause.reason == reason
        assert plain.token not in pause.message
        labels = {"connection": NAME, "reason": reason}
        assert it.registry.get_sample_value("autotag_connect_target_paused", labels) == 1
        plain.fault = lambda _request: Reply(0)
        await eventually(lambda: all(tags == ["cat"] for tags in plain.assets.values()), "all are written", within_s=20)
        assert it.results.dead_letters() == []
        assert it.registry.get_sample_value("autotag_connect_target_paused", labels) == 0


async def test_one_asset_that_is_forbidden_does_not_stop_the_others(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets.update({str(number): [] for number in range(30)})
    plain.fault = lambda request: Reply(403, b"private") if request.path.startswith("/assets/0/") else Reply(0)
    others = {"retry": {"maximum_number_of_attempts": 2}}
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger", **others) as it:
        for number in range(30):
            it.results.result(str(number), ["cat"])
        await eventually(
            lambda: all(tags == ["cat"] for name, tags in plain.assets.items() if name != "0"), "others", within_s=20
        )
        letters: list[Any] = []

        def set_aside() -> bool:
            letters.extend(it.results.dead_letters())
            return bool(letters)

        await eventually(set_aside, "it is set aside after its attempts", within_s=20)
        assert letters[0][0]["x-autotag-reason"] == "asset_forbidden"
        assert letters[0][0]["x-autotag-asset"] == "0"


async def test_a_tag_that_the_target_refuses_costs_no_other_tag_and_the_letter_says_why_without_secrets(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = ["Holiday"]
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        it.results.result("7", ["cat", "x" * 50, "dog"])
        await eventually(lambda: it.counted("dead_letter") == 1, "it is set aside")
        assert plain.assets["7"] == ["Holiday", "cat", "dog"]
        queue = DeadLetters(it.settings.amqp, it.results.names)
        await eventually(lambda: it.results.depth(it.results.names.dead_letters_queue) == 1, "it is there")
        [letter] = await queue.browse(Selection(connection=NAME))
        assert letter.reason == "target_rejected"
        assert letter.asset == "7"
        assert letter.connection == NAME
        assert f"PUT /assets/7/tags/{'x' * 50} was answered with 400" in letter.message
        assert "[secret]" in letter.message
        assert plain.token not in letter.message
        # What did get there is ours: with the next result it goes, and the person's stays
        it.results.result("7", ["bird"], minute=1)
        await eventually(lambda: plain.assets["7"] == ["Holiday", "bird"], "ours are replaced")
        # And the letter, replayed, goes to this connection, where it is older than what has been written
        assert (await queue.replay(Selection(connection=NAME))).number == 1
        await eventually(lambda: it.counted("older") == 1, "it is older")
        assert plain.assets["7"] == ["Holiday", "bird"]


@pytest.mark.parametrize("answer", [b"\xff\x00garbage", b"{", b'{"tags": 1}', b"[" * 100_000, b"", b"null"])
async def test_garbage_is_no_list_of_tags_and_nothing_is_removed_or_lost(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path, answer: bytes
) -> None:
    plain.assets["7"] = ["Holiday"]
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        it.results.result("7", ["cat"])
        await eventually(lambda: it.counted("written") == 1, "it is written")
        plain.fault = lambda request: Reply(200, answer) if request.method == "GET" else Reply(0)
        it.results.result("7", ["dog"], minute=1)
        await eventually(lambda: it.counted("later") >= 1, "it waits")
        assert plain.assets["7"] == ["Holiday", "cat"]
        plain.fault = lambda _request: Reply(0)
        await eventually(lambda: plain.assets["7"] == ["Holiday", "dog"], "it is written", within_s=20)


async def test_a_target_that_never_answers_costs_only_time(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets.update({str(number): [] for number in range(10)})
    plain.fault = lambda _request: None
    connection = plain_connection(plain, timeout_s=0.3)
    async with delivering(broker, queue_prefix, connection, tmp_path / "ledger") as it:
        for number in range(10):
            it.results.result(str(number), ["cat"])
        await eventually(lambda: it.deliverer.state.pause, "the target is left alone")
        pause = it.deliverer.state.pause
        assert pause is not None
        assert pause.reason == "timed_out"
        plain.fault = lambda _request: Reply(0)
        await eventually(lambda: all(tags == ["cat"] for tags in plain.assets.values()), "all are written", within_s=30)
        assert it.results.dead_letters() == []


async def test_an_asset_that_was_deleted_is_no_failure(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = []

    def deleted_meanwhile(request: Request) -> Reply:
        if request.is_write:
            plain.assets.pop("7", None)
        return Reply(0)

    plain.fault = deleted_meanwhile
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        it.results.result("7", ["cat"])
        it.results.result("never there", ["cat"])
        await eventually(lambda: it.counted("gone") == 2, "both are gone")
        assert it.results.waiting() == 0
        assert it.results.dead_letters() == []


async def test_a_busy_target_is_given_the_time_it_asks_for(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = []
    busy = [Reply(429, b"slow down", {"Retry-After": "1"})]
    plain.fault = lambda _request: busy.pop() if busy else Reply(0)
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        began_s = time.monotonic()
        it.results.result("7", ["cat"])
        await eventually(lambda: plain.assets["7"] == ["cat"], "it is written", within_s=15)
        assert time.monotonic() - began_s >= 1


# Order, and what is remembered


async def test_results_out_of_order_end_as_if_they_had_been_in_order(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = []
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        it.results.result("7", ["dog"], minute=5)
        it.results.result("7", ["cat"], minute=1)
        await eventually(lambda: it.counted("older") == 1, "the other is older")
        assert plain.assets["7"] == ["dog"]
        it.results.result("7", ["bird"], minute=9)
        await eventually(lambda: it.counted("written") == 2, "it is newer")
        # An incomplete one only adds, and the complete one of the same event replaces it
        it.results.result("7", ["fish"], minute=10, complete=False)
        await eventually(lambda: it.counted("written") == 3, "it is written")
        assert plain.assets["7"] == ["bird", "fish"]
        it.results.result("7", ["fish"], minute=11)
        await eventually(lambda: it.counted("written") == 4, "it is written")
        assert plain.assets["7"] == ["fish"]


@pytest.mark.parametrize("loss", ["deleted", "truncated", "garbage"])
async def test_a_lost_ledger_only_ever_adds(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path, loss: str
) -> None:
    plain.assets["7"] = ["Holiday"]
    file = tmp_path / "state" / "ledger"
    async with delivering(broker, queue_prefix, plain_connection(plain), file) as it:
        it.results.result("7", ["cat"])
        await eventually(lambda: it.counted("written") == 1, "it is written")
        for each in file.parent.iterdir():
            if loss == "deleted":
                each.unlink()
            elif not each.name.endswith("-shm"):  # the kernel kills a process whose mapped file is cut
                each.write_bytes(b"" if loss == "truncated" else b"not a ledger" * 1000)
        it.results.result("7", ["dog"], minute=1)
        await eventually(lambda: "dog" in plain.assets["7"], "it is written")
        assert plain.assets["7"] == ["Holiday", "cat", "dog"] or loss != "deleted"
        assert plain.assets["7"][0] == "Holiday"
        it.results.result("7", ["bird"], minute=2)
        await eventually(lambda: "bird" in plain.assets["7"], "it is written")
        assert plain.assets["7"][:2] == ["Holiday", "cat"] or loss != "deleted"


async def test_a_ledger_that_cannot_be_written_removes_nothing_and_says_so(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = ["Holiday"]
    (tmp_path / "ledger").mkdir()
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        for minute, name in enumerate(["cat", "dog"]):
            it.results.result("7", [name], minute=minute)
        await eventually(lambda: plain.assets["7"] == ["Holiday", "cat", "dog"], "they are added")
        assert "none removed" in str(it.deliverer.state.ledger_fault)


@pytest.mark.parametrize("body", [b"", b"{}", b"no json", b"[]", b'{"data": {}}', b"\xff" * 1000])
async def test_what_is_no_result_is_set_aside(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path, body: bytes
) -> None:
    async with delivering(broker, queue_prefix, plain_connection(plain), tmp_path / "ledger") as it:
        it.results.publish("default.tagged", body)
        await eventually(lambda: it.counted("dead_letter") == 1, "it is set aside")
        await eventually(lambda: it.results.depth(it.results.names.dead_letters_queue) == 1, "it is there")
        [(headers, kept)] = it.results.dead_letters()
        assert headers["x-autotag-reason"] == "result_unreadable"
        assert kept == body


# Ends of processes and brokers


async def test_a_connector_that_is_killed_between_a_write_and_its_ack_writes_nothing_twice_and_loses_nothing(
    broker: str, queue_prefix: str, plain: PlainTarget, tmp_path: Path
) -> None:
    plain.assets["7"] = ["Holiday"]
    settings = connection_settings(broker, queue_prefix, plain_connection(plain))
    results = ResultPublisher(broker, queue_prefix, settings)
    written: list[str] = []

    def killed_once(request: Request) -> Reply:
        if request.is_write and not written:
            plain.answer(request)  # it is done
            process.kill()  # and nobody is there to get the answer
            written.append(request.path)
        return Reply(0)

    plain.fault = killed_once
    try:
        results.declare()
        with delivering_process(settings, tmp_path / "ledger", tmp_path / "log") as process:
            results.result("7", ["cat", "dog"])
            await asyncio.to_thread(until, lambda: written, "it was killed")
        assert plain.assets["7"] == ["Holiday", "cat"]
        with delivering_process(settings, tmp_path / "ledger", tmp_path / "log") as process:
            await eventually(lambda: plain.assets["7"] == ["Holiday", "cat", "dog"], "the other too", within_s=30)
            # What was written just before the end is known to be ours, and what had not been was removed by nobody
            results.result("7", ["dog"], minute=1)
            await eventually(lambda: plain.assets["7"] == ["Holiday", "dog"], "ours are replaced", within_s=30)
    finally:
        results.clean()


async def test_results_go_on_when_the_broker_was_restarted(
    private_broker: Any, plain: PlainTarget, tmp_path: Path
) -> None:
    node = private_broker()
    plain.assets.update({str(number): [] for number in range(60)})
    connection = plain_connection(plain, writes_per_s=30)
    async with delivering(node.url, "restarted", connection, tmp_path / "ledger") as it:
        for number in range(60):
            it.results.result(str(number), ["cat"])
        await eventually(lambda: it.counted("written") > 5, "some are written")
        await asyncio.to_thread(node.stop)
        await eventually(lambda: it.deliverer.state.broker_fault, "it is known", within_s=30)
        await asyncio.to_thread(node.start)
        await eventually(lambda: all(tags == ["cat"] for tags in plain.assets.values()), "all are written", within_s=90)
