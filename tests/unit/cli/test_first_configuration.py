"""`autotag config init`: what it writes is valid and tags with the local model; nothing of the user's is lost."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from tests.support.forked_commands import Ended, run_all
from tests.unit.cli.test_every_command import environment
from worker.cli.first_configuration import first_configuration
from worker.settings.file_schema import FILE_NAME, file_schema
from worker.settings.load import load_settings


def init(folder: Path, *words: str) -> Ended:
    (done,) = run_all([("config", "init", *words)], folder, environment())
    return done


def with_examples(text: str) -> str:
    """The configuration with what is commented out in it."""
    return re.sub(r"^# (\[|\w+ = )", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize("text", [first_configuration(), with_examples(first_configuration())], ids=["as is", "all"])
def test_it_is_valid_and_switches_on_the_local_model(tmp_path: Path, text: str) -> None:
    file = tmp_path / "first.toml"
    file.write_text(text)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for service in ("google_cloud_vision", "microsoft_vision"):
        (secrets / f"instances__acme__{service}__api_key").write_text("key")
    settings = load_settings(file, environ={}, directory=tmp_path, secrets_dir=secrets).settings
    assert settings.defaults.tensorflow.enabled
    assert not settings.defaults.google_cloud_vision.enabled
    jsonschema.Draft202012Validator(file_schema()).validate(tomllib.loads(text))
    assert settings.instances["acme"].google_cloud_vision.enabled == ("\n[instances.acme" in text)


def test_it_is_written_with_the_schema_that_its_first_line_names(tmp_path: Path) -> None:
    done = init(tmp_path, "my.toml")
    assert (done.status, done.errors) == (0, "")
    assert (tmp_path / "my.toml").read_text() == first_configuration()
    assert first_configuration().splitlines()[0] == f"#:schema ./{FILE_NAME}"
    assert json.loads((tmp_path / FILE_NAME).read_text()) == file_schema()
    assert "my.toml check" in done.output, "it says what to do next"


def test_a_directory_gets_a_file_of_the_usual_name(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert json.loads(init(tmp_path, "etc", "--json").output) == {"written": ["etc/autotag.toml", f"etc/{FILE_NAME}"]}


def test_without_a_path_it_is_printed_and_nothing_is_written(tmp_path: Path) -> None:
    assert init(tmp_path).output == first_configuration()
    assert json.loads(init(tmp_path, "--json").output) == {"configuration": first_configuration()}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["a file", "a link that leads nowhere"])
def test_what_is_there_is_left_as_it_is(tmp_path: Path, there: str) -> None:
    file = tmp_path / "mine.toml"
    if there == "a file":
        file.write_text("enabled = false\n")
    else:
        file.symlink_to("nowhere")
    done = init(tmp_path, "mine.toml")
    assert done.status == 1
    assert "mine.toml is there already" in done.errors
    assert [each.name for each in tmp_path.iterdir()] == ["mine.toml"], "and no schema is written either"
    assert there != "a file" or file.read_text() == "enabled = false\n"


@pytest.mark.parametrize("where", ["none/first.toml", "file/first.toml"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    done = init(tmp_path, where)
    assert done.status == 1
    assert done.errors.count("\n") == 1
    assert where in done.errors
