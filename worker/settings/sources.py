"""Reads the sources of settings: a TOML file, a secrets directory, a `.env` file and the environment.

pydantic-settings reads the `.env` file and the secrets directory. `names` decides which setting a name stands for,
because instances have names of the operator's choice: an environment variable cannot spell `Acme`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import DotEnvSettingsSource, NestedSecretsSettingsSource, SecretsSettingsSource, SettingsError

from worker.settings.base import Section
from worker.settings.connect import ConnectionSettings
from worker.settings.names import WHY_NO_NAME, AmbiguousNameError, is_setting, key_of, nearest_to, value_of
from worker.settings.presets import preset, preset_names
from worker.settings.problems import Problem, SettingValue, refused
from worker.settings.root import ENV_PREFIX, NESTING, Settings
from worker.settings.schema import (
    SettingKey,
    dotted,
    environment_name,
    find_field,
    is_list,
    named_above,
    named_table,
    nearest,
    secret_name,
    table_of,
)

SECRETS_MAXIMUM_BYTES = 1024**2


class SettingsReader:
    """Accumulates the values, tables of free names and problems found in the sources.

    A source read later takes precedence over an earlier one. A problem with a source is recorded in `problems`; no
    method raises it.
    """

    def __init__(self) -> None:
        self.values: dict[SettingKey, SettingValue] = {}
        self.named: dict[SettingKey, set[str]] = {("instances",): set()}
        """The names of the tables that may have any, such as instances, by where they are."""
        self.problems: list[Problem] = []
        self.ignored: list[Problem] = []

    def read_toml(self, path: Path) -> None:
        """Read a TOML file."""
        origin = f"file {path}"
        try:
            tree = tomllib.loads(path.read_text("utf-8-sig"))  # Windows' editors begin with a mark
        except tomllib.TOMLDecodeError as error:
            self.problems.append(Problem(str(path), f"not valid TOML: {error}"))
        except UnicodeDecodeError:
            self.problems.append(Problem(str(path), "not a UTF-8 text"))
        except OSError as error:
            self.problems.append(Problem(str(path), f"cannot be read: {error.strerror}"))
        else:
            self._take_table(Settings, tree, (), origin)

    def _take_table(self, table: type[Section], tree: Mapping[str, Any], above: SettingKey, origin: str) -> None:
        for name, value in tree.items():
            key = (*above, name)
            field = table.model_fields.get(name)
            if field is None:
                self.problems.append(_unknown(dotted(key), nearest(key), dotted, origin))
            elif named := named_table(field):
                self._take_named(named, value, key, origin)
            elif inner := table_of(field):
                self._take_inner(inner, value, key, origin)
            elif is_list(field) and isinstance(value, str):
                self._take_text(key, field, value, origin)
            else:
                self.values[key] = SettingValue(value, origin)

    def _take_text(self, key: SettingKey, field: FieldInfo, text: str, origin: str) -> None:
        try:
            self.values[key] = SettingValue(value_of(field, text), origin)
        except ValueError as error:
            self.problems.append(refused(key, SettingValue(text, origin), f"is not JSON: {error}"))

    def _take_named(self, table: type[Section], value: Any, key: SettingKey, origin: str) -> None:
        if not isinstance(value, Mapping):
            self.problems.append(refused(key, SettingValue(value, origin), "must be a table of tables"))
            return
        for name, inner in value.items():
            if self._is_name(key, name, origin):
                self._take_inner(table, inner, (*key, name), origin)

    def _is_name(self, above: SettingKey, name: str, origin: str) -> bool:
        """Note the name of a table, if it can have that one."""
        if (why := WHY_NO_NAME[above](name)) is not None:
            self.problems.append(Problem(dotted((*above, name)), why, origin))
            return False
        self.named.setdefault(above, set()).add(name)
        return True

    def _take_inner(self, table: type[Section], value: Any, key: SettingKey, origin: str) -> None:
        if isinstance(value, Mapping):
            self._take_table(table, value, key, origin)
        else:
            self.problems.append(refused(key, SettingValue(value, origin), f"must be a table, [{dotted(key)}]"))

    def read_presets(self) -> None:
        """Lay the presets of connections beneath what was read."""
        read, self.values = self.values, {}
        for name in sorted(self.named.get(("connect",), ())):
            chosen = read.get(("connect", name, "preset"))
            if chosen is None:
                continue
            try:
                table = preset(str(chosen.value))
            except KeyError:
                known = ", ".join(preset_names())
                self.problems.append(refused(("connect", name, "preset"), chosen, f"must be one of {known}"))
                continue
            self._take_table(ConnectionSettings, table, ("connect", name), f"preset {chosen.value}")
        self.values |= read

    def read_secrets(self, directory: Path, *, may_be_missing: bool = False) -> None:
        """Read a directory with one file per setting.

        Symbolic links are followed inside the directory (Kubernetes creates such links), never out of it.
        """
        problem = None
        names: Mapping[str, str | None] = {}
        try:
            names = NestedSecretsSettingsSource(
                SecretsSettingsSource(Settings),
                secrets_dir=directory,
                secrets_dir_missing="ok" if may_be_missing else "error",
                secrets_dir_max_size=SECRETS_MAXIMUM_BYTES,
                secrets_prefix="",
            ).env_vars
            self.problems += [
                Problem(f"secret {path}", "is a link that leads out of the directory; it is not followed")
                for path in _links_out_of(directory)
            ]
        except SettingsError as error:
            problem = str(error)
        except UnicodeDecodeError:
            problem = "holds a file that is not a UTF-8 text"
        except OSError as error:
            problem = f"{error.filename}: {error.strerror}"
        if problem:
            self.problems.append(Problem(f"secrets directory {directory}", problem))
        # A file without the separator belongs to another program: directories of secrets are shared (/run/secrets).
        ours = {name: text or "" for name, text in names.items() if NESTING in name}
        self._take_texts(ours, lambda name: f"secret {name}", secret_name)

    def dotenv(self, path: Path) -> dict[str, str]:
        """The variables in a `.env` file, with names in lower case; none when there is no file."""
        problem = None
        try:
            variables = DotEnvSettingsSource(Settings, env_file=path).env_vars
        except UnicodeDecodeError:
            problem = "not a UTF-8 text"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        if problem:
            self.problems.append(Problem(str(path), problem))
            return {}
        return {name: text for name, text in variables.items() if text}

    def read_environment(self, variables: Mapping[str, str], origin: str = "environment") -> None:
        """Read the environment variables that are meant as settings; all others are ignored."""
        ours = {
            name.upper().removeprefix(ENV_PREFIX).lower(): text
            for name, text in variables.items()
            if is_setting(name, text)
        }
        self._take_texts(ours, lambda name: f"{origin} {ENV_PREFIX}{name.upper()}", environment_name)

    def _take_texts(
        self, texts: Mapping[str, str], origin_of: Callable[[str], str], spelled: Callable[[SettingKey], str]
    ) -> None:
        for name, text in texts.items():
            origin = origin_of(name)
            try:
                key = key_of(name, self.named)
            except AmbiguousNameError as error:
                self.problems.append(Problem(origin, str(error)))
                continue
            field = find_field(key) if key else None
            if not key or not field:
                meant = nearest_to(name)
                if meant is None and NESTING not in name:  # not ours by its form, and no misspelling of one of ours
                    self.ignored.append(Problem(origin, "is not a setting, and is ignored"))
                else:
                    self.problems.append(_unknown(origin, meant, spelled))
                continue
            above = named_above(key)
            if above is None or self._is_name(above, key[len(above)], origin):
                self._take_text(key, field, text, origin)


def _links_out_of(directory: Path) -> list[Path]:
    """The links out of the directory, which pydantic-settings ignores silently.

    Raises:
        OSError: the directory cannot be read; pydantic-settings treats it as empty.
    """
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    return [entry for entry in entries if NESTING in entry.name and _leads_out(entry, directory.resolve())]


def _leads_out(entry: Path, directory: Path) -> bool:
    try:
        return entry.is_symlink() and directory not in entry.resolve().parents
    except RuntimeError:  # a loop of links, before Python 3.13
        return True


def _unknown(name: str, meant: SettingKey | None, spelled: Callable[[SettingKey], str], origin: str = "") -> Problem:
    return Problem(name, "is not a setting" + (f"; did you mean {spelled(meant)}?" if meant else ""), origin)
