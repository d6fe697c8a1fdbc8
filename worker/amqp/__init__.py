"""RabbitMQ: one connection kept up, deliveries in, confirmed messages out. Everything about pika stays in here."""

from worker.amqp.broker import Broker
from worker.amqp.delivery import ATTEMPT_HEADER, Delivery, Settler
from worker.amqp.errors import (
    BrokerUnreachable,
    NotConfirmed,
    NotPublished,
    PublishRefused,
    Unpublishable,
    Unroutable,
)
from worker.amqp.link import Channel, Link, connected
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.state import BrokerState, Phase

__all__ = [
    "ATTEMPT_HEADER",
    "Broker",
    "BrokerState",
    "BrokerUnreachable",
    "Channel",
    "Delivery",
    "Link",
    "NotConfirmed",
    "NotPublished",
    "Phase",
    "PublishRefused",
    "Publisher",
    "Settler",
    "Unpublishable",
    "Unroutable",
    "connected",
    "message_properties",
]
