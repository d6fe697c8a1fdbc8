"""autotag.schema.json: an editor accepts every configuration that is shipped or documented, and marks mistakes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from worker.settings.file_schema import file_schema
from worker.settings.schema import NAMED, SYSTEM, SettingKey, find_field

ROOT = Path(__file__).parents[3]
VALIDATOR = jsonschema.Draft202012Validator(file_schema())
FENCED = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def beneath_a_connection(preset: str) -> str:
    """A preset as the table of a connection."""
    return "[connect.a]\n" + re.sub(r"^\[", "[connect.a.", preset, flags=re.MULTILINE)


def configurations() -> Iterator[tuple[str, str]]:
    """Every configuration of the repository: files, and blocks of pages that hold settings."""
    for file in (*ROOT.glob("deploy/**/*.toml"), *ROOT.glob("worker/**/*.toml")):
        is_preset = file.parent.name == "presets"  # which lies beneath the table of a connection
        text = file.read_text()
        yield str(file.relative_to(ROOT)), beneath_a_connection(text) if is_preset else text
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        for number, block in enumerate(FENCED.findall(page.read_text()), 1):
            if not block.startswith(("#:schema label-rules", "[project")):
                yield f"{page.name} {number}", block


CONFIGURATIONS = list(configurations())


def node_of(key: SettingKey) -> dict[str, Any]:
    """What the schema says of a key, below tables of free names too."""
    schema = file_schema()
    node = schema
    for part in key:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        node = node["properties"][part] if part in node.get("properties", {}) else node["additionalProperties"]
    return node


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(file_schema())


def test_every_setting_is_there_with_its_sentence() -> None:
    keys = [*SYSTEM, *((*above, "NAME", *key) for above, fields in NAMED.items() for key in fields)]
    assert len(keys) > 150
    for key in keys:
        field = find_field(key)
        assert field is not None
        assert str(field.description) in node_of(key)["description"], key


@pytest.mark.parametrize(("name", "text"), CONFIGURATIONS, ids=[name for name, _ in CONFIGURATIONS])
def test_every_configuration_that_is_shipped_or_documented_is_accepted(name: str, text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "enabeld = true",
        "enabled = 7",
        "[instances.acme.tensorflow]\nenabel = true",
        "[defaults.tensorflow]\nconfidence_threshold = 1.5",
        '[amqp]\nprefetch = "many"',
        '[log]\nlevel = "loud"',
        '[sources.credentials."dms.example"]\nkind = "magic"',
        "[[instances]]\nname = 1",
    ],
)
def test_a_mistake_is_marked(text: str) -> None:
    assert not VALIDATOR.is_valid(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        '[sources]\nmaximum_bytes = "64 MiB"\npath_roots = "/srv/a:/srv/b"',
        "[sources]\nmaximum_bytes = 1000",
        "[tensorflow]\nthreads = 2",
        '[sources.credentials."dms.example"]\nkind = "bearer"',
        '[instances."acme.example.org".labels]\nrename = { "sports car" = "car" }',
    ],
)
def test_the_spellings_that_are_usual_in_toml_are_accepted(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(text))] == []


def test_no_secret_and_no_directory_of_this_machine_is_in_it() -> None:
    text = str(file_schema())
    assert "guest" not in text
    assert "***" not in text
    assert str(Path.home()) not in text
