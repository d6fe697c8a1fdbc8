"""The data behind the Settings tab: what is in force, what a reload would change, and what one client may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from worker.http.sessions import SignedIn
from worker.settings.in_force import ReloadPreview, SettingInForce
from worker.settings.load import BY_DEFAULT
from worker.settings.overlay.form import FormField
from worker.settings.overlay.versions import Version
from worker.settings.schema import SettingKey, dotted, find_field

Shown = Literal["set", "all", "changes"]
MAXIMUM_INSTANCES = 24
"""Names of instances on one page; the rest is found by searching."""

MAXIMUM_ROWS = 400


@dataclass(frozen=True, slots=True)
class SettingsOutcome:
    """What became of something that was asked for on the page, for people."""

    done: bool
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingsView:
    """The tab for one client. `instance`: whose settings are shown; None for those of the service and the defaults."""

    rows: Sequence[SettingInForce]
    changes: Sequence[SettingInForce]
    preview: ReloadPreview
    instance: str | None
    instances: Sequence[str]
    query: str
    shown: Shown
    csrf_token: str | None
    signed_in: SignedIn | None
    why_no_editor: str | None
    """Why nothing can be changed here; None for a client that may."""
    versions: Sequence[Version] = ()
    in_use: Version | None = None
    undo_to: Version | None = None
    fingerprint: str = ""
    message: SettingsOutcome | None = None

    def found(self) -> list[SettingInForce]:
        """The rows to show: those that match the search, of those that were asked for."""
        changing = {each.key for each in self.changes}
        words = self.query.lower().split()
        return [
            each
            for each in self.rows
            if (self.shown != "set" or each.origin != BY_DEFAULT or each.key in changing)
            and (self.shown != "changes" or each.key in changing)
            and all(word in _searched(each) for word in words)
        ][:MAXIMUM_ROWS]

    def instances_found(self) -> list[str]:
        """Names of instances that contain what was searched for, the best first."""
        wanted = (self.instance or "").lower()
        return [name for name in self.instances if wanted in name.lower()]


@dataclass(frozen=True, slots=True)
class EditorView:
    """The editor's form for one scope. `values`: what was sent and not written, to be corrected."""

    scope: SettingKey
    groups: Mapping[str, Sequence[FormField]]
    seen: str
    csrf_token: str | None
    signed_in: SignedIn | None
    why_no_editor: str | None
    why_no_secrets: str | None
    is_new: bool
    values: Mapping[str, str] = field(default_factory=dict)
    message: SettingsOutcome | None = None

    @property
    def title(self) -> str:
        """What is edited, for people."""
        match self.scope:
            case ():
                return "The service"
            case ("defaults",):
                return "The defaults of every instance"
            case (_, name):
                return f"The instance {name}"
            case _:
                return ""


def _searched(each: SettingInForce) -> str:
    found = find_field(each.key)
    description = (found.description or "") if found is not None else ""
    value = "" if each.secret else str(each.value)
    return f"{dotted(each.key)} {description} {value} {each.origin}".lower()
