"""Consistency between settings: values that are each allowed but contradict each other.

A cloud provider without a key is not a contradiction: it concerns one instance, whose own results and the log report it
(`CloudProvider.review`), and is no reason to refuse the settings of all the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from worker.models.catalogue import means_our_concepts
from worker.settings.instance import InstanceSettings
from worker.settings.label_checks import impossible_rules
from worker.settings.origins import origin_url
from worker.settings.root import DEFAULTS, Settings
from worker.settings.s3 import buckets_of
from worker.settings.schema import SettingKey, dotted


class Contradiction(NamedTuple):
    """What is wrong with `key`; `because` is the setting that makes it wrong."""

    key: SettingKey
    because: SettingKey
    message: str


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """Every contradiction in the settings; one that instances inherit from the defaults is reported once."""
    # A certificate without a key is allowed: the key may be in the same file.
    yield from _key_alone(("amqp", "key_file"), settings.amqp.key_file, ("amqp", "cert_file"), settings.amqp.cert_file)
    for place, http in ((("http",), settings.http), (("connector", "http"), settings.connector.http)):
        files = ((*place, "key_file"), http.key_file, (*place, "certificate_file"), http.certificate_file)
        yield from _key_alone(*files)
    yield from _certificates_without_tls(settings)
    yield from _credentials(settings)
    yield from _s3(settings)
    yield from _connections(settings)
    if DEFAULTS in settings.instances:
        key = ("instances", DEFAULTS)
        yield Contradiction(key, key, f"no instance can have the name of the table [{DEFAULTS}], which holds for all")
    in_defaults: set[tuple[SettingKey, str]] = set()
    if settings.unknown_instances == "defaults":  # otherwise nothing ever runs with the defaults alone
        for each in _in_instance(settings, ("defaults",), settings.defaults):
            in_defaults.add((each.key[1:], each.because[-1]))
            yield each
    for name, instance in settings.instances.items():
        for each in _in_instance(settings, ("instances", name), instance):
            if (each.key[2:], each.because[-1]) not in in_defaults:  # reported once, not once per instance
                yield each


def _in_instance(settings: Settings, scope: SettingKey, instance: InstanceSettings) -> Iterator[Contradiction]:
    system_maximum = settings.maximum_number_of_tags_per_asset
    maximum = (*scope, "maximum_number_of_tags_per_asset")
    if 0 < system_maximum < instance.maximum_number_of_tags_per_asset:
        yield Contradiction(
            maximum,
            maximum,
            f"{instance.maximum_number_of_tags_per_asset} is above the system's maximum_number_of_tags_per_asset, "
            f"{system_maximum}",
        )
    impossible = impossible_rules(
        instance.labels,
        by_concept=instance.tensorflow.tags == "concepts",
        names_of_others=bool(instance.providers) or not all(map(means_our_concepts, settings.tensorflow.names)),
    )
    for field, message in impossible:
        key = (*scope, "labels", field)
        yield Contradiction(key, key, message)


def _key_alone(
    key: SettingKey, key_file: object, certificate: SettingKey, certificate_file: object
) -> Iterator[Contradiction]:
    if key_file and not certificate_file:
        yield Contradiction(key, key, f"has no effect without {dotted(certificate)}")


def _credentials(settings: Settings) -> Iterator[Contradiction]:
    seen: dict[str, str] = {}
    for name, credential in settings.sources.credentials.items():
        key = ("sources", "credentials", name)
        for field, message in credential.wrong_fields():
            yield Contradiction((*key, field), (*key, "kind" if message.startswith("is missing") else field), message)
        first = seen.setdefault(origin_url(name), name)
        if first != name:
            yield Contradiction(key, (*key, "kind"), f"is the same scheme, host and port as {first!r}")


def _s3(settings: Settings) -> Iterator[Contradiction]:
    tables = settings.sources.s3
    for name, table in tables.items():
        for field, message in table.wrong_fields():
            yield Contradiction(("sources", "s3", name, field), ("sources", "s3", name, field), message)
    seen: dict[str, str] = {}
    for bucket, name in buckets_of(tables):
        first = seen.setdefault(bucket, name)
        if first != name:
            key = ("sources", "s3", name, "buckets")
            yield Contradiction(key, key, f"the bucket {bucket!r} is in the table {first!r} too")


def _connections(settings: Settings) -> Iterator[Contradiction]:
    for name, connection in settings.connect.items():
        for place, message in connection.wrong_fields():
            key = ("connect", name, *place)
            yield Contradiction(key, key, message)
        if connection.enabled and connection.inlet.enabled and not settings.connector.http.enabled:
            key = ("connect", name, "inlet", "enabled")
            yield Contradiction(key, key, "no inlet can be reached while connector.http.enabled is false")
        if connection.s3 is not None and connection.s3 not in settings.sources.s3:
            key = ("connect", name, "s3")
            yield Contradiction(key, key, f"there is no table [sources.s3.{connection.s3}]")


def _certificates_without_tls(settings: Settings) -> Iterator[Contradiction]:
    amqp = settings.amqp
    if amqp.url.get_secret_value().startswith("amqp://"):
        for name in ("ca_file", "cert_file"):
            if getattr(amqp, name) is not None:
                yield Contradiction(
                    ("amqp", name), ("amqp", name), "has no effect: amqp.url does not begin with amqps://"
                )
