"""The service's Prometheus metrics: one registry in the parent process, so that no child's death loses a count.

Base units, bounded labels, and every series is created at the start, so that a rate is right from the first event on.
docs/metrics.md explains each metric for operators.
"""

from __future__ import annotations

from worker.operations.metrics.events import EventMetrics
from worker.operations.metrics.metrics import Metrics
from worker.operations.metrics.queue_wait import queue_wait

__all__ = ["EventMetrics", "Metrics", "queue_wait"]
