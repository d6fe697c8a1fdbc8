"""S3 services: whose bucket it is, keys that belong together, and secrets that are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.settings_sources import SourceFiles
from worker.settings import service_of


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


def test_a_bucket_is_found_in_the_table_that_names_it_or_is_named_after_it(sources: SourceFiles) -> None:
    sources.toml('[sources.s3.photos]\ninstance = "a"\n[sources.s3.minio]\nbuckets = ["scans", "maps"]\ninstance = "b"')

    tables = sources.load().settings.sources.s3

    found = {bucket: service_of(tables, bucket) for bucket in ("photos", "scans", "maps", "minio", "other")}
    assert {bucket: each and each.instance for bucket, each in found.items()} == {
        "photos": "a",
        "scans": "b",
        "maps": "b",
        "minio": None,
        "other": None,
    }


def test_its_secret_comes_from_the_secrets_directory_and_is_masked(sources: SourceFiles) -> None:
    sources.toml('[sources.s3.minio]\naccess_key = "id"')
    sources.secret("sources__s3__minio__secret_key", "s3cret\n")

    loaded = sources.load()

    assert loaded.settings.sources.s3["minio"].secret_key == SecretStr("s3cret")
    shown = {each.key[-1]: each.value for each in loaded.system() if each.key[:2] == ("sources", "s3")}
    assert (shown["access_key"], shown["secret_key"]) == ("id", "********")


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ('[sources.s3.a]\naccess_key = "id"', "sources.s3.a.secret_key: is missing"),
        ('[sources.s3.a]\nsecret_key = "s"', "sources.s3.a.access_key: is missing"),
        ('[sources.s3.a]\n[sources.s3.b]\nbuckets = ["a"]', "the bucket 'a' is in the table 'a' too"),
        ('[sources.s3.a]\nendpoint = "minio:9000"', "must be an http or https address without path"),
        ('[sources.s3.a]\nendpoint = "https://h/path"', "must be an http or https address without path"),
        ('[sources.s3.a]\ninstance = "a b"', "must be a name of an instance"),
        ('[sources.s3."a b"]', "'a b' is no name"),
    ],
)
def test_what_contradicts_itself_is_refused(sources: SourceFiles, toml: str, complaint: str) -> None:
    sources.toml(toml)

    assert complaint in sources.complaint()
