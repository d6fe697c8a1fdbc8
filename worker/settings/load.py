"""Loading: reads the sources in order, merges them into one tree, and reports every problem in one error.

Precedence, highest first: environment, `.env`, secrets directory, TOML file, defaults of the code. Loading depends on
nothing but the arguments, the environment and the files, so a reload is a second call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from worker.models.manifest import Calibration
from worker.settings.amqp_url import AMQP_URL, settings_in_query
from worker.settings.consistency import contradictions
from worker.settings.names import CONFIG_VARIABLE, ENV_FILE_VARIABLE, SECRETS_VARIABLE
from worker.settings.problems import Problem, SettingValue, UnusableSettings, refused
from worker.settings.root import Settings
from worker.settings.rules_file import with_rules_files
from worker.settings.schema import INSTANCE, MASK, NAMED, SYSTEM, SettingKey, allowed, dotted, find_field, unit
from worker.settings.sources import SettingsReader
from worker.settings.trust import why_not_read

CONFIG_NAME, ENV_NAME = "autotag.toml", ".env"
"""Looked for in the current directory, and read if their owner can be trusted (`trust`)."""

SYSTEM_CONFIG = Path("/etc/autotag/autotag.toml")
BY_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """The value of a setting in effect, safe to show: secrets are masked."""

    key: SettingKey
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, and where each value that is not a default came from."""

    settings: Settings
    origins: Mapping[SettingKey, str]
    config_file: Path | None
    found_files: tuple[Path, ...] = ()
    """Files of the current directory that were read although nobody named them."""
    ignored_files: tuple[Problem, ...] = ()
    """Files of the current directory that were not read, with the reason."""
    ignored_variables: tuple[Problem, ...] = ()
    """Variables with our prefix that are no settings, and resemble none: another program's, or of another version."""

    def origin(self, key: SettingKey) -> str:
        """Where the value of a setting came from, in words; for an instance's setting, also which table it is in."""
        if key[:1] != ("instances",):
            return self.origins.get(key, BY_DEFAULT)
        for scope in (key[:2], ("defaults",)):
            if found := self.origins.get((*scope, *key[2:])):
                return f"[{dotted(scope)}] {found}"
        return BY_DEFAULT

    def system(self) -> Iterator[EffectiveSetting]:
        """Every setting of the service and of the defaults."""
        for key in (*SYSTEM, *self._in_named_tables()):
            yield EffectiveSetting(key, shown(_value(self.settings, key)), self.origin(key))

    def _in_named_tables(self) -> Iterator[SettingKey]:
        """The settings of tables of free names that belong to the service, as far as they are set."""
        for above, inside in NAMED.items():
            if above == ("instances",):
                continue
            for name, table in _value(self.settings, above).items():
                yield from ((*above, name, *key) for key in inside if _value(table, key) is not None)

    def instance(self, name: str) -> Iterator[EffectiveSetting]:
        """Every setting in effect for an instance; nothing when its events are skipped."""
        found = self.settings.instance(name)
        for key in INSTANCE if found else ():
            yield EffectiveSetting(key, shown(_value(found, key)), self.origin(("instances", name, *key)))


