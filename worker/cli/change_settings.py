"""`autotag config set`, `unset`, `history`, `undo`: change the overlay, and have a running service read it.

They work on the file, so that no service has to run.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.operate import AsJson
from worker.cli.output import cell, print_error, print_json, print_line, print_lines, print_note
from worker.cli.running_settings import ask_running
from worker.errors import CannotBeDone, Misconfigured, TryLater
from worker.settings.load import LoadedSettings, shown
from worker.settings.overlay.change import UNSET, Changed, Editor, in_use, overlay_path, to_undo
from worker.settings.overlay.secret_files import write_secret
from worker.settings.overlay.versions import read_versions
from worker.settings.overlay.written import key_written, known_field, value_written
from worker.settings.schema import SettingKey, dotted, is_secret

_RELOAD_TIMEOUT_S = 900.0
_MISTAKES = ("setting_refused", "setting_unknown", "setting_has_no_effect", "setting_not_in_overlay")

SettingName = Annotated[
    str, typer.Argument(help='The setting, as in TOML: `defaults.language`, `instances."acme.org".enabled`.')
]
NoReload = Annotated[bool, typer.Option("--no-reload", help="Leave a running service as it is.")]
Seen = Annotated[
    str | None,
    typer.Option(
        "--seen",
        help="Refuse if the overlay is no longer the one with this fingerprint, which `autotag config history` shows.",
        metavar="FINGERPRINT",
    ),
]


@dataclass(frozen=True, slots=True)
class _Reloaded:
    """What a running service made of a change. `in_force` is what it says of the key; None where no service runs."""

    line: str
    in_force: dict[str, Any] | None = None
    as_wanted: bool = True


def set_value(
    context: typer.Context,
    key: SettingName,
    value: Annotated[
        str | None, typer.Argument(help="The value; `-`, or none, to read it from standard input.", metavar="VALUE")
    ] = None,
    no_reload: NoReload = False,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Set a setting, and have a running service read it.

    The value is checked together with all other settings, and written into the overlay (`overlay_file`) only if it is
    valid and would have effect: the environment and secrets take precedence over the overlay, the overlay over the TOML
    file. Earlier versions are kept; `autotag config undo` takes the last change back. Lists are written with commas or
    as JSON, tables as JSON:

        autotag config set instances.acme.tensorflow.confidence_threshold 0.3
        autotag config set defaults.labels.drop "screenshot, web site"
        autotag config set defaults.labels.rename '{"tabby": "cat"}'

    A key or password goes into the directory of secrets instead, in a file that only its owner may read; it is shown
    nowhere. Give it on standard input, since others can see the arguments of a command:

        autotag --secrets-dir /etc/autotag/secrets config set instances.acme.google_cloud_vision.api_key < key.txt
    """
    cli = CliContext.of(context)
    with _mistakes_reported():
        path = key_written(key)
        secret = is_secret(known_field(path))
        if secret and value not in (None, "-"):
            print_note("autotag: others may have seen this secret among the processes; next time give it on stdin")
        text = _from_stdin(key, secret=secret) if value in (None, "-") else str(value)
        if secret:
            _change_secret(cli, path, text, no_reload=no_reload, as_json=as_json)
            return
        changed = _editor(cli).change({path: value_written(path, text)}, seen=seen)
        _finish(cli, path, changed, no_reload=no_reload, as_json=as_json)


def unset(
    context: typer.Context, key: SettingName, no_reload: NoReload = False, seen: Seen = None, as_json: AsJson = False
) -> None:
    """Remove a setting from the overlay, so that what lies below holds again; a secret, from its directory.

    A whole table may be named too (`instances.acme`), and a key that is no setting any more.
    """
    cli = CliContext.of(context)
    with _mistakes_reported():
        path = key_written(key)
        loaded = _read(cli)
        in_overlay = loaded.overlay is not None and loaded.overlay.get(path) is not None
        if not in_overlay and is_secret(known_field(path)):
            _change_secret(cli, path, None, no_reload=no_reload, as_json=as_json)
            return
        changed = _editor(cli).change({path: UNSET}, seen=seen)
        _finish(cli, path, changed, no_reload=no_reload, as_json=as_json)


