"""The connections to RabbitMQ are lost again and again while a cloud service is being asked, and paid."""

from __future__ import annotations

from pathlib import Path

from rabbitmq_node import PrivateBroker

from tests.support.cloud import google_table, key, picture
from tests.support.fake_google import FakeGoogle
from tests.support.fake_service import Fault
from tests.support.polling import until
from tests.support.service import inline
from tests.support.tenants import tenancy

IMAGES = 16
LOSSES = 10


def images_paid_for(service: FakeGoogle) -> int:
    """How many images the service was asked about: each costs money, whatever becomes of the answer."""
    return sum(len(call.json()["requests"]) for call in service.calls)


def test_at_most_the_prefetch_is_in_hand_and_no_image_is_paid_for_again(node: PrivateBroker, tmp_path: Path) -> None:
    with FakeGoogle(key("acme")) as service:
        service.always = Fault(delay_s=3)
        instances = {"acme": {"google_cloud_vision": google_table(service.url, key("acme"))}}
        amqp = {"AMQP__PREFETCH": str(IMAGES), "AMQP__RECONNECT_MAX_S": "0.5"}
        with tenancy(node.url, "paid", tmp_path, instances=instances, environment=amqp) as it:
            # Given a service that is slow, and as many events as are taken at once
            events = [it.dms.publish(inline(picture(seed)), instance="acme") for seed in range(IMAGES)]
            until(lambda: service.calls, "the service is being asked")
            # When the worker's connections are lost again and again
            most_in_hand = 0
            for _ in range(LOSSES):
                until(lambda: (it.service.status() or {}).get("ready"), "it takes events")
                assert node.eval(CLOSE_THE_WORKERS) != "0"
                most_in_hand = max(most_in_hand, (it.service.status() or {})["events_in_hand"])
            # Then every event is answered
            found = it.dms.results_of(events, within_s=120)
            assert {message.data["status"] for messages in found.values() for message in messages} == {"tagged"}
            # And neither work nor money was spent on a delivery that was lost
            assert most_in_hand <= IMAGES
            assert it.service.logged().count("called off") >= IMAGES
            assert images_paid_for(service) == IMAGES
            assert it.dms.depth("dead-letters") == 0


# A connection that is just being opened has no properties yet.
CLOSE_THE_WORKERS = """
    length([rabbit_networking:close_connection(Pid, "closed by the operator")
        || [{pid, Pid}, {client_properties, Properties}] <-
            rabbit_networking:connection_info_all([pid, client_properties]),
           is_list(Properties),
           {<<"connection_name">>, longstr, Name} <- Properties, binary:match(Name, <<"autotag">>) =/= nomatch])
"""
