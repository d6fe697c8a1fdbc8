"""Settings: which settings exist, where they are read from, and which values apply to each virtual instance."""

from worker.settings.connect import (
    ConnectionSettings,
    ConnectorSettings,
    InletSettings,
    MappingSettings,
    PollSettings,
    RequestSettings,
    TargetSettings,
)
from worker.settings.credentials import CredentialSettings
from worker.settings.effective import effective_maximum_number_of_tags, settings_digest, tag_limit
from worker.settings.instance import (
    CloudSettings,
    GoogleCloudVisionSettings,
    InstanceSettings,
    InstanceSourcesSettings,
    InstanceTensorFlowSettings,
    MicrosoftVisionSettings,
    PublishersSettings,
)
from worker.settings.label_rules import LabelRules, LabelsSettings
from worker.settings.load import EffectiveSetting, LoadedSettings, load_settings
from worker.settings.problems import UnusableSettings
from worker.settings.root import DEFAULTS, Settings
from worker.settings.s3 import S3Settings, buckets_of, service_of
from worker.settings.system import (
    AmqpSettings,
    CloudCacheSettings,
    CloudCallsSettings,
    DecoderSettings,
    HttpSettings,
    Inception5hSettings,
    LogSettings,
    MetricsSettings,
    ModelsSettings,
    NearDuplicatesSettings,
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
    "ConnectionSettings",
    "ConnectorSettings",
    "CredentialSettings",
    "DecoderSettings",
    "EffectiveSetting",
    "GoogleCloudVisionSettings",
    "HttpSettings",
    "Inception5hSettings",
    "InletSettings",
    "InstanceSettings",
    "InstanceSourcesSettings",
    "InstanceTensorFlowSettings",
    "LabelRules",
    "LabelsSettings",
    "LoadedSettings",
    "LogSettings",
    "MappingSettings",
    "MetricsSettings",
    "MicrosoftVisionSettings",
    "ModelsSettings",
    "NearDuplicatesSettings",
    "PollSettings",
    "PublishersSettings",
    "RequestSettings",
    "RetrySettings",
    "S3Settings",
    "Settings",
    "SourcesSettings",
    "TargetSettings",
    "TensorFlowSettings",
    "UnusableSettings",
    "buckets_of",
    "effective_maximum_number_of_tags",
    "load_settings",
    "service_of",
    "settings_digest",
    "tag_limit",
]
