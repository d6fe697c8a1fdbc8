"""Translates the errors of pika and RabbitMQ into ours, whose messages say what happened and what to do."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from pika import exceptions as pika_errors
from pika.adapters.utils import connection_workflow as workflow

from worker.amqp.errors import BrokerUnreachable
from worker.amqp.parameters import Address
from worker.errors import AutotagError, Misconfigured
from worker.operations.certificates import advice

PERMISSION_REFUSED = "permission_refused"
"""The reason where the user of `amqp.url` lacks a right."""

_DIFFERS = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>\w+) '(?P<name>.+?)' in vhost '.*?': "
    r"received (?P<ours>.+?) but current is (?P<theirs>.+)"
)
_TLS_ALERT = re.compile(r"SSLError\(.*?\] (?P<text>[\w ]+) \(_ssl")
_TIMEOUTS = (
    TimeoutError,
    workflow.AMQPConnectorStackTimeout,
    pika_errors.ConnectionOpenAborted,  # pika's error for a timeout during the handshake
)
_VALUE = re.compile(r"the value '(?P<value>.*)' of type '\w+'|'(?P<plain>.*)'")


def connect_error(error: BaseException, broker: Address) -> AutotagError:
    """The error for a failed attempt to connect: Misconfigured where an operator must act, else BrokerUnreachable."""
    causes = list(_causes(error))
    for cause in causes:
        if (found := _refusal(cause, broker)) is not None:
            return found
    cause = causes[-1]
    if isinstance(cause, socket.gaierror):
        what = f"the host name {broker.host} cannot be resolved ({cause.strerror})"
    elif isinstance(cause, ConnectionRefusedError):
        what = "nothing listens there"
    elif isinstance(cause, _TIMEOUTS):
        what = "no answer in time"
        if not broker.tls:
            what += " (if the port is for TLS, amqp.url must begin with amqps://)"
    else:
        what = brief(cause)
    return BrokerUnreachable(
        f"no connection to RabbitMQ at {broker}: {what}; check amqp.url and that the broker runs; it is tried again"
    )


def connection_lost_error(error: BaseException, broker: Address) -> AutotagError:
    """The error for the loss of an open connection; `error` is pika's reason."""
    match error:
        case pika_errors.ConnectionClosedByBroker():
            what = f"RabbitMQ closed it: {error.reply_text} ({error.reply_code})"
        case pika_errors.AMQPHeartbeatTimeout():
            what = "RabbitMQ has been silent for longer than amqp.heartbeat_s allows"
        case pika_errors.ConnectionBlockedTimeout():
            what = "RabbitMQ blocked publishing for longer than amqp.blocked_timeout_s; look at its memory and disk"
        case pika_errors.ConnectionClosedByClient() | pika_errors.ConnectionOpenAborted():
            what = "we closed it"
        case _:
            what = brief(error)
    return BrokerUnreachable(f"lost the connection to RabbitMQ at {broker}: {what}", reason="connection_lost")


def refusal_error(error: BaseException, broker: Address, action: str) -> AutotagError:
    """The error for an action ("declaring queue q") that RabbitMQ refused by closing the channel."""
    if not isinstance(error, pika_errors.ChannelClosedByBroker):
        return connection_lost_error(error, broker)
    match error.reply_code:
        case 403:
            return Misconfigured(
                f"RabbitMQ does not allow {action}: {error.reply_text}; give the user {broker.user!r} the right "
                "(rabbitmqctl set_permissions), or set amqp.declare = false if only declaring is refused",
                reason=PERMISSION_REFUSED,
            )
        case 404:
            return Misconfigured(
                f"RabbitMQ lacks something for {action}: {error.reply_text}; import the definitions, or set "
                "amqp.declare = true",
                reason="topology_missing",
            )
        case 406 if (difference := describe_difference(error.reply_text)) is not None:
            return Misconfigured(difference, reason="topology_differs")
        case code:
            return BrokerUnreachable(
                f"RabbitMQ closed the channel while {action}: {error.reply_text} ({code})", reason="channel_closed"
            )


