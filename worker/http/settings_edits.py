"""Saving what the status page's editor sends: the overlay, the secrets, a reload; and back, if that is refused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_urlsafe
from typing import Any

from worker.errors import AutotagError, CannotBeDone
from worker.http.page.settings_view import SettingsOutcome
from worker.http.service_api import ServiceApi
from worker.http.settings_names import INHERIT
from worker.settings.load import LoadedSettings
from worker.settings.overlay.change import UNSET, Changed, Editor, why_not_writable
from worker.settings.overlay.form import FormField, all_of, change_of, digest, fields_of
from worker.settings.overlay.secret_files import SecretChanged, write_secret
from worker.settings.overlay.versions import read_versions
from worker.settings.schema import SettingKey, dotted

_ANSWER_WITHIN_S = 20.0
"""A reload may have to build a model; the page does not wait for that."""

_KEPT = 16


@dataclass(slots=True)
class Outcomes:
    """The last outcomes, for the page that a browser is led to after it has sent a form."""

    _by_id: OrderedDict[str, SettingsOutcome] = field(default_factory=OrderedDict)

    def keep(self, outcome: SettingsOutcome) -> str:
        """Returns the name under which it is found again."""
        name = token_urlsafe(9)
        self._by_id[name] = outcome
        if len(self._by_id) > _KEPT:
            self._by_id.popitem(last=False)
        return name

    def get(self, name: str) -> SettingsOutcome | None:
        """The outcome of that name, if it is still kept."""
        return self._by_id.get(name)


def why_no_editor(service: ServiceApi, loaded: LoadedSettings | None) -> str | None:
    """Why nothing can be changed on the page, in words; None when it can, by those who have signed in."""
    http = service.in_force.at_start.settings.http
    if not http.editor:
        return "Settings are changed on this page only with http.editor = true; `autotag config set` does the same."
    if not http.signs_people_in:
        return "Settings are changed on this page by those who have signed in: set http.token or http.sso."
    if loaded is None:
        return "The settings cannot be read as they are; mend them first."
    if (why := why_not_writable(loaded)) is not None:
        return f"Settings cannot be changed here: {why}. Change them where it comes from, or set overlay_file."
    return None


async def save(service: ServiceApi, scope: SettingKey, form: Mapping[str, str], by: str) -> SettingsOutcome:
    """Write what a form changes, and reload. Raises CannotBeDone if nothing was written."""
    written = await asyncio.to_thread(_write, service, scope, form, by)
    if written is None:
        return SettingsOutcome(True, "Nothing was changed")
    return await _reloaded(service, written)


async def undo(service: ServiceApi, to: int | None, seen: str, by: str) -> SettingsOutcome:
    """Take an earlier version again, and reload. Raises CannotBeDone if nothing was written."""
    editor = Editor(service.load, by, datetime.now(UTC))
    changed = await asyncio.to_thread(editor.undo, to, seen=seen)
    if changed.version is None:
        return SettingsOutcome(True, "Nothing was changed")
    return await _reloaded(service, _Written(editor, changed, []))


async def reload(service: ServiceApi) -> SettingsOutcome:
    """Read the settings again."""
    return await _within(_reload(service), "The reload is still under way")


@dataclass(frozen=True, slots=True)
class _Written:
    """What has been written, and can be taken back."""

    editor: Editor
    changed: Changed | None
    secrets: list[SecretChanged]

    @property
    def lines(self) -> tuple[str, ...]:
        version = self.changed.version if self.changed is not None else None
        what = version.what if version is not None else ()
        return (*what, *(f"{each.file.name}: {'removed' if each.removed else 'written'}" for each in self.secrets))

    def take_back(self, why: str) -> None:
        if self.changed is not None:
            self.editor.take_back(self.changed, why)
        for each in self.secrets:
            each.take_back()


def _write(service: ServiceApi, scope: SettingKey, form: Mapping[str, str], by: str) -> _Written | None:
    loaded = service.load()
    if (why := why_no_editor(service, loaded)) is not None:
        raise CannotBeDone(why, reason="overlay_not_written")
    if loaded.overlay is None:
        raise CannotBeDone("these settings come from no sources", reason="overlay_not_written")
    fields = all_of(fields_of(loaded, scope))
    if form.get("seen") != digest(fields):
        raise CannotBeDone(_who_was_first(loaded), reason="overlay_changed")
    changes, secrets = _changes(fields, form)
    if not changes and not secrets:
        return None
    editor = Editor(service.load, by, datetime.now(UTC))
    # The overlay first: an instance whose name has capitals is known by it, and not by the name of a secret's file
    changed = editor.change(changes, seen=loaded.overlay.fingerprint) if changes else None
    written = _Written(editor, changed, [])
    try:
        for key, secret in secrets.items():
            written.secrets.append(write_secret(service.load, key, None if secret is UNSET else secret))
    except AutotagError as error:
        written.take_back(str(error).partition("\n")[0])
        raise
    for key, secret in secrets.items():
        editor.note(f"{dotted(key)}: {'secret removed' if secret is UNSET else 'another secret'}")
    return written


def _changes(fields: list[FormField], form: Mapping[str, str]) -> tuple[dict[SettingKey, Any], dict[SettingKey, Any]]:
    """What the form changes in the overlay, and which secrets. Raises CannotBeDone with every wrong field."""
    changes: dict[SettingKey, Any] = {}
    secrets: dict[SettingKey, Any] = {}
    wrong = []
    for each in fields:
        if each.name not in form and INHERIT + each.name not in form:
            continue
        try:
            value = change_of(each, form.get(each.name, each.text), inherit=INHERIT + each.name in form)
        except CannotBeDone as error:
            wrong.append(str(error))
            continue
        if value is not None:
            (secrets if each.kind == "secret" else changes)[each.key] = value
    if wrong:
        raise CannotBeDone("not written:\n" + "\n".join(f"  {line}" for line in wrong), reason="setting_refused")
    return changes, secrets


def _who_was_first(loaded: LoadedSettings) -> str:
    versions = read_versions(loaded.overlay.path) if loaded.overlay is not None else []
    who = (
        f" The last change is by {versions[-1].by} at {versions[-1].at}: {'; '.join(versions[-1].what)}."
        if versions
        else ""
    )
    return (
        f"Not written: these settings have been changed since you opened the form.{who} The form below shows them as "
        "they are now; make your change again."
    )


async def _reloaded(service: ServiceApi, written: _Written) -> SettingsOutcome:
    async def reload_or_take_back() -> SettingsOutcome:
        outcome = await _reload(service)
        if outcome.done:
            return SettingsOutcome(True, "Saved, and in force", written.lines)
        await asyncio.to_thread(written.take_back, "the service refused it")
        return SettingsOutcome(
            False, "Taken back: the service could not work with it", (*outcome.lines, *written.lines)
        )

    return await _within(reload_or_take_back(), "Saved; the reload is still under way", written.lines)


async def _reload(service: ServiceApi) -> SettingsOutcome:
    try:
        await service.reload()
    except AutotagError as error:
        return SettingsOutcome(False, "The reload was refused; everything is as it was", tuple(str(error).splitlines()))
    return SettingsOutcome(True, "The settings have been read again")


_under_way: set[asyncio.Future[SettingsOutcome]] = set()


async def _within(
    coroutine: Awaitable[SettingsOutcome], otherwise: str, lines: tuple[str, ...] = ()
) -> SettingsOutcome:
    """The outcome, or, if it takes longer than a browser should wait, that it is under way."""
    task = asyncio.ensure_future(coroutine)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    done, _ = await asyncio.wait({task}, timeout=_ANSWER_WITHIN_S)
    if done:
        return task.result()
    return SettingsOutcome(
        True, otherwise, (*lines, "The overview and the log say when it is done, or why it was refused.")
    )
