"""The settings of a running process: each value, where it comes from, since when, and what a reload would change."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import SecretStr

from worker.errors import Misconfigured
from worker.operations.clock import written
from worker.settings.load import LoadedSettings, shown
from worker.settings.root import DEFAULTS
from worker.settings.schema import INSTANCE, SYSTEM, SettingKey, find_field, is_secret

NEED_A_RESTART = (
    "amqp",
    "http",
    "log",
    "history",
    "retry.delays_s",
    "cache_dir",
    "state_dir",
    "control_socket",
    "overlay_file",
)
"""Settings that a reload can't change: what they stand for is built once."""

_FINGERPRINT_DIGITS = 6


@dataclass(frozen=True, slots=True)
class SettingInForce:
    """One setting of the running process, safe to show. Of a secret `value` is a fingerprint, or None if it is unset.

    `next_value` and `next_origin` are those that would be in force after what `changes` says.
    """

    key: SettingKey
    value: Any
    origin: str
    since: datetime
    secret: bool
    changes: str | None = None
    """`reload` or `restart`: what would put another value in force; None where none is waiting."""
    next_value: Any = None
    next_origin: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON value; of a secret only whether it is set, and its fingerprint."""
        found = {"value": self.value, "origin": self.origin, "since": written(self.since), "secret": self.secret}
        if self.changes is not None:
            found |= {"changes_at": self.changes, "next_value": self.next_value, "next_origin": self.next_origin}
        return found


@dataclass(frozen=True, slots=True)
class ReloadPreview:
    """What is in the sources now. `refused`: why a reload would be refused, in words; then nothing is known of it."""

    loaded: LoadedSettings | None
    refused: str | None = None


class SettingsInForce:
    """Which settings are in force, and since when. `adopt` is called with those that a reload has put in force."""

    def __init__(self, loaded: LoadedSettings, now: datetime) -> None:
        self.loaded = loaded
        self.at_start = loaded
        """What the process was started with: `NEED_A_RESTART` is in force from there."""
        self._started = now
        self._changed: dict[SettingKey, datetime] = {}
        self._salt = secrets.token_bytes(16)

    def adopt(self, new: LoadedSettings, now: datetime) -> None:
        """These settings are in force from now on."""
        for key in _written_keys(self.loaded, new):
            if not is_built_once(key) and _raw(self.loaded, key) != _raw(new, key):
                self._changed[key] = now
        self.loaded = new

    def need_a_restart(self, new: LoadedSettings) -> list[str]:
        """Of `NEED_A_RESTART`, what would have another value than at the start."""
        values = ((name, attrgetter(name)) for name in NEED_A_RESTART)
        return [name for name, of in values if of(self.at_start.settings) != of(new.settings)]

    def service(self, preview: ReloadPreview | None = None) -> Iterator[SettingInForce]:
        """Every setting of the service and of the defaults."""
        keys = dict.fromkeys((*SYSTEM, *_in_tables(self.loaded), *(_in_tables(preview.loaded) if preview else ())))
        return (self.one(key, preview) for key in keys)

    def instance(self, name: str, preview: ReloadPreview | None = None) -> Iterator[SettingInForce]:
        """Every setting of an instance."""
        return (self.one(("instances", name, *key), preview) for key in INSTANCE)

    def one(self, key: SettingKey, preview: ReloadPreview | None = None) -> SettingInForce:
        """One setting. The key is of a field; that of an instance may be one that is not named."""
        built_once = is_built_once(key)
        source = self.at_start if built_once else self.loaded
        field = find_field(key)
        secret = field is not None and is_secret(field)
        value = _raw(source, key)
        found = SettingInForce(key, self._shown(key, value, secret), source.origin(key), self._since(key), secret)
        after = preview.loaded if preview is not None else None
        if after is None or _raw(after, key) == value:
            return found
        return SettingInForce(
            key,
            found.value,
            found.origin,
            found.since,
            secret,
            "restart" if built_once else "reload",
            self._shown(key, _raw(after, key), secret),
            after.origin(key),
        )

    def would_change(self, preview: ReloadPreview) -> list[SettingInForce]:
        """What a reload or a restart would change: of the service, the defaults, and every instance for itself."""
        if preview.loaded is None:
            return []
        keys = (*SYSTEM, *_in_tables(self.at_start), *_written_keys(self.loaded, preview.loaded))
        return [each for key in dict.fromkeys(keys) if (each := self.one(key, preview)).changes is not None]

    def fingerprint(self, key: SettingKey, secret: str) -> str:
        """Six hexadecimal digits that say whether a secret is still the same, while this process lives.

        Salted by the process and by the key: neither a guess nor another setting shows what it is.
        """
        message = "\0".join((*key, secret)).encode()
        return hmac.new(self._salt, message, hashlib.sha256).hexdigest()[:_FINGERPRINT_DIGITS]

    def _shown(self, key: SettingKey, value: Any, secret: bool) -> Any:
        if not secret:
            return shown(value)
        match value:
            case SecretStr():
                return self.fingerprint(key, value.get_secret_value())
            case Mapping():
                return {name: self._shown((*key, name), each, True) for name, each in value.items()}
            case _:
                return value

    def _since(self, key: SettingKey) -> datetime:
        if key[:1] != ("instances",):
            return self._changed.get(key, self._started)
        own = self._changed.get(key, self._started)
        if key in self.loaded.origins:
            return own
        return max(own, self._changed.get(("defaults", *key[2:]), self._started))


def is_built_once(key: SettingKey) -> bool:
    """Whether a change takes effect at the next start only."""
    dotted = ".".join(key)
    return any(dotted == name or dotted.startswith(f"{name}.") for name in NEED_A_RESTART)


def preview(load: Callable[[], LoadedSettings]) -> ReloadPreview:
    """What a reload would find."""
    try:
        return ReloadPreview(load())
    except Misconfigured as error:
        return ReloadPreview(None, str(error))


def _written_keys(*states: LoadedSettings) -> dict[SettingKey, None]:
    """The keys that a source sets in any of these, as far as they are settings."""
    return {key: None for each in states for key in each.origins if find_field(key) is not None}


def _in_tables(loaded: LoadedSettings | None) -> Iterator[SettingKey]:
    """The settings of tables with names of the operator's own, but for instances, as far as they are set."""
    if loaded is not None:
        yield from loaded.in_named_tables()


def _raw(loaded: LoadedSettings, key: SettingKey) -> Any:
    """The value itself; that of an instance which is not named is the defaults'. None in a table that is not there."""
    if key[:1] == ("instances",) and key[1] not in loaded.settings.instances:
        key = (DEFAULTS, *key[2:])
    try:
        return loaded.value(key)
    except KeyError:
        return None
