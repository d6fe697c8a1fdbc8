"""The service's history, for the status page.

The recent one is in memory, bounded in number and size, and lost when the process ends; its times are monotonic seconds
and passed in, and the page converts them. Ended events are also kept on disk (`file.py`), bounded in size and age, for
people who search for an asset. The log and the metrics are the permanent record.
"""

from __future__ import annotations

from worker.operations.history.failures import PROVIDER_FAILED, Failure, FailureKind, Failures
from worker.operations.history.history import EndedDelivery, History
from worker.operations.history.results import RecentResult, RecentResults, Thumbnail
from worker.operations.history.throughput import BUCKET_S, BUCKETS, Bucket, Throughput
from worker.operations.history.timeline import Interval, Occurrence, State

__all__ = [
    "BUCKETS",
    "BUCKET_S",
    "PROVIDER_FAILED",
    "Bucket",
    "EndedDelivery",
    "Failure",
    "FailureKind",
    "Failures",
    "History",
    "Interval",
    "Occurrence",
    "RecentResult",
    "RecentResults",
    "State",
    "Throughput",
    "Thumbnail",
]