def channel_end(error: BaseException) -> dict[str, object] | None:
    """Why RabbitMQ closed a channel, as fields of a log line: its words, a reason, what to do. None if it did not."""
    if not isinstance(error, pika_errors.ChannelClosedByBroker):
        return None
    text = error.reply_text
    reason, what_to_do = next(
        (
            (reason, what_to_do)
            for pattern, reason, what_to_do in _CHANNEL_ENDS
            if pattern.search(f"{error.reply_code} {text}")
        ),
        ("channel_closed", "it is opened again; if that repeats, see the broker's log"),
    )
    return {"reason": reason, "error": f"{text} ({error.reply_code})", "what_to_do": what_to_do}


_CHANNEL_ENDS = tuple(
    (re.compile(pattern, re.IGNORECASE), reason, what_to_do)
    for pattern, reason, what_to_do in (
        (
            r"delivery acknowledgement on channel \d+ timed out",
            "consumer_timeout",
            "an event was in hand for longer than the broker's consumer_timeout, and all in hand come again: set "
            "amqp.hold_s well below it, or raise consumer_timeout in rabbitmq.conf",
        ),
        (
            r"message size",
            "message_too_large",
            "a message was larger than the broker's max_message_size: send large images by path or url, or raise it",
        ),
        (
            r"unknown delivery tag",
            "unknown_delivery_tag",
            "a delivery was settled twice, or was no longer ours: what was in hand comes again; please report it",
        ),
        (
            r"inequivalent arg",
            "topology_differs",
            "a queue or exchange exists with other arguments: `autotag check` names them",
        ),
        (
            r"^403 ",
            PERMISSION_REFUSED,
            "give the user the right that is missing: rabbitmqctl set_permissions",
        ),
        (
            r"^404 ",
            "topology_missing",
            "import the definitions, or set amqp.declare = true: `autotag check` names what is missing",
        ),
        (
            r"^405 |resource_locked",
            "queue_locked",
            "another connection uses the queue exclusively: end it, or choose another amqp.queue_prefix",
        ),
        (
            r"^506 |resource_error",
            "broker_exhausted",
            "the broker lacks memory, disk or file handles: look at its log and its alarms",
        ),
        (
            r"^541 |internal_error",
            "broker_error",
            "the broker met an error of its own: look at its log; a queue may have lost its majority",
        ),
        (r"^406 ", "precondition_failed", "see the broker's text; if it repeats, please report it"),
    )
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A queue or exchange that exists with another argument than ours; values as text, None for no such argument."""

    kind: str
    name: str
    argument: str
    ours: str | None
    theirs: str | None

    @property
    def what(self) -> str:
        """What differs, in words."""
        ours, theirs = self.ours or "no such argument", self.theirs or "no such argument"
        return (
            f"{self.kind} {self.name} exists already with another {self.argument}: ours would be {ours}, the one there "
            f"has {theirs}"
        )

    @property
    def is_harmless(self) -> bool:
        """Whether the queue can be used as it is: it only has other limits, as during a rolling upgrade."""
        if self.argument == "x-overflow":
            return self.ours is None and (self.theirs or "").startswith("reject-publish")
        return self.kind == "queue" and self.argument in _HARMLESS


_HARMLESS = frozenset(
    {
        "x-delivery-limit",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-quorum-initial-group-size",
        "x-initial-cluster-size",
        "x-queue-leader-locator",
        "x-quorum-target-group-size",
    }
)
"""Arguments that decide how much a queue takes and where it is kept, and not what becomes of a message."""


def difference_in(text: str) -> Difference | None:
    """The difference in RabbitMQ's text about inequivalent arguments; None in any other text."""
    found = _DIFFERS.search(text)
    if found is None:
        return None
    return Difference(
        found["kind"], found["name"], found["argument"], _value(found["ours"]), _value(found["theirs"].strip())
    )


def describe_difference(text: str) -> str | None:
    """A sentence for RabbitMQ's text about inequivalent arguments: what differs, both values, what to do; else None."""
    difference = difference_in(text)
    if difference is None:
        return None
    return (
        f"{difference.what}. Delete it once it is empty (it is then declared again), "
        "or choose another amqp.queue_prefix, or set amqp.declare = false to use it as it is"
    )


def _value(text: str) -> str | None:
    found = _VALUE.fullmatch(text)
    if found is None:
        return None if text == "none" else text
    return next(group for group in found.groups() if group is not None)


def _refusal(cause: BaseException, broker: Address) -> Misconfigured | None:
    """The error for a cause that only an operator can remove; None for any other cause."""
    # pika guesses from the stage at which the connection ended. A broker that was killed then refuses nobody; one that
    # refuses says so before it closes (its capability authentication_failure_close).
    probable = pika_errors.ProbableAuthenticationError | pika_errors.ProbableAccessDeniedError
    if isinstance(cause, probable) and "ConnectionClosedByBroker" not in str(cause.args):
        return None
    match cause:
        case pika_errors.ProbableAuthenticationError() | pika_errors.AuthenticationError():
            return Misconfigured(
                f"RabbitMQ at {broker} refused the user {broker.user!r}: wrong name or password, or a user (such as "
                "guest) that may only connect from the broker's own machine; set amqp.username and amqp.password",
                reason="credentials_refused",
            )
        case pika_errors.ProbableAccessDeniedError():
            return Misconfigured(
                f"RabbitMQ at {broker} does not let the user {broker.user!r} into the virtual host "
                f"{broker.virtual_host!r}: {_broker_text(cause)}; create the virtual host, grant access to it, or "
                "correct the end of amqp.url",
                reason="virtual_host_refused",
            )
        case pika_errors.IncompatibleProtocolError() if (alert := _TLS_ALERT.search(str(cause.args))) is not None:
            # With TLS 1.3 a broker refuses after the handshake; pika takes that for a peer that does not speak AMQP.
            return _tls_failed(broker, alert["text"])
        case pika_errors.IncompatibleProtocolError() | pika_errors.ProtocolVersionMismatch():
            return Misconfigured(
                f"what listens at {broker} does not speak AMQP 0-9-1; check the port in amqp.url, and that the url "
                "begins with amqps:// if the port is for TLS",
                reason="not_amqp",
            )
        case ssl.SSLCertVerificationError():
            return _not_trusted(broker, cause)
        case ssl.SSLError():
            return _tls_failed(broker, str(cause.reason or cause))
        case _:
            return None


def _not_trusted(broker: Address, cause: ssl.SSLCertVerificationError) -> Misconfigured:
    what_to_do = advice(cause, address="amqp.url", authority="amqp.ca_file")
    return Misconfigured(
        f"the certificate of RabbitMQ at {broker} is not trusted: {cause.verify_message}; {what_to_do}",
        reason="tls_failed",
    )


def _tls_failed(broker: Address, what: str) -> Misconfigured:
    return Misconfigured(
        f"no TLS connection to RabbitMQ at {broker}: {what}; check that the port is the one for TLS, and "
        "amqp.cert_file if the broker asks for a client certificate",
        reason="tls_failed",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all errors that pika wrapped in it, outermost first."""
    yield error
    match error:
        case workflow.AMQPConnectionWorkflowFailed():
            wrapped = list(error.exceptions)
        case workflow.AMQPConnectorPhaseErrorBase():
            wrapped = [error.exception]
        case pika_errors.AMQPConnectionError():
            wrapped = [each for each in error.args if isinstance(each, BaseException)]
        case _:
            wrapped = []
    for inner in wrapped:
        yield from _causes(inner)


def _broker_text(error: BaseException) -> str:
    """The broker's text out of pika's error, which holds it as the text of a nested error."""
    text = str(error.args[0]) if error.args else ""
    found = re.search(r"\(\d+\) (?P<quote>['\"])(?P<text>.*)(?P=quote)$", text)
    return found["text"] if found else text or "no reason given"


def brief(error: BaseException) -> str:
    """An error's text in one line, or its class name where it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) if not isinstance(error, pika_errors.AMQPError) else ", ".join(map(str, error.args))
    return text or type(error).__name__