def undo(
    context: typer.Context,
    to: Annotated[int | None, typer.Option("--to", help="The number of the version to take again.")] = None,
    no_reload: NoReload = False,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Take the last change of the overlay back; again, the one before it. `--to` takes any version kept.

    An undo is a change too: it is kept, and can be undone with `--to`. Secrets are not versioned.
    """
    cli = CliContext.of(context)
    with _mistakes_reported():
        _finish(cli, None, _editor(cli).undo(to, seen=seen), no_reload=no_reload, as_json=as_json)


def history(
    context: typer.Context,
    version: Annotated[int | None, typer.Argument(help="Print what this version held.", metavar="NUMBER")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with what each version held.")] = False,
) -> None:
    """Show the versions of the overlay that are kept: who changed what, and when."""
    loaded = CliContext.of(context).load()
    overlay, versions = loaded.overlay, read_versions(overlay_path(loaded))
    if overlay is None:
        raise RuntimeError("these settings were not read from sources")
    now, before = in_use(overlay, versions), to_undo(overlay, versions)
    if version is not None:
        found = next((each for each in versions if each.number == version), None)
        if found is None:
            print_error(f"there is no version {version}; `autotag config history` lists those that are kept")
            raise typer.Exit(ExitCode.USAGE)
        versions = [found]
    if as_json:
        listed = [
            {
                "number": each.number,
                "at": each.at,
                "by": each.by,
                "what": each.what,
                "restores": each.restores,
                "in_use": each == now,
                "fingerprint": each.fingerprint,
                "content": each.content,
            }
            for each in versions
        ]
        of_file = {"path": str(overlay.path), "fingerprint": overlay.fingerprint, "damaged": overlay.damaged}
        print_json(of_file | {"undo_restores": before.number if before else None, "versions": listed}, indent=2)
        return
    if version is not None:
        print_lines(versions[0].content)
        return
    print_line(f"{overlay.path}, fingerprint {overlay.fingerprint}")
    if not versions:
        print_line("nothing has been changed by `autotag config set` or on the status page yet")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading, whole in (("", True), ("version", True), ("when", True), ("who", False), ("what", False)):
        table.add_column(heading, no_wrap=whole, overflow="fold")
    for each in reversed(versions):
        table.add_row(
            cell("in use" if each == now else ""),
            cell(str(each.number)),
            cell(each.at),
            cell(each.by),
            cell(*each.what),
            style="" if each == now else "dim",
        )
    Console().print(table)


def _change_secret(cli: CliContext, key: SettingKey, secret: str | None, *, no_reload: bool, as_json: bool) -> None:
    changed = write_secret(cli.read, key, secret)
    done = f"{dotted(key)} is {'removed from' if secret is None else 'written to'} {changed.file}"
    reloaded = _Reloaded("no service was asked to reload") if no_reload else _reload(changed.settings, key)
    if not reloaded.as_wanted and reloaded.in_force is None:
        changed.take_back()
        done = f"{dotted(key)} is as it was"
    else:
        _editor(cli).note(f"{dotted(key)}: {'secret removed' if secret is None else 'another secret'}")
    _say({"key": dotted(key), "secret": True, "file": str(changed.file)}, done, reloaded, as_json)


def _finish(cli: CliContext, key: SettingKey | None, changed: Changed, *, no_reload: bool, as_json: bool) -> None:
    """Have the service reload, and say what happened. What it refuses is taken back."""
    path = overlay_path(changed.after)
    if changed.version is None:
        done = f"{path} has it already: nothing was changed"
    else:
        done = f"{'; '.join(changed.version.what)}: written to {path}, version {changed.version.number}"
    reloaded = _Reloaded("no service was asked to reload") if no_reload else _reload(changed.after, key)
    if not reloaded.as_wanted and reloaded.in_force is None and changed.version is not None:
        _editor(cli).take_back(changed, "the service refused it")
        done = f"{path} is as it was"
    found: dict[str, Any] = {"file": str(path), "version": changed.version.number if changed.version else None}
    if key is not None:
        found |= {"key": dotted(key), "value": _value(changed.after, key), "before": _value(changed.before, key)}
    _say(found, done, reloaded, as_json)


def _say(found: dict[str, Any], done: str, reloaded: _Reloaded, as_json: bool) -> None:
    if as_json:
        service = {"said": reloaded.line, "in_force": reloaded.in_force, "as_wanted": reloaded.as_wanted}
        print_json(found | {"done": done, "service": service}, indent=2)
    else:
        print_line(done)
        (print_line if reloaded.as_wanted else print_error)(reloaded.line)
    if not reloaded.as_wanted:
        raise typer.Exit(ExitCode.FAILED)


def _reload(loaded: LoadedSettings, key: SettingKey | None) -> _Reloaded:
    from worker.operations.control import send_command

    path = loaded.settings.control_socket
    try:
        asyncio.run(send_command(path, "reload", within_s=_RELOAD_TIMEOUT_S))
        about = {"instance": key[1]} if key is not None and key[0] == "instances" and len(key) > 2 else {}
        found = ask_running(path, **about)
    except TryLater as error:
        if error.reason == "command_failed":
            return _Reloaded(f"{error}; the change is taken back", as_wanted=False)
        if error.reason == "not_allowed":
            return _Reloaded(f"the service has not been asked: {error}", {}, as_wanted=False)
        return _Reloaded(f"no service runs on {path}: it takes effect at the next start")
    if key is None or (now := found["settings"].get(dotted(key))) is None:
        return _Reloaded(f"the service on {path} has read the settings again", {})
    if now.get("changes_at") == "restart":
        return _Reloaded(f"the service on {path} takes it at its next start: until then {now['value']}", now)
    wanted = _value(loaded, key)
    if not now["secret"] and now["value"] != wanted:
        there = (found.get("overlay") or {}).get("path")
        return _Reloaded(
            f"the service on {path} has {now['value']!r} from {now['origin']}, and not {wanted!r}: its overlay is "
            f"{there}; call this command with the service's --config, environment and user",
            now,
            as_wanted=False,
        )
    value = "it" if now["secret"] else repr(now["value"])
    return _Reloaded(f"in force in the service on {path}: {value}, from {now['origin']}", now)


def _value(loaded: LoadedSettings, key: SettingKey) -> Any:
    try:
        return shown(loaded.value(key))
    except (KeyError, AttributeError, TypeError):  # a whole table, or what is no setting any more
        return None


def _editor(cli: CliContext) -> Editor:
    return Editor(cli.read, f"{_user()} on {socket.gethostname()}, by command", datetime.now(UTC))


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no entry for the user id, as in a container
        name = f"uid {os.getuid()}"
    return f"{by} as {name}" if (by := os.environ.get("SUDO_USER")) else name


def _read(cli: CliContext) -> LoadedSettings:
    read: Callable[[], LoadedSettings] = cli.read
    return read()


def _from_stdin(key: str, *, secret: bool) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(key, hide_input=secret, confirmation_prompt=False, err=True))
    return sys.stdin.read().rstrip("\r\n")


@contextmanager
def _mistakes_reported() -> Iterator[None]:
    try:
        yield
    except CannotBeDone as error:
        print_error(error)
        raise typer.Exit(ExitCode.USAGE if error.reason in _MISTAKES else ExitCode.FAILED) from None
    except Misconfigured as error:
        print_error(error)
        raise typer.Exit(ExitCode.USAGE) from None
