"""Messages: events from the DMS, results for it. docs/messages.md describes both; the schemas are generated from here.

This package knows nothing of the settings; those take from it which names an instance may have.
"""

from worker.messages.events import DEFAULT_INSTANCE, EVENT_TYPE, IN_THE_BODY, ContentRef, Event, EventData, ReadEvent
from worker.messages.fields import is_instance_name
from worker.messages.large_image import LargeImage
from worker.messages.reading import read_event
from worker.messages.results import (
    RESULT_TYPE,
    ImageFacts,
    OutgoingMessage,
    ProviderReport,
    ProviderStatus,
    Result,
    ResultStatus,
    Tag,
    TagKind,
    comparable,
    read_result,
    result_data,
    write_result,
)
from worker.messages.unreadable import UnreadableEvent

__all__ = [
    "DEFAULT_INSTANCE",
    "EVENT_TYPE",
    "IN_THE_BODY",
    "RESULT_TYPE",
    "ContentRef",
    "Event",
    "EventData",
    "ImageFacts",
    "LargeImage",
    "OutgoingMessage",
    "ProviderReport",
    "ProviderStatus",
    "ReadEvent",
    "Result",
    "ResultStatus",
    "Tag",
    "TagKind",
    "UnreadableEvent",
    "comparable",
    "is_instance_name",
    "read_event",
    "read_result",
    "result_data",
    "write_result",
]
