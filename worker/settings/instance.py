"""The settings of one virtual instance: its switches, thresholds and keys, and how they override the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from worker.settings.base import HeaderSecret, LocalPath, Section
from worker.settings.label_rules import LabelsSettings
from worker.settings.system import AllowedHost, Port
from worker.vocabulary import languages


def _with_names(language: str) -> str:
    if language not in languages():
        raise ValueError("there are no names in it")
    return language


class InstanceTensorFlowSettings(Section):
    """How an instance uses the local model."""

    enabled: bool = Field(False, description="Ask the local model.")
    tags: Literal["concepts", "labels"] = Field(
        "concepts",
        description="`concepts`: what the model is sure of, a label or broader terms, by calibrated confidence. "
        "`labels`: the model's labels by their scores alone, as Liferay does.",
    )
    confidence_threshold: float | None = Field(
        None, ge=0, le=1, description="Tags below this are left out; equal is kept. Unset: 0.6; of `labels`: 0.1."
    )
    specific_threshold: float = Field(
        0.65, ge=0, le=1, description="The same for a label that has broader terms, if that is higher; of `concepts`."
    )
    maximum_parents: int = Field(
        2, ge=0, le=20, description="Most broader terms among the tags of one image, the narrowest first."
    )

    @property
    def threshold(self) -> float:
        """The confidence below which tags are left out."""
        if self.confidence_threshold is not None:
            return self.confidence_threshold
        return 0.6 if self.tags == "concepts" else 0.1


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


class PublishersSettings(Section):
    """Whose events may speak for an instance: each list that is set has to hold."""

    users: tuple[str, ...] | None = Field(
        None,
        description="Users of RabbitMQ; their messages have to carry the property `user_id`, which it verifies. Unset: "
        "any; an empty list: nobody.",
        json_schema_extra={"allowed": "a list of texts"},
    )
    exchanges: tuple[str, ...] | None = Field(
        None,
        description="Exchanges that events were published to. Unset: any.",
        json_schema_extra={"allowed": "a list of texts"},
    )
    virtual_hosts: tuple[str, ...] | None = Field(
        None,
        description="Virtual hosts that the service may be connected to. Unset: any.",
        json_schema_extra={"allowed": "a list of texts"},
    )


class InstanceSourcesSettings(Section):
    """Where the images of an instance may come from, where that is not what `[sources]` says."""

    path_roots: tuple[LocalPath, ...] | None = Field(
        None,
        description="Directories below which its events' `path` may be. Unset: those of `[sources]`.",
        json_schema_extra={"allowed": "a list of paths"},
    )
    url_allowed_hosts: tuple[AllowedHost, ...] | None = Field(
        None,
        description="Hosts its events' `url` may name. Unset: those of `[sources]`.",
        json_schema_extra={"allowed": "a list of host names"},
    )
    url_allowed_ports: tuple[Port, ...] | None = Field(
        None,
        description="Ports of those hosts that are written without one. Unset: those of `[sources]`.",
        json_schema_extra={"allowed": "a list of whole numbers from 1 to 65535"},
    )


class InstanceNearDuplicatesSettings(Section):
    """Whether an instance's images that look like one before get the answers of that one."""

    enabled: bool = Field(
        False, description="Give the answers about an image again for images that look the same (docs/tags.md)."
    )
    maximum_distance: int = Field(
        3, ge=0, le=3, description="Bits of 64 in which the perceptual hashes of two such images may differ."
    )
    remember: int = Field(10_000, ge=1, le=1_000_000, description="Most images remembered for the instance.")
    providers: tuple[str, ...] = Field(
        ("tensorflow",),
        description="Whose answers are given again. A cloud service may see what a hash does not; a call saved is "
        "not paid for.",
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
    language: Annotated[str, AfterValidator(_with_names)] = Field(
        "en",
        description="Language of the tags where the event's `locale` names none that there are names in.",
        json_schema_extra={"allowed": f"one of {', '.join(languages())}"},
    )
    provider_wait_s: float = Field(
        10, ge=0, description="How long the tags of a fast provider wait for those of a slow one."
    )
    publishers: PublishersSettings = Field(PublishersSettings(), description="Whose events may speak for it.")
    sources: InstanceSourcesSettings = Field(InstanceSourcesSettings(), description="Where its images may come from.")
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
    near_duplicates: InstanceNearDuplicatesSettings = Field(
        InstanceNearDuplicatesSettings(), description="Images that look like one before."
    )


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
