"""(c) and (e) Dramatiq: worker processes, one for each core, with two threads each, so that work overlaps.

    dramatiq dramatiq_tagging --queues QUEUE --processes 2 --threads 2

With the runtime `litert` it runs the very file that Autotag runs. What the two ways of running it differ by is the
model's doing; what the second and Autotag differ by is the design's.
"""

from __future__ import annotations

import common
import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from runtimes import open_runtime

dramatiq.set_broker(RabbitmqBroker(url=common.PIKA_URL))
_model = open_runtime()


@dramatiq.actor(queue_name=common.RESULTS, max_retries=0)
def deliver(result: dict[str, object]) -> None:
    """The receiving end, which is another service's."""


@dramatiq.actor(queue_name=common.QUEUE, max_retries=0)
def tag(path: str) -> None:
    """Tag one image, and send the result on."""
    logits = _model.logits(common.load(path)[None])
    deliver.send(common.result(path, common.tags(logits[0])))
