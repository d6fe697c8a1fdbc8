"""An instance is bound to those who may speak for it: every other publisher's claim ends under nobody's name.

Every publisher here may write to every exchange and queue: what keeps them apart is what RabbitMQ says of a message.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pika
import pytest
from rabbitmq_node import USER, PrivateBroker

from tests.support.polling import until
from tests.support.service import Dms, inline
from tests.support.tenants import LOCAL, Tenancy, tenancy
from worker.messages import EVENT_TYPE

PREFIX = f"test-bound-{os.getpid()}"
NOT_ALLOWED = "instance_not_allowed"


@pytest.fixture(scope="module")
def it(
    one_node: PrivateBroker, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tenancy]:
    for user in ("acme-dms", "mallory"):
        one_node.ctl("add_user", user, "secret")
        one_node.ctl("set_permissions", user, ".*", ".*", ".*")
    late = str(tmp_path_factory.mktemp("late"))
    with tenancy(
        one_node.url,
        PREFIX,
        tmp_path_factory.mktemp("bound"),
        instances={
            "acme": {"publishers": {"users": ["acme-dms"]}},
            "scans": {"publishers": {"exchanges": [f"{PREFIX}.scans"]}},
            "operators": {"publishers": {"users": [USER]}},
            "elsewhere": {"publishers": {"virtual_hosts": ["another"]}},
            "free": {},
            "walled": {
                "sources": {
                    "path_roots": [late],
                    "url_allowed_hosts": ["images.walled.example"],
                    "url_allowed_ports": [80, 443],
                }
            },
        },
        unknown_instances="refuse",
        defaults={"tensorflow": LOCAL},
        sources={"path_roots": [str(photographs["coffee"].parent), late], "inline_maximum_bytes": 1 << 20},
    ) as tenants:
        yield tenants


@pytest.fixture(scope="module")
def of(one_node: PrivateBroker, it: Tenancy) -> Iterator[Callable[[str], Dms]]:
    """A publisher's connection, by its user."""
    assert it
    with ExitStack() as opened:
        known: dict[str, Dms] = {}

        def dms(user: str) -> Dms:
            if user not in known:
                known[user] = Dms(one_node.url_of("/", user, "secret"), PREFIX)
                opened.callback(known[user].close)
            return known[user]

        yield dms


def event(event_id: str, instance: str, **content: str) -> bytes:
    return json.dumps({"asset_id": event_id, "instance": instance, "content": content}).encode()


def letter(it: Tenancy) -> dict[str, Any]:
    """The only dead letter, taken: its headers."""
    message = until(lambda: it.dms.take("dead-letters"), "it was dead-lettered")
    assert it.dms.depth("dead-letters") == 0
    return {"id": message.properties.message_id, **message.properties.headers}


def refused(it: Tenancy, event_id: str) -> str:
    """Assert that an event was refused, under nobody's name; the message of its dead letter."""
    found = letter(it)
    assert (found["id"], found["x-autotag-reason"]) == (event_id, NOT_ALLOWED)
    assert not {"x-autotag-asset", "x-autotag-instance", "x-autotag-answers"} & set(found)
    assert it.dms.take("results") is None
    return str(found["x-autotag-message"])


FORGED = {
    "x-autotag-origin": json.dumps({"user": "acme-dms", "exchange": "", "virtual_host": "/", "instance": "acme"}),
    "x-autotag-mark": "0" * 64,
}


@pytest.mark.parametrize(
    ("instance", "properties"),
    [
        ("acme", {}),
        ("acme", {"user_id": "mallory"}),
        ("acme", {"lane": "bulk", "user_id": "mallory"}),
        ("acme", {"headers": FORGED}),
        (
            "acme",
            {"headers": {"user_id": "acme-dms", "x-death": [{"exchange": f"{PREFIX}.scans"}]}, "app_id": "acme-dms"},
        ),
        ("scans", {"user_id": "mallory"}),
        ("operators", {}),
        ("elsewhere", {"user_id": "mallory"}),
        ("stranger", {"user_id": "mallory"}),
        ("ACME", {"user_id": "mallory"}),
    ],
)
def test_an_event_of_another_publisher_ends_under_nobodys_name(
    it: Tenancy, of: Callable[[str], Dms], photographs: dict[str, Path], instance: str, properties: dict[str, Any]
) -> None:
    body = event("forged", instance, path=str(photographs["coffee"]))
    of("mallory").publish_body(body, message_id="forged", **properties)
    assert repr(instance) in refused(it, "forged")


@pytest.mark.parametrize(
    ("body", "content_type", "headers"),
    [
        (b"no image", "image/jpeg", {"cloudEvents:id": "forged", "cloudEvents:source": "/", "cloudEvents:specversion":
         "1.0", "cloudEvents:type": EVENT_TYPE, "cloudEvents:assetid": "1", "cloudEvents:instance": "acme"}),
        (b"no image", "image/jpeg", {"asset_id": "1", "instance": "acme"}),
        (b'{"asset_id": "1", "instance": "acme", "content": {}}', "application/json", {}),
        (b'{"asset_id": "1", "instance": "acme", "content": {"base64": "' + b"A" * (4 << 20) + b'"}}', None, {}),
    ],
    ids=["binary", "plain image", "unreadable", "oversized"],
)  # fmt: skip
def test_nor_is_there_an_answer_in_anothers_name_where_the_event_cannot_be_read(
    it: Tenancy, of: Callable[[str], Dms], body: bytes, content_type: str | None, headers: dict[str, str]
) -> None:
    of("mallory").publish_body(body, content_type=content_type, message_id="forged", headers=headers)
    assert "'acme'" in refused(it, "forged")


