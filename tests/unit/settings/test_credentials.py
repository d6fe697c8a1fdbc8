"""Credentials for image hosts: one table for each origin, complete for its kind, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.settings_sources import SourceFiles
from worker.settings.origins import origin_url

BASIC = '[sources.credentials."dms.example"]\nkind = "basic"\nusername = "u"\n'


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


@pytest.mark.parametrize("name", ["dms.example", "DMS_EXAMPLE", "dms_example"])
def test_its_secret_may_be_a_file_of_the_secrets_directory(sources: SourceFiles, name: str) -> None:
    sources.toml(BASIC)
    sources.secret(f"sources__credentials__{name}__password", "s3cret\n")

    (credential,) = sources.load().settings.sources.credentials.values()

    assert (credential.username, credential.password) == ("u", SecretStr("s3cret"))


def test_its_secret_may_be_a_variable_and_is_never_shown(sources: SourceFiles) -> None:
    sources.toml(BASIC)

    loaded = sources.load({"AUTOTAG_SOURCES__CREDENTIALS__DMS_EXAMPLE__PASSWORD": "s3cret"})

    shown = {each.key[2:]: each for each in loaded.system() if each.key[:2] == ("sources", "credentials")}
    assert {key: each.value for key, each in shown.items()} == {
        ("dms.example", "kind"): "basic",
        ("dms.example", "username"): "u",
        ("dms.example", "password"): "********",
    }
    assert shown["dms.example", "password"].origin == "environment AUTOTAG_SOURCES__CREDENTIALS__DMS_EXAMPLE__PASSWORD"
    assert "s3cret" not in repr(loaded)


def test_a_host_that_only_the_environment_names_is_complete_too(sources: SourceFiles) -> None:
    prefix = "AUTOTAG_SOURCES__CREDENTIALS__DMS__"

    settings = sources.load({f"{prefix}KIND": "bearer", f"{prefix}TOKEN": "t"}).settings

    assert settings.sources.credentials["dms"].token == SecretStr("t")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            'kind = "basic"\nusername = "u"',
            '"dms.example".password: is missing: a credential of the kind basic needs it',
        ),
        ('kind = "bearer"\ntoken = "t"\nusername = "u"', '"dms.example".username: has no effect'),
        ('kind = "bearer"\ntoken = "a b"', '"dms.example".token = ********: must be a text'),
        (
            'kind = "header"\nheader = "a b"\nvalue = "v"',
            '"dms.example".header = "a b": must be a name of an HTTP header',
        ),
        ('kind = "header"\nheader = "Host"\nvalue = "v"', "how the request is sent"),
        ('kind = "header"\nheader = "x"\nvalue = "a\\nb"', '"dms.example".value = ********: must be a text'),
        ('kind = "basic"\nusername = "a:b"\npassword = "p"', "a text without a colon"),
        ('kind = "sigv4"\naccess_key = "a"', '"dms.example".secret_key: is missing'),
        ('kind = "oauth2_client_credentials"\nclient_id = "c"', '"dms.example".token_url: is missing'),
        ('kind = "digest"', '"dms.example".kind = "digest": must be one of "basic", "bearer"'),
        ("", '"dms.example".kind: must be one of "basic", "bearer"'),
        ('kind = "basic"\nuser = "u"', '"dms.example".user: is not a setting; did you mean'),
    ],
)
def test_what_is_incomplete_or_wrong_is_refused_by_its_key(sources: SourceFiles, lines: str, complaint: str) -> None:
    sources.toml(f'[sources.credentials."dms.example"]\n{lines}')

    assert complaint in sources.complaint()


def test_one_origin_has_one_table(sources: SourceFiles) -> None:
    table = 'kind = "bearer"\ntoken = "t"\n'
    sources.toml(
        f'[sources.credentials."dms.example"]\n{table}[sources.credentials."https://DMS.example:443"]\n{table}'
    )

    assert "is the same scheme, host and port as 'dms.example'" in sources.complaint()


@pytest.mark.parametrize(
    "name", ["*.example", "dms.example/path", "u@dms.example", "ftp://dms.example", "", "a:0", "a b"]
)
def test_what_is_no_origin_has_no_table(sources: SourceFiles, name: str) -> None:
    sources.toml(f'[sources.credentials."{name}"]\nkind = "bearer"\ntoken = "t"')

    assert "is no host: write dms.example" in sources.complaint()


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("dms.example", "https://dms.example:443"),
        ("DMS.example.:8443", "https://dms.example:8443"),
        ("http://dms.lan", "http://dms.lan:80"),
        ("[::1]:9000", "https://[::1]:9000"),
    ],
)
def test_an_origin_is_https_unless_it_says_otherwise(text: str, origin: str) -> None:
    assert origin_url(text) == origin
