"""RabbitMQ's errors, translated into messages that say what an operator has to do."""

from __future__ import annotations

import ssl

import pytest
from pika import exceptions

from worker.amqp.diagnosis import (
    channel_end,
    connect_error,
    connection_lost_error,
    describe_difference,
    difference_in,
    refusal_error,
)
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.parameters import Address, addresses
from worker.errors import Misconfigured, TryLater
from worker.settings import AmqpSettings

BROKER = Address("rabbit.example.org", 5672, "/", "autotag", tls=False)


@pytest.mark.parametrize(
    ("text", "ours", "theirs"),
    [
        (
            "inequivalent arg 'x-max-length' for queue 'a.b' in vhost '/': received none but current is the value '10' "
            "of type 'signedint'",
            "no such argument",
            "10",
        ),
        (
            "inequivalent arg 'x-queue-type' for queue 'a.b' in vhost '/': received the value 'quorum' of type "
            "'longstr' but current is none",
            "quorum",
            "no such argument",
        ),
        (
            "inequivalent arg 'durable' for queue 'a.b' in vhost '/': received 'true' but current is 'false'",
            "true",
            "false",
        ),
        (
            "inequivalent arg 'type' for exchange 'a.b' in vhost 'it's': received 'topic' but current is 'direct'",
            "topic",
            "direct",
        ),
    ],
)
def test_an_inequivalent_argument_is_reported_with_both_values(text: str, ours: str, theirs: str) -> None:
    found = describe_difference(f"PRECONDITION_FAILED - {text}")
    assert found is not None
    assert "a.b exists already" in found
    assert f"ours would be {ours}, the one there has {theirs}." in found


def test_text_that_is_no_difference_is_kept_unchanged() -> None:
    error = exceptions.ChannelClosedByBroker(406, "PRECONDITION_FAILED - unknown delivery tag 9")
    found = refusal_error(error, BROKER, "settling")
    assert isinstance(found, TryLater)
    assert "unknown delivery tag 9" in str(found)


def test_a_refusal_for_lack_of_rights_names_the_user_and_what_was_tried() -> None:
    found = refusal_error(exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED"), BROKER, "declaring queue q")
    assert isinstance(found, Misconfigured)
    assert "does not allow declaring queue q" in str(found)
    assert "'autotag'" in str(found)


def test_a_lost_connection_is_no_refusal() -> None:
    found = refusal_error(exceptions.StreamLostError("Transport indicated EOF"), BROKER, "declaring queue q")
    assert found.reason == "connection_lost"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - bye"), "CONNECTION_FORCED - bye (320)"),
        (exceptions.AMQPHeartbeatTimeout("x"), "heartbeat_s"),
        (exceptions.ConnectionBlockedTimeout("x"), "blocked_timeout_s"),
        (exceptions.StreamLostError("Transport indicated EOF"), "Transport indicated EOF"),
        (exceptions.ConnectionOpenAborted("given up"), "we closed it"),
    ],
)
def test_why_a_connection_was_lost(error: Exception, words: str) -> None:
    assert words in str(connection_lost_error(error, BROKER))


@pytest.mark.parametrize("kind", [exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError])
def test_a_broker_that_is_killed_during_the_handshake_refuses_nobody(kind: type[Exception]) -> None:
    lost = "Client was disconnected at a connection stage indicating a probable error: (\"StreamLostError: ('EOF',)\",)"
    found = connect_error(kind(lost), BROKER)
    assert isinstance(found, BrokerUnreachable)
    assert "it is tried again" in str(found)


def test_the_brokers_text_about_a_virtual_host_is_kept() -> None:
    text = "ConnectionClosedByBroker: (530) \"NOT_ALLOWED - access to vhost 'x' refused for user 'autotag'\""
    found = connect_error(exceptions.ProbableAccessDeniedError(text), BROKER)
    assert found.reason == "virtual_host_refused"
    assert "NOT_ALLOWED - access to vhost 'x' refused for user 'autotag';" in str(found)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://u:p@h/", Address("h", 5672, "/", "u", tls=False)),
        ("amqp://u:p@h:1/%2F", Address("h", 1, "/", "u", tls=False)),
        ("amqps://u%40x:p@h/a%2Fb", Address("h", 5671, "a/b", "u@x", tls=True)),
        ("amqp://[::1]:5673/v", Address("::1", 5673, "v", "guest", tls=False)),
        ("amqp://h", Address("h", 5672, "/", "guest", tls=False)),
    ],
)
def test_the_address_from_the_url(url: str, expected: Address) -> None:
    assert addresses(AmqpSettings.model_validate({"url": url})) == [expected]