def test_a_user_that_is_not_the_connections_own_is_refused_by_rabbitmq_itself(one_node: PrivateBroker) -> None:
    mallory = Dms(one_node.url_of("/", "mallory", "secret"), PREFIX)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="user_id"):
        mallory.publish_body(b"{}", user_id="acme-dms")
    mallory.close()


def test_through_the_default_exchange_nobody_speaks_for_an_instance_that_is_bound_to_another(
    it: Tenancy, of: Callable[[str], Dms], photographs: dict[str, Path]
) -> None:
    channel, body = of("mallory")._channel, event("scan", "scans", path=str(photographs["coffee"]))
    properties = pika.BasicProperties(content_type="application/json", message_id="scan")
    channel.basic_publish("", f"{PREFIX}.images.live", body, properties)
    assert "the exchange ''" in refused(it, "scan")
    # And through its own exchange it does
    channel.exchange_declare(f"{PREFIX}.scans", "direct")
    channel.exchange_bind(f"{PREFIX}.images", f"{PREFIX}.scans", "live")
    channel.basic_publish(f"{PREFIX}.scans", "live", body, properties)
    (result,) = it.dms.results_of(["scan"])["scan"]
    assert (result.routing_key, result.data["status"]) == ("scans.tagged", "tagged")
    channel.exchange_delete(f"{PREFIX}.scans")


def test_the_right_to_speak_is_kept_over_retries_and_the_operators_replay(
    it: Tenancy, of: Callable[[str], Dms], photographs: dict[str, Path]
) -> None:
    # Given an event whose image comes late
    late = Path(it.settings["sources"]["path_roots"][1]) / "late.jpg"
    of("acme-dms").publish_body(event("late", "acme", path=str(late)), message_id="late", user_id="acme-dms")
    until(lambda: re.search('"late".*"will be retried"', it.service.logged()), "it waits for its second attempt")
    late.write_bytes(photographs["coffee"].read_bytes())
    # Then it is tagged after its retry, in which it came through another exchange and without its user
    (result,) = it.dms.results_of(["late"])["late"]
    assert (result.routing_key, result.data["status"]) == ("acme.tagged", "tagged")

    # Given an event that cannot be done, and one that was refused
    of("acme-dms").publish_body(event("outside", "acme", path="/etc/passwd"), message_id="outside", user_id="acme-dms")
    assert it.dms.results_of(["outside"])["outside"][0].data["reason"] == "path_outside_roots"
    of("mallory").publish_body(event("forged", "acme", path=str(late)), message_id="forged", user_id="mallory")
    until(lambda: it.dms.depth("dead-letters") == 2, "both are dead letters")
    # When the operator, who is neither's publisher, replays both
    replayed = it.service.autotag("dead-letters", "replay", "--json")
    assert json.loads(replayed.stdout)["replayed"] == 2, replayed
    # Then the one still speaks for its instance, and the other does not
    assert it.dms.results_of(["outside"])["outside"][0].data["reason"] == "path_outside_roots"
    until(lambda: it.dms.depth("dead-letters") == 2, "both are dead letters again")
    listed = it.service.autotag("dead-letters", "list", "--json").stdout.splitlines()
    letters = {each["id"]: (each["reason"], each["instance"]) for each in map(json.loads, listed)}
    assert letters == {"outside": ("path_outside_roots", "acme"), "forged": (NOT_ALLOWED, None)}
    assert it.dms.take("results") is None
    # And it may, once the settings say so: what was found out at the first delivery is what counts
    it.reload(instances=it.settings["instances"] | {"acme": {"publishers": {"users": ["acme-dms", "mallory"]}}})
    it.service.autotag("dead-letters", "replay", "--reason", NOT_ALLOWED)
    assert it.dms.results_of(["forged"])["forged"][0].routing_key == "acme.tagged"


def test_the_commands_publish_in_the_name_of_their_own_user(it: Tenancy, photographs: dict[str, Path]) -> None:
    photograph = str(photographs["coffee"])
    done = it.service.autotag("publish", photograph, "--instance", "operators", "--wait", "--json")
    assert json.loads(done.stdout)["status"] == "tagged", done
    it.dms.results(1)


def test_an_instance_that_is_not_bound_takes_events_of_all(it: Tenancy, of: Callable[[str], Dms]) -> None:
    made = of("mallory").publish(inline(b"no image"), instance="free")
    assert it.one_result(made)[0]["reason"] == "image_unrecognised"


def test_an_instance_with_roots_and_hosts_of_its_own_gets_nothing_from_those_of_the_others(
    it: Tenancy, photographs: dict[str, Path]
) -> None:
    photograph, own = photographs["coffee"], Path(it.settings["sources"]["path_roots"][1])
    (own / "link.jpg").symlink_to(photograph)
    (own / "own.jpg").write_bytes(photograph.read_bytes())
    refused_ones = [
        it.dms.publish(content, instance="walled")
        for content in (
            {"path": str(photograph)},
            {"path": "link.jpg"},
            {"path": f"../{photograph.parent.name}/{photograph.name}"},
            {"url": "http://images.other.example/a.jpg"},
            {"url": "http://images.walled.example:8080/a.jpg"},
        )
    ]
    taken = it.dms.publish({"path": "own.jpg"}, instance="walled")
    *refusals, tagged = it.one_result(*refused_ones, taken)
    expected = ["path_outside_roots"] * 3 + ["url_host_not_allowed", "url_port_not_allowed"]
    assert [each["reason"] for each in refusals] == expected
    assert tagged["status"] == "tagged"
    # While it is open to another, for which the settings of all hold
    assert it.one_result(it.dms.publish({"path": str(photograph)}, instance="free"))[0]["status"] == "tagged"
