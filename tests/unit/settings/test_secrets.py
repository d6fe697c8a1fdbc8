"""Secrets: which files are read, and that no secret is ever shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.settings_sources import SourceFiles
from worker.errors import Misconfigured
from worker.settings import Settings, load_settings
from worker.settings.load import shown
from worker.settings.schema import INSTANCE, SYSTEM, is_secret

MARKER = "marker-7f3a9c"


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


def test_a_secret_file_loses_its_line_end(sources: SourceFiles) -> None:
    sources.secret("amqp__password", f"{MARKER}\n")
    assert sources.load().settings.amqp.password == SecretStr(MARKER)


def test_links_as_kubernetes_makes_them_are_followed(sources: SourceFiles) -> None:
    inside = sources.secrets_dir / "..2026_11_23"
    inside.mkdir(parents=True)
    (inside / "amqp__password").write_text(MARKER)
    (sources.secrets_dir / "..data").symlink_to("..2026_11_23")
    (sources.secrets_dir / "amqp__password").symlink_to("..data/amqp__password")
    loaded = sources.load()
    assert loaded.settings.amqp.password == SecretStr(MARKER)
    assert loaded.origin(("amqp", "password")) == "secret amqp__password"


def test_a_link_out_of_the_directory_is_refused_and_not_read(sources: SourceFiles, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text(MARKER)
    sources.secrets_dir.mkdir()
    (sources.secrets_dir / "amqp__password").symlink_to(tmp_path / "outside")
    complaint = sources.complaint()
    assert "is a link that leads out of the directory; it is not followed" in complaint
    assert MARKER not in complaint


def test_a_link_that_leads_in_a_circle_is_refused(sources: SourceFiles) -> None:
    sources.secrets_dir.mkdir()
    (sources.secrets_dir / "amqp__password").symlink_to("amqp__password")
    assert "amqp__password: is a link that leads out" in sources.complaint()


def test_an_unreadable_secrets_directory_is_refused(sources: SourceFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.secret("amqp__password", MARKER)

    def refuse(_directory: Path) -> None:
        raise PermissionError(13, "Permission denied", str(sources.secrets_dir))

    # Stands for mode 0700 of another user, because the tests may run as root, who may read everything.
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "Permission denied" in sources.complaint()


def test_the_secrets_directory_itself_may_be_a_link(sources: SourceFiles, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "amqp__password").write_text(MARKER)
    sources.secrets_dir.symlink_to(tmp_path / "real")
    assert sources.load().settings.amqp.password == SecretStr(MARKER)


def test_too_much_in_the_secrets_directory_is_refused(sources: SourceFiles) -> None:
    sources.secret("amqp__password", "x" * (1024**2 + 1))
    complaint = sources.complaint()
    assert "above 1048576 bytes" in complaint
    assert "xxx" not in complaint


def test_a_missing_secrets_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none.* does not exist"):
        load_settings(secrets_dir=tmp_path / "none", environ={}, directory=tmp_path)
    with pytest.raises(Misconfigured, match=r"none.* does not exist"):
        load_settings(environ={"AUTOTAG_SECRETS_DIR": str(tmp_path / "none")}, directory=tmp_path)


def test_a_secret_that_is_no_setting_is_refused_and_a_file_of_another_program_is_ignored(sources: SourceFiles) -> None:
    sources.secret("stranger", MARKER)
    sources.load()
    sources.secret("instances__acme__google_cloud_vison__api_key", MARKER)
    complaint = sources.complaint()
    assert "did you mean instances__acme__google_cloud_vision__api_key?" in complaint
    assert MARKER not in complaint


def test_systemd_credentials_are_read_below_the_secrets_directory(sources: SourceFiles, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "amqp__password").write_text("from systemd")
    (credentials / "amqp__username").write_text("user")
    sources.secret("amqp__password", "from secrets")
    amqp = sources.load({"CREDENTIALS_DIRECTORY": str(credentials)}).settings.amqp
    assert (amqp.password, amqp.username) == (SecretStr("from secrets"), "user")
    sources.load({"CREDENTIALS_DIRECTORY": str(tmp_path / "left over from another service")})


def with_a_secret_everywhere(sources: SourceFiles) -> dict[str, str]:
    sources.secret("instances__acme__google_cloud_vision__api_key", f"{MARKER}-secret")
    sources.dotenv(f"AUTOTAG_INSTANCES__ACME__MICROSOFT_VISION__API_KEY={MARKER}-dotenv")
    sources.toml(
        f"[amqp]\nurl = 'amqp://user:{MARKER}-url@host/v'\npassword = '{MARKER}-file'\n"
        f"[defaults.google_cloud_vision]\napi_key = '{MARKER}-defaults'\n"
        f"[defaults.provider_secrets.mine]\npassword = '{MARKER}-mine'\n"
    )
    return {"AUTOTAG_HTTP__TOKEN": f"{MARKER}-environment"}


def test_no_secret_is_in_anything_that_prints_settings(sources: SourceFiles) -> None:
    loaded = sources.load(with_a_secret_everywhere(sources))
    acme = loaded.settings.instances["acme"]
    assert acme.google_cloud_vision.api_key == SecretStr(f"{MARKER}-secret")
    assert acme.microsoft_vision.api_key == SecretStr(f"{MARKER}-dotenv")
    assert acme.provider_secrets == {"mine": {"password": SecretStr(f"{MARKER}-mine")}}
    for text in (
        repr(loaded),
        str(loaded.settings),
        loaded.settings.model_dump_json(),
        str(loaded.settings.model_dump()),
        str(list(loaded.system())),
        str(list(loaded.instance("acme"))),
    ):
        assert MARKER not in text


def test_of_the_brokers_address_only_the_password_is_hidden() -> None:
    assert shown(SecretStr("amqps://user:pw@host:5671/v")) == "amqps://user:********@host:5671/v"
    assert shown(SecretStr("amqp://host")) == "amqp://host"
    assert shown(SecretStr("amqp://user:p@w/x@host")) == "********", "what cannot be taken apart safely is all hidden"
    assert shown(SecretStr(MARKER)) == "********"


def invalid_files() -> list[str]:
    """Settings files that are refused, each with the marker where a secret might be."""
    secrets = [key for key in SYSTEM if is_secret(SYSTEM[key])]
    secrets += [("instances", "acme", *key) for key in INSTANCE if is_secret(INSTANCE[key])]
    files = [f"{'.'.join(key)} = {{x = '{MARKER}'}}" for key in secrets]
    files += [f"{'.'.join(key)} = ['{MARKER}']" for key in secrets]
    files += [f"{'.'.join(key)}x = '{MARKER}'" for key in secrets]
    return [
        *files,
        f"amqp.url = 'amqp://u:{MARKER}@@h'",
        f"amqp = 'amqp://u:{MARKER}@h'",
        f"instances = '{MARKER}'",
        f"instances.acme = '{MARKER}'",
        f"instances.acme.google_cloud_vision = '{MARKER}'",
        f"instances.acme.google_cloud_vision.api_key = '{MARKER} with space'",
        f"amqp.password = '{MARKER}",
        f"http.token = '{MARKER}'\nhttp.port = 'no'",
    ]


@pytest.mark.parametrize("text", invalid_files())
def test_no_secret_is_in_an_error_or_its_traceback(sources: SourceFiles, text: str) -> None:
    sources.toml(text)
    with pytest.raises(Misconfigured) as refusal:
        sources.load()
    printed = "".join(traceback.format_exception(refusal.value))
    assert MARKER not in printed
    assert refusal.value.__context__ is None, "pydantic's error holds the input; it must not travel along"


def test_a_secret_that_is_not_a_text_is_refused_without_its_bytes(sources: SourceFiles) -> None:
    sources.secrets_dir.mkdir()
    (sources.secrets_dir / "amqp__password").write_bytes(MARKER.encode() + b"\xff")
    with pytest.raises(Misconfigured, match="not a UTF-8 text") as refusal:
        sources.load()
    assert MARKER not in "".join(traceback.format_exception(refusal.value))


def test_direct_construction_does_not_show_its_input() -> None:
    with pytest.raises(ValueError, match="amqp") as refusal:
        Settings(amqp={"password": [MARKER]})
    assert MARKER not in str(refusal.value)
