"""The mark by which our own headers are recognised, and their removal from messages that arrive without it.

Any publisher can write any header. Ours (`x-autotag-…`) say which attempt this is, what providers have answered, whose
dead letter it is: they are believed only with the mark, an HMAC-SHA256 over the body's SHA-256, the message id, and the
name and value of each of our headers. Nothing can then be changed, added, removed or moved to another message.
The key is common to all workers of a queue (docs/decisions/0012-our-own-headers-carry-a-mark.md).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import pika
import structlog

from worker.amqp.parameters import password
from worker.amqp.pika_fixes import UnreadableProperties
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)

OWN_PREFIX = "x-autotag-"
MARK_HEADER = "x-autotag-mark"

_PURPOSE = b"autotag: the mark on our own headers, version 1"
_ITERATIONS = 100_000
"""About 30 ms, once: those who may read a retry queue see marks, which must not give a weak password away."""

_DEFAULT_PASSWORDS = frozenset({"", "guest"})
_LOG_INTERVAL_S = 60.0


class HeaderMark:
    """Makes and checks marks with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, _PURPOSE, "sha256")

    @classmethod
    def of(cls, settings: AmqpSettings) -> Self:
        """The mark of every worker with the same `amqp.header_key` or, where none is set, password and prefix."""
        if settings.header_key is not None:
            return cls(settings.header_key.get_secret_value().encode())
        salt = _PURPOSE + settings.queue_prefix.encode()
        return cls(hashlib.pbkdf2_hmac("sha256", password(settings).encode(), salt, _ITERATIONS))

    def put_on(self, properties: pika.BasicProperties, body: bytes) -> None:
        """Mark the headers of a message of ours. Raises TypeError if one of ours is neither text nor a whole number."""
        headers = dict(properties.headers or {})
        properties.headers = headers | {MARK_HEADER: self._digest(properties, body)}

    def is_on(self, properties: pika.BasicProperties, body: bytes) -> bool:
        """Whether a message carries the mark, and its body, its id and our headers are as they were marked."""
        found = (properties.headers or {}).get(MARK_HEADER)
        if not isinstance(found, str):
            return False
        try:
            expected = self._digest(properties, body)
        except TypeError:  # a header of a type that we never write
            return False
        return hmac.compare_digest(found.encode(errors="surrogatepass"), expected.encode())

    def _digest(self, properties: pika.BasicProperties, body: bytes) -> str:
        digest = hmac.new(self._key, digestmod="sha256")
        digest.update(hashlib.sha256(body).digest())
        digest.update(_encoded(properties.message_id))
        for name, value in sorted(own_headers(properties)):
            if name != MARK_HEADER:
                digest.update(_encoded(name))
                digest.update(_encoded(value))
        return digest.hexdigest()


class HeaderCheck:
    """Drops our headers from messages that arrive without the mark, and counts these; logs at most once a minute."""

    def __init__(self, mark: HeaderMark, clock: Callable[[], float] = time.monotonic) -> None:
        self.unmarked = 0
        """Messages whose headers were dropped."""
        self._mark = mark
        self._clock = clock
        self._log_from_s = clock()
        self._logged = 0

    def on_arrival(self, properties: pika.BasicProperties, body: bytes) -> None:
        """Drop our headers from a message that has just arrived, unless it carries the mark."""
        if isinstance(properties, UnreadableProperties):  # the note was made here; what else is ours, by a publisher
            properties.headers = without_own(properties.headers) | properties.note
            return
        names = [name for name, _ in own_headers(properties)]
        if not names or self._mark.is_on(properties, body):
            return
        properties.headers = without_own(properties.headers)
        self.unmarked += 1
        now_s = self._clock()
        if now_s >= self._log_from_s:
            _log.warning(
                "headers of ours without our mark were dropped: a publisher wrote them, or a worker of this queue with "
                "another amqp.header_key or password",
                headers=sorted(name[:100] for name in names)[:10],
                messages=self.unmarked - self._logged,
            )
            self._log_from_s, self._logged = now_s + _LOG_INTERVAL_S, self.unmarked


def own_headers(properties: pika.BasicProperties) -> Iterator[tuple[str, object]]:
    """Name and value of each header that is ours by its name."""
    for name, value in (properties.headers or {}).items():
        if isinstance(name, str) and name.startswith(OWN_PREFIX):
            yield name, value


def without_own(headers: Mapping[str, object]) -> dict[str, object]:
    """Headers without ours. A name that is not UTF-8 is bytes in pika, and none of ours."""
    return {
        name: value for name, value in headers.items() if not (isinstance(name, str) and name.startswith(OWN_PREFIX))
    }


def is_guessable(settings: AmqpSettings) -> bool:
    """Whether the key is made of a password that everybody knows."""
    return settings.header_key is None and password(settings) in _DEFAULT_PASSWORDS


def _encoded(value: object) -> bytes:
    """A value with its type and length, so that no two sequences of values have the same bytes."""
    match value:
        case None:
            kind, written = b"-", b""
        case str():
            kind, written = b"s", value.encode(errors="surrogatepass")
        case bytes():
            kind, written = b"b", value
        case int() if not isinstance(value, bool):
            kind, written = b"i", str(int(value)).encode()
        case _:
            raise TypeError(f"a header of ours holds text or a whole number, not {type(value).__name__}")
    return kind + len(written).to_bytes(8) + written