def load_settings(
    path: Path | None = None,
    *,
    secrets_dir: Path | None = None,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> LoadedSettings:
    """Read every source and validate every instance.

    `path`, `secrets_dir` and `env_file` take precedence over the variables AUTOTAG_CONFIG, AUTOTAG_SECRETS_DIR and
    AUTOTAG_ENV_FILE. `environ` and `directory` default to those of the process. A file `autotag.toml` or `.env` in
    `directory` that is not named is read only if its owner can be trusted.

    Raises:
        UnusableSettings: with a line for each problem: key, value unless secret, what is allowed, where it was set.
    """
    sources = read_sources(path, secrets_dir=secrets_dir, env_file=env_file, environ=environ, directory=directory)
    reader, implicit = sources.reader, sources.implicit
    settings, problems = _validated(reader)
    if settings is None:
        raise UnusableSettings([*reader.problems, *problems])
    settings, of_files, wrong = with_rules_files(settings)
    origins = {key: each.origin for key, each in reader.values.items()}
    origins |= {key: f"{origins[key]}, and {file}" if key in origins else file for key, file in of_files.items()}
    loaded = LoadedSettings(
        settings, origins, sources.config_file, tuple(implicit.read), tuple(implicit.ignored), tuple(reader.ignored)
    )
    problems = [Problem(dotted(each.key), each.message, loaded.origin(each.key)) for each in wrong]
    problems += [
        Problem(dotted(each.key), each.message, loaded.origin(each.because)) for each in contradictions(settings)
    ]
    if reader.problems or problems:
        raise UnusableSettings([*reader.problems, *problems])
    return loaded


class ImplicitFiles:
    """Files that are read because they lie in the current directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.read: list[Path] = []
        self.ignored: list[Problem] = []

    def find(self, name: str) -> Path | None:
        """The file of this name, if there is one that may be read."""
        path = self._directory / name
        if not path.is_file():
            return None
        why_not = why_not_read(path)
        if why_not is not None:
            self.ignored.append(Problem(str(path), f"is not read: {why_not}; to use it all the same, name it"))
            return None
        self.read.append(path)
        return path


@dataclass(frozen=True, slots=True)
class SourcesRead:
    """What was read from all sources; whether it makes settings is not looked at yet."""

    reader: SettingsReader
    config_file: Path | None
    implicit: ImplicitFiles


def read_sources(
    path: Path | None,
    *,
    secrets_dir: Path | None,
    env_file: Path | None,
    environ: Mapping[str, str] | None,
    directory: Path | None,
) -> SourcesRead:
    """Read every source, with the arguments of `load_settings`. What is wrong with one is in the reader's problems."""
    environ = os.environ if environ is None else environ
    directory = Path() if directory is None else directory
    reader = SettingsReader()
    implicit = ImplicitFiles(directory)
    named = {name.upper(): text for name, text in environ.items()}
    env_file = env_file or _named(named.get(ENV_FILE_VARIABLE))
    if env_file and not env_file.is_file():
        reader.problems.append(Problem(str(env_file), "is not there, or not a file"))
    env_file = env_file or implicit.find(ENV_NAME)
    dotenv = reader.dotenv(env_file) if env_file else {}
    variables = {name.upper(): text for source in (dotenv, environ) for name, text in source.items() if text}

    config_file = path or _named(variables.get(CONFIG_VARIABLE)) or implicit.find(CONFIG_NAME)
    if config_file is None and SYSTEM_CONFIG.is_file():
        config_file = SYSTEM_CONFIG
    if config_file:  # a named file must exist: reading it reports the problem when it does not
        reader.read_toml(config_file)
    if "CREDENTIALS_DIRECTORY" in environ:  # set by systemd for LoadCredential=
        reader.read_secrets(Path(environ["CREDENTIALS_DIRECTORY"]), may_be_missing=True)
    if secrets_dir or SECRETS_VARIABLE in variables:
        reader.read_secrets(secrets_dir or Path(variables[SECRETS_VARIABLE]))
    reader.read_environment(dotenv, ENV_NAME)
    reader.read_environment(environ)
    reader.read_presets()
    _take_query(reader)
    return SourcesRead(reader, config_file, implicit)


def shown(value: Any) -> Any:
    """A value in a form safe for people and for JSON; of the broker's address only the password is masked."""
    match value:
        case SecretStr():
            return _without_password(value.get_secret_value())
        case Path():
            return str(value)
        case tuple() | list():
            return [shown(each) for each in value]
        case Calibration():
            return value.model_dump(mode="json")
        case dict():
            return {name: shown(each) for name, each in value.items()}
        case _:
            return value


def _without_password(secret: str) -> str:
    address = AMQP_URL.fullmatch(secret)
    if not address:
        return MASK
    start, end = address.span("password")
    return secret if start < 0 else secret[:start] + MASK + secret[end:]


def _value(table: Any, key: SettingKey) -> Any:
    for name in key:
        table = table[name] if isinstance(table, Mapping) else getattr(table, name)
    return table


def _take_query(reader: SettingsReader) -> None:
    """The query of the broker's address sets what no source sets, with an origin of its own."""
    address = reader.values.get(("amqp", "url"))
    if address is None:
        return
    for name, text in settings_in_query(address.value).items():
        reader.values.setdefault(("amqp", name), SettingValue(text, f"query of amqp.url, {address.origin}"))


def _named(variable: str | None) -> Path | None:
    return Path(variable) if variable else None


def _validated(reader: SettingsReader) -> tuple[Settings | None, list[Problem]]:
    """The settings, or their problems. No exception leaves this function: pydantic's hold the input, with secrets."""
    tree: dict[str, Any] = {}
    for above, names in reader.named.items():
        table = tree
        for part in above:
            table = table.setdefault(part, {})
        table.update((name, {}) for name in sorted(names))
    for (*tables, name), each in reader.values.items():
        table = tree
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = each.value
    try:
        return Settings(**tree), []
    except ValidationError as error:
        return None, list(_problems_of(error, reader.values))


def _problems_of(error: ValidationError, values: Mapping[SettingKey, SettingValue]) -> Iterable[Problem]:
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] == "default_factory_not_called":
            continue  # follows from another error
        key = _setting_at(tuple(str(part) for part in detail["loc"]))
        if key[:1] == ("instances",) and key not in values:
            continue  # inherited from the defaults, where it is reported
        field = find_field(key)
        own = detail.get("ctx", {}).get("error")
        value = values.get(key)
        hint = f" ({own})" if own else ""
        if value is not None and _is_in_quotes(value.value):
            hint += "; the quotes are a part of the value: leave them out"
        message = f"must be {allowed(field)}{_in_unit(key, field)}{hint}" if field else detail["msg"]
        yield refused(key, value, message)


def _in_unit(key: SettingKey, field: FieldInfo) -> str:
    return " (in seconds, without a unit)" if unit(key[-1], field) == "seconds" else ""


def _is_in_quotes(value: object) -> bool:
    return isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"


def _setting_at(location: SettingKey) -> SettingKey:
    """The setting that an error concerns: the location of an error inside a list or map goes further down."""
    return next((location[:end] for end in range(1, len(location) + 1) if find_field(location[:end])), location)
