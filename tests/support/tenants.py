"""A running service with many virtual instances, whose settings file and secrets a test may change and reload."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pika

from tests.support.polling import until
from tests.support.service import Dms, Message, RunningService, delete_topology, running_service
from worker.amqp.topology import topology

DELAYS_S = (1, 3, 5)
"""The delays of the retry lanes: seconds instead of minutes."""

QUICK_CLOUD: dict[str, Any] = {
    "allow_private_endpoints": True,
    "allow_plain_http_endpoints": True,
    "retry_minimum_wait_s": 0.05,
    "retry_maximum_wait_s": 5,
    "circuit_open_s": 1,
}


LOCAL: dict[str, Any] = {"enabled": True}
"""Settings that enable TensorFlow."""


def as_toml(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> str:
    """A tree of settings as TOML; JSON's strings, numbers and lists are valid TOML."""
    lines = [f"{json.dumps(name)} = {json.dumps(each)}" for name, each in tree.items() if not isinstance(each, dict)]
    parts = ["\n".join(lines)]
    for name, each in tree.items():
        if isinstance(each, dict):
            path = (*above, name)
            parts.append(f"[{'.'.join(map(json.dumps, path))}]\n{as_toml(each, path)}")
    return "\n".join(parts)


class Tenancy:
    """One `autotag run`, and a DMS that records every message it receives."""

    def __init__(self, service: RunningService, dms: RecordingDms, folder: Path, tree: dict[str, Any]) -> None:
        self.service = service
        self.dms = dms
        self.settings = tree
        self._folder = folder

    def rewrite(self, **changes: Any) -> None:
        """Rewrite the settings file, with top-level tables replaced; the service is not signalled."""
        self.settings = self.settings | changes
        (self._folder / "autotag.toml").write_text(as_toml(self.settings))

    def reload(self, **changes: Any) -> None:
        """`rewrite`, then SIGHUP; returns when the service has reloaded the settings."""
        self._send_sighup(changes, "settings reloaded")

    def reload_refused(self, **changes: Any) -> str:
        """The same for settings that must be refused; returns the log line."""
        before = self.settings
        line = self._send_sighup(changes, "reload refused")
        self.settings = before
        return line

    def _send_sighup(self, changes: dict[str, Any], event: str) -> str:
        def lines() -> list[str]:
            return [line for line in self.service.logged().splitlines() if re.search(f'"event": "{event}', line)]

        before = len(lines())
        self.rewrite(**changes)
        self.service.process.send_signal(signal.SIGHUP)
        until(lambda: len(lines()) > before, f"the log has another {event!r}")
        return lines()[-1]

    def one_result(self, *events: str, within_s: float = 60) -> list[dict[str, Any]]:
        """The only result of each event, in the order of `events`."""
        found = self.dms.results_of(events, within_s=within_s)
        assert {event: len(found[event]) for event in events} == dict.fromkeys(events, 1)
        return [found[event][0].data for event in events]


class RecordingDms(Dms):
    """A DMS that records every message it receives."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self.seen: list[Message] = []

    def take(self, queue: str) -> Message | None:
        message = super().take(queue)
        if message is not None:
            self.seen.append(message)
        return message

    def remove_queues(self) -> None:
        """Delete the queues and exchanges that the service has declared."""
        delete_topology(self._channel, topology(self.prefix, DELAYS_S))


@contextmanager
def tenancy(
    url: str,
    prefix: str,
    folder: Path,
    *,
    instances: dict[str, dict[str, Any]],
    secrets: Mapping[str, str] | None = None,
    cloud: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    **more: Any,
) -> Iterator[Tenancy]:
    """A ready service with settings from a file and a secrets directory; it must exit with 0 at the end.

    `more` are further tables of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tree: dict[str, Any] = {
        "cloud": QUICK_CLOUD | dict(cloud or {}),
        "retry": {"delays_s": list(DELAYS_S)},
        "instances": instances,
        **more,
    }
    (folder / "autotag.toml").write_text(as_toml(tree))
    (folder / "secrets").mkdir()
    for name, text in (secrets or {}).items():
        (folder / "secrets" / name).write_text(text)
    environment = {
        "CONFIG": str(folder / "autotag.toml"),
        "SECRETS_DIR": str(folder / "secrets"),
        "LOG__LEVEL": "debug",
        "DEFAULTS__TENSORFLOW__ENABLED": "",
    } | dict(environment or {})
    with running_service(url, prefix, folder, **environment) as service:
        service.ready(within_s=120)
        dms = RecordingDms(url, prefix)
        try:
            yield Tenancy(service, dms, folder, tree)
            assert service.stop() == 0
        finally:
            with suppress(pika.exceptions.AMQPError):
                dms.remove_queues()
                dms.close()
