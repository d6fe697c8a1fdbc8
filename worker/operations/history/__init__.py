"""What the service remembers of the last while, for the people who look at its status page.

All of it is in memory, bounded in number and size, and gone at the end: the record proper is the log and the metrics.
Times are monotonic seconds and passed in; who shows them turns them into a time of day.
"""

from __future__ import annotations

from worker.operations.history.failures import Failure, Failures
from worker.operations.history.record import EndedDelivery, History
from worker.operations.history.results import RecentResult, RecentResults, Thumbnail
from worker.operations.history.throughput import BUCKET_S, BUCKETS, Bucket, Throughput
from worker.operations.history.timeline import Interval, Moment, State

__all__ = [
    "BUCKETS",
    "BUCKET_S",
    "Bucket",
    "EndedDelivery",
    "Failure",
    "Failures",
    "History",
    "Interval",
    "Moment",
    "RecentResult",
    "RecentResults",
    "State",
    "Throughput",
    "Thumbnail",
]
