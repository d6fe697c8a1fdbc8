"""Settings: which settings exist, where they are read from, and which values apply to each virtual instance."""

from worker.settings.effective import effective_maximum_number_of_tags, settings_digest, tag_limit
from worker.settings.instance import (
    CloudSettings,
    GoogleCloudVisionSettings,
    InstanceSettings,
    InstanceTensorFlowSettings,
    LabelsSettings,
    MicrosoftVisionSettings,
)
from worker.settings.load import EffectiveSetting, LoadedSettings, load_settings
from worker.settings.root import DEFAULTS, Settings
from worker.settings.system import (
    AmqpSettings,
    CloudCacheSettings,
    CloudCallsSettings,
    DecoderSettings,
    HttpSettings,
    Inception5hSettings,
    LogSettings,
    ModelsSettings,
    RetrySettings,
    SourcesSettings,
    TensorFlowSettings,
)

__all__ = [
    "DEFAULTS",
    "AmqpSettings",
    "CloudCacheSettings",
    "CloudCallsSettings",
    "CloudSettings",
    "DecoderSettings",
    "EffectiveSetting",
    "GoogleCloudVisionSettings",
    "HttpSettings",
    "Inception5hSettings",
    "InstanceSettings",
    "InstanceTensorFlowSettings",
    "LabelsSettings",
    "LoadedSettings",
    "LogSettings",
    "MicrosoftVisionSettings",
    "ModelsSettings",
    "RetrySettings",
    "Settings",
    "SourcesSettings",
    "TensorFlowSettings",
    "effective_maximum_number_of_tags",
    "load_settings",
    "settings_digest",
    "tag_limit",
]
