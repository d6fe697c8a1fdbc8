"""The whole tree of settings, and how the settings of an instance are found by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path, user_state_path
from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.messages.events import DEFAULT_INSTANCE
from worker.settings.base import LocalPath, Section
from worker.settings.connect import ConnectionSettings, ConnectorSettings
from worker.settings.instance import InstanceSettings, merged
from worker.settings.system import (
    AmqpSettings,
    CanarySettings,
    CloudCallsSettings,
    DecoderSettings,
    HistorySettings,
    HttpSettings,
    LogSettings,
    MetricsSettings,
    ModelsSettings,
    NearDuplicatesSettings,
    RetrySettings,
    SourcesSettings,
    TensorFlowSettings,
)

ENV_PREFIX = "AUTOTAG_"
NESTING = "__"

DEFAULTS = "defaults"
"""The key under which `Settings.by_instance` has the settings of every instance without a table of its own."""


def _user_path(of_user: Callable[[str], Path], without_home: str) -> Callable[[], Path]:
    """The user's directory, or `without_home`, which says by its error what to set: not every command needs it."""

    def find() -> Path:
        try:
            return of_user("autotag")
        except RuntimeError:  # neither HOME nor an entry in /etc/passwd, as for an arbitrary user id of a container
            return Path(without_home)

    return find


class Settings(Section, BaseSettings):
    """The service as a whole.

    `Settings()` reads no source and has the defaults; `load_settings` reads the sources.
    `instances` has the complete settings of each named instance: `defaults`, with the instance's own values over them.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=NESTING, env_ignore_empty=True, env_file_encoding="utf-8"
    )

    enabled: bool = Field(
        True, description="Switch of the whole service; while it is off, every event is answered `skipped`."
    )
    maximum_number_of_tags_per_asset: int = Field(
        0, ge=0, description="Most tags for one asset in any instance; 0: no limit."
    )
    unknown_instances: Literal["defaults", "skip", "refuse"] = Field(
        "defaults",
        description="What to do with events of an instance that is not named under `instances`: `skip` answers them, "
        "`refuse` makes them dead letters without a result.",
    )
    while_nothing_is_switched_on: Literal["wait", "skip"] = Field(
        "wait",
        description="What to do with events while no provider is switched on anywhere: `wait` leaves them in their "
        "queue, `skip` answers them `skipped`.",
    )
    shutdown_grace_s: float = Field(25, gt=0, description="Time to finish deliveries in progress after SIGTERM.")
    cache_dir: LocalPath = Field(
        default_factory=_user_path(user_cache_path, "/var/cache/autotag"),
        description="Where built models are kept; they can be built again.",
        json_schema_extra={"default_text": "the user's cache directory; without a home, `/var/cache/autotag`"},
    )
    state_dir: LocalPath = Field(
        default_factory=_user_path(user_state_path, "/var/lib/autotag"),
        description="Where counters that outlive a restart are kept.",
        json_schema_extra={"default_text": "the user's state directory; without a home, `/var/lib/autotag`"},
    )
    state_dir_is_temporary: bool = Field(
        False,
        description="`state_dir` does not outlive a restart (an emptyDir of Kubernetes): `autotag check` then refuses "
        "a limit on the calls of a month without `cloud.budget_url`.",
    )
    control_socket: LocalPath = Field(
        default_factory=lambda earlier: earlier["state_dir"] / "control.sock",
        description="Socket by which the command line talks to the running service.",
        json_schema_extra={"default_text": "`control.sock` in `state_dir`"},
    )

    overlay_file: LocalPath = Field(
        default_factory=lambda earlier: earlier["state_dir"] / "overlay.toml",
        description="Settings that `autotag config set` and the status page's editor write; they lie over the TOML "
        "file. Earlier versions are kept in a directory beside it.",
        json_schema_extra={"default_text": "`overlay.toml` in `state_dir`"},
    )

    amqp: AmqpSettings = Field(AmqpSettings(), description="RabbitMQ.")
    retry: RetrySettings = Field(RetrySettings(), description="Retries with a delay.")
    sources: SourcesSettings = Field(SourcesSettings(), description="Where images come from.")
    decoder: DecoderSettings = Field(DecoderSettings(), description="Decoder children.")
    tensorflow: TensorFlowSettings = Field(TensorFlowSettings(), description="The model child.")
    models: ModelsSettings = Field(ModelsSettings(), description="Downloadable models.")
    canary: CanarySettings = Field(CanarySettings(), description="The canary.")
    cloud: CloudCallsSettings = Field(CloudCallsSettings(), description="Calls to cloud services.")
    near_duplicates: NearDuplicatesSettings = Field(
        NearDuplicatesSettings(), description="What is remembered of images for near-duplicates."
    )
    history: HistorySettings = Field(HistorySettings(), description="Ended events kept on disk.")
    connector: ConnectorSettings = Field(ConnectorSettings(), description="The process `autotag connect`.")
    connect: dict[str, ConnectionSettings] = Field(
        {}, description="Connections to systems that have images.", json_schema_extra={"named": "NAME"}
    )
    log: LogSettings = Field(LogSettings(), description="Logging.")
    metrics: MetricsSettings = Field(MetricsSettings(), description="Metrics.")
    http: HttpSettings = Field(HttpSettings(), description="HTTP.")

    defaults: InstanceSettings = Field(InstanceSettings(), description="What applies to every instance.")
    instances: dict[str, InstanceSettings] = Field(
        {}, description="What differs in one instance.", json_schema_extra={"named": "NAME"}
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: `load` reads the sources itself, to know where each value came from."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _complete_instances(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Merge each instance's overrides into the defaults before validation fills anything in."""
        under = _as_tree(tree.get("defaults", {}))
        instances = tree.get("instances")
        if not isinstance(under, dict) or not isinstance(instances, dict):
            return tree  # of the wrong shape: validation reports it
        complete = {name: merged(under, over) if isinstance(over, dict) else over for name, over in instances.items()}
        return {**tree, "instances": complete}

    def by_instance(self) -> dict[str, InstanceSettings]:
        """Every set of instance settings that can apply to an event, by name; `DEFAULTS` for all other instances."""
        return {DEFAULTS: self.defaults} | self.instances

    def reachable(self) -> dict[str, InstanceSettings]:
        """Those of `by_instance` under which an event can be tagged: what is switched off and defaults that no event
        can meet are left out.
        """
        return {
            name: instance
            for name, instance in self.by_instance().items()
            if self.enabled and instance.enabled and (name != DEFAULTS or self.unknown_instances == "defaults")
        }

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the connections that are on, in their order."""
        return tuple(sorted(name for name, each in self.connect.items() if each.enabled))

    def by_event_name(self) -> dict[str, InstanceSettings]:
        """Instances by the name that events give, as accounts and metrics are kept.

        The defaults stand under the name of events that give none, unless that instance has a table of its own.
        """
        return {DEFAULT_INSTANCE: self.defaults} | self.instances

    def instance(self, name: str) -> InstanceSettings | None:
        """The settings of an instance; None when it is unknown, and unknown ones are skipped or refused."""
        found = self.instances.get(name)
        if found is None and self.unknown_instances == "defaults":
            return self.defaults
        return found

    def sources_of(self, instance: InstanceSettings) -> SourcesSettings:
        """Where the images of an instance may come from: what it has set itself, else what holds for all."""
        own = {name: value for name, value in instance.sources if value is not None}
        return self.sources.model_copy(update=own) if own else self.sources


def _as_tree(value: Any) -> Any:
    """Only the fields that were set, so that `defaults` may also be passed as an object."""
    return value.model_dump(exclude_unset=True) if isinstance(value, Section) else value
