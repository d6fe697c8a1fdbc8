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

from worker.settings.consistency import contradictions
from worker.settings.names import CONFIG_VARIABLE, SECRETS_VARIABLE
from worker.settings.problems import Problem, SettingValue, misconfigured, refused
from worker.settings.root import Settings
from worker.settings.schema import INSTANCE, MASK, SYSTEM, SettingKey, allowed, dotted, find_field
from worker.settings.sources import SettingsReader
from worker.settings.system import AMQP_URL

CONFIG_PLACES = (Path("autotag.toml"), Path("/etc/autotag/autotag.toml"))
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
        for key in SYSTEM:
            yield EffectiveSetting(key, shown(_value(self.settings, key)), self.origin(key))

    def instance(self, name: str) -> Iterator[EffectiveSetting]:
        """Every setting in effect for an instance; nothing when its events are skipped."""
        found = self.settings.instance(name)
        for key in INSTANCE if found else ():
            yield EffectiveSetting(key, shown(_value(found, key)), self.origin(("instances", name, *key)))


def load_settings(
    path: Path | None = None,
    *,
    secrets_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> LoadedSettings:
    """Read every source and validate every instance.

    `path` and `secrets_dir` take precedence over the variables AUTOTAG_CONFIG and AUTOTAG_SECRETS_DIR. `environ` and
    `directory` (which may hold `autotag.toml` and `.env`) default to those of the process.

    Raises:
        Misconfigured: with a line for each problem: key, value unless secret, what is allowed, where it was set.
    """
    environ = os.environ if environ is None else environ
    directory = Path() if directory is None else directory
    reader = SettingsReader()
    dotenv = reader.dotenv(directory / ".env")
    variables = {name.upper(): text for source in (dotenv, environ) for name, text in source.items() if text}

    config_file = _config_file(path, variables.get(CONFIG_VARIABLE), directory)
    if config_file:
        reader.read_toml(config_file)
    if "CREDENTIALS_DIRECTORY" in environ:  # set by systemd for LoadCredential=
        reader.read_secrets(Path(environ["CREDENTIALS_DIRECTORY"]), may_be_missing=True)
    if secrets_dir or SECRETS_VARIABLE in variables:
        reader.read_secrets(secrets_dir or Path(variables[SECRETS_VARIABLE]))
    reader.read_environment(dotenv, ".env")
    reader.read_environment(environ)

    settings, problems = _validated(reader)
    if settings is None:
        raise misconfigured([*reader.problems, *problems])
    loaded = LoadedSettings(settings, {key: each.origin for key, each in reader.values.items()}, config_file)
    problems = [
        Problem(dotted(each.key), each.message, loaded.origin(each.because)) for each in contradictions(settings)
    ]
    if reader.problems or problems:
        raise misconfigured([*reader.problems, *problems])
    return loaded


def shown(value: Any) -> Any:
    """A value in a form safe for people and for JSON; of the broker's address only the password is masked."""
    match value:
        case SecretStr():
            return _without_password(value.get_secret_value())
        case Path():
            return str(value)
        case tuple() | list():
            return [shown(each) for each in value]
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
        table = getattr(table, name)
    return table


def _config_file(path: Path | None, variable: str | None, directory: Path) -> Path | None:
    named = path or (Path(variable) if variable else None)
    if named:
        return named  # a named file must exist: reading it reports the problem when it does not
    return next((place for place in (directory / each for each in CONFIG_PLACES) if place.is_file()), None)


def _validated(reader: SettingsReader) -> tuple[Settings | None, list[Problem]]:
    """The settings, or their problems. No exception leaves this function: pydantic's hold the input, with secrets."""
    tree: dict[str, Any] = {"instances": {name: {} for name in sorted(reader.instances)}}
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
        hint = f" ({own})" if own else ""
        yield refused(key, values.get(key), f"must be {allowed(field)}{hint}" if field else detail["msg"])


def _setting_at(location: SettingKey) -> SettingKey:
    """The setting that an error concerns: the location of an error inside a list or map goes further down."""
    return next((location[:end] for end in range(1, len(location) + 1) if find_field(location[:end])), location)