def test_a_url_may_name_several_hosts() -> None:
    found = addresses(AmqpSettings.model_validate({"url": "amqps://u:p,w@a:1,[::1],b.example.org/v"}))
    assert [(each.host, each.port, each.user, each.virtual_host) for each in found] == [
        ("a", 1, "u", "v"),
        ("::1", 5671, "u", "v"),
        ("b.example.org", 5671, "u", "v"),
    ]


@pytest.mark.parametrize("url", ["amqp://a,", "amqp://,a", "amqp://a,,b/", "amqp://a:x,b"])
def test_a_url_with_a_broken_list_of_hosts_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="amqps://user:password@host"):
        AmqpSettings.model_validate({"url": url})


def test_an_address_shows_no_secret() -> None:
    assert str(addresses(AmqpSettings.model_validate({"url": "amqp://u:secret@h/"}))[0]) == "u@h:5672, virtual host '/'"


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (
            406,
            "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms. "
            "This timeout value can be configured, see consumers doc guide to learn more",
            "consumer_timeout",
        ),
        (406, "PRECONDITION_FAILED - unknown delivery tag 999", "unknown_delivery_tag"),
        (406, "PRECONDITION_FAILED - message size 101 is larger than configured max size 100", "message_too_large"),
        (
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/'",
            "topology_differs",
        ),
        (406, "PRECONDITION_FAILED - invalid expiration", "precondition_failed"),
        (403, "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'", "permission_refused"),
        (404, "NOT_FOUND - no exchange 'x' in vhost '/'", "topology_missing"),
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'", "queue_locked"),
        (506, "RESOURCE_ERROR - no more", "broker_exhausted"),
        (541, "INTERNAL_ERROR", "broker_error"),
        (530, "NOT_ALLOWED - attempt to reuse consumer tag", "channel_closed"),
    ],
)
def test_why_rabbitmq_closed_a_channel(code: int, text: str, reason: str) -> None:
    end = channel_end(exceptions.ChannelClosedByBroker(code, text))
    assert end is not None
    assert (end["reason"], end["error"]) == (reason, f"{text} ({code})")
    assert end["what_to_do"]


def test_a_channel_that_we_closed_needs_no_explanation() -> None:
    assert channel_end(exceptions.ChannelClosedByClient(200, "Normal shutdown")) is None


@pytest.mark.parametrize(
    ("argument", "received", "current", "harmless"),
    [
        ("x-delivery-limit", "the value '20' of type 'signedint'", "the value '7' of type 'signedint'", True),
        ("x-max-length", "none", "the value '7' of type 'signedint'", True),
        ("x-overflow", "none", "the value 'reject-publish' of type 'longstr'", True),
        ("x-overflow", "none", "the value 'drop-head' of type 'longstr'", False),
        ("x-overflow", "the value 'reject-publish' of type 'longstr'", "none", False),
        ("x-dead-letter-exchange", "the value 'a' of type 'longstr'", "none", False),
        ("x-queue-type", "the value 'quorum' of type 'longstr'", "none", False),
        ("durable", "'true'", "'false'", False),
    ],
)
def test_which_differences_of_a_queue_are_harmless(
    argument: str, received: str, current: str, *, harmless: bool
) -> None:
    text = (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue 'q' in vhost '/': received {received} but "
        f"current is {current}"
    )
    difference = difference_in(text)
    assert difference is not None
    assert difference.is_harmless is harmless


@pytest.mark.parametrize(
    ("code", "what", "advice", "not_advice"),
    [
        (10, "certificate has expired", "renew the certificate", "ca_file"),
        (9, "certificate is not yet valid", "clock", "ca_file"),
        (62, "Hostname mismatch", "host name that the certificate names", "ca_file"),
        (64, "IP address mismatch", "not an address", "ca_file"),
        (20, "unable to get local issuer certificate", "amqp.ca_file must hold the authority", "renew"),
    ],
)
def test_the_advice_about_a_certificate_fits_what_is_wrong_with_it(
    code: int, what: str, advice: str, not_advice: str
) -> None:
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_code, refused.verify_message = code, what
    found = connect_error(exceptions.AMQPConnectionError(refused), BROKER)
    assert isinstance(found, Misconfigured)
    assert what in str(found)
    assert advice in str(found)
    assert not_advice not in str(found)
