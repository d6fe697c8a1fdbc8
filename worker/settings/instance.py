"""The settings of one virtual instance: its switches, thresholds and keys, and how they override the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SecretStr

from worker.settings.base import HeaderSecret, Section


class InstanceTensorFlowSettings(Section):
    """How an instance uses the local model."""

    enabled: bool = Field(False, description="Ask the local model.")
    confidence_threshold: float = Field(0.1, ge=0, le=1, description="Labels below this are left out; equal is kept.")


class CloudSettings(Section):
    """What both cloud services share: the key, and the limits on calls."""

    enabled: bool = Field(False, description="Send images to this service.")
    api_key: HeaderSecret | None = Field(None, description="Key of the instance's own account with the service.")
    confidence_threshold: float | None = Field(
        None, ge=0, le=1, description="Tags below this are left out; unset: all the service names are kept."
    )
    resize: bool = Field(
        True,
        description="Send a smaller JPEG where the image is too large or of a format the service does not take, and "
        "once where the service refuses the file.",
    )
    timeout_s: float = Field(30, gt=0, description="Longest time for one call.")
    maximum_number_of_attempts: int = Field(4, ge=1, le=20, description="Calls for one image, the first included.")
    retry_total_s: float = Field(60, gt=0, description="Longest time over all calls for one image, pauses included.")
    calls_per_second: float | None = Field(None, gt=0, description="Most calls in a second; unset: no limit.")
    calls_per_month: int | None = Field(
        None, ge=0, description="Most calls in a calendar month (UTC); unset: no limit."
    )


class GoogleCloudVisionSettings(CloudSettings):
    """How an instance uses Google Cloud Vision."""

    endpoint: str = Field(
        "https://vision.googleapis.com",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="The service, or a regional one such as `https://eu-vision.googleapis.com`; a path may name "
        "project and location (`/v1/projects/NAME/locations/eu`).",
        json_schema_extra={"allowed": "an http or https address without query"},
    )
    maximum_number_of_results: int = Field(10, ge=1, le=50, description="Most labels asked for.")


class MicrosoftVisionSettings(CloudSettings):
    """How an instance uses Microsoft's vision service."""

    api_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="Endpoint of the resource; its path decides the API (`…/vision/v3.2`; none: Image Analysis 4.0).",
        json_schema_extra={"allowed": "an http or https address without query"},
    )
    language: str = Field(
        "en",
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z]{2,4})?$",
        description="Language of the tags.",
        json_schema_extra={"allowed": "a language code such as en or pt-BR"},
    )


class LabelsSettings(Section):
    """Rules applied to every tag of an instance: rename, clean, drop."""

    clean: Literal["none", "liferay"] = Field(
        "none", description="`liferay` removes the characters that Liferay refuses in a tag."
    )
    rename: dict[str, str] = Field(
        {},
        description="Maps a provider's names to the tags to use instead; case makes no difference.",
        json_schema_extra={"allowed": "a table from text to text"},
    )
    drop: tuple[str, ...] = Field(
        (),
        description="Tags that are never assigned; case makes no difference.",
        json_schema_extra={"allowed": "a list of texts"},
    )


class InstanceSettings(Section):
    """Everything that can differ between virtual instances."""

    enabled: bool = Field(True, description="Switch of the instance.")
    maximum_number_of_tags_per_asset: int = Field(
        0, ge=0, description="Most tags for one asset; 0: the system's limit. It may not be above the system's."
    )
    tag_assets_that_have_tags: bool = Field(
        False, description="Tag an asset even if its user has already set tags; the result never repeats those."
    )
    sites: dict[str, bool] = Field(
        {},
        description="Switch of each site; a site that is not named is on.",
        json_schema_extra={"allowed": "a table from a site's name to true or false"},
    )
    provider_wait_s: float = Field(
        10, ge=0, description="How long the tags of a fast provider wait for those of a slow one."
    )
    tensorflow: InstanceTensorFlowSettings = Field(
        InstanceTensorFlowSettings(), description="The local TensorFlow model."
    )
    google_cloud_vision: GoogleCloudVisionSettings = Field(
        GoogleCloudVisionSettings(), description="Google Cloud Vision."
    )
    microsoft_vision: MicrosoftVisionSettings = Field(
        MicrosoftVisionSettings(), description="Microsoft's vision service."
    )
    providers: dict[str, dict[str, Any]] = Field(
        {},
        description="Tables of providers that are not part of Autotag, by name. Secrets go into `provider_secrets`.",
        json_schema_extra={"allowed": "a table from a provider's name to its own table"},
    )
    provider_secrets: dict[str, dict[str, SecretStr]] = Field(
        {},
        description="Keys and passwords of providers that are not part of Autotag, by name.",
        json_schema_extra={"allowed": "a table from a provider's name to its secrets, each a text"},
    )
    labels: LabelsSettings = Field(LabelsSettings(), description="Rules for the names of tags.")


def merged(under: Mapping[str, Any], over: Mapping[str, Any], of: type[Section] = InstanceSettings) -> dict[str, Any]:
    """Override `under` with `over`, field by field: a table is merged, any other value (list or map too) replaced."""
    result = dict(under)
    for key, value in over.items():
        field = of.model_fields.get(key)
        table = field.annotation if field else None
        below = under.get(key, {})
        if isinstance(table, type) and issubclass(table, Section) and isinstance(value, Mapping):
            result[key] = merged(below, value, table) if isinstance(below, Mapping) else value
        else:
            result[key] = value
    return result
