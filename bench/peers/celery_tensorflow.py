"""(b) Celery with TensorFlow: prefork workers, one for each core, each with the model loaded when it starts.

celery -A celery_tensorflow worker
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import common
from celery import Celery
from celery.signals import worker_process_init
from kombu import Queue

if TYPE_CHECKING:
    from runtimes import Runtime

app = Celery("tagging", broker=common.URL)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue=common.QUEUE,
    task_queues=[Queue(common.QUEUE, durable=True)],
    worker_pool="prefork",
    worker_concurrency=len(os.sched_getaffinity(0)),
    worker_prefetch_multiplier=4,
    worker_send_task_events=False,
    broker_heartbeat=0,  # it is stopped while others are measured
    broker_connection_retry_on_startup=True,
)
_loaded: dict[str, Runtime] = {}


@worker_process_init.connect
def load(**_: object) -> None:
    """TensorFlow does not survive a fork, so each worker loads it for itself."""
    from runtimes import open_runtime

    _loaded["model"] = open_runtime()


@app.task(name="tag")
def tag(path: str) -> None:
    """Tag one image, and publish the result on a pooled connection."""
    logits = _loaded["model"].logits(common.load(path)[None])
    with app.producer_or_acquire() as producer:
        producer.publish(
            common.result(path, common.tags(logits[0])),
            exchange="",
            routing_key=common.RESULTS,
            serializer="json",
            delivery_mode=2,
        )
