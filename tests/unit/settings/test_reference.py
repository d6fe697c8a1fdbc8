"""The generated reference, the example file, and what importing the settings costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.settings import load_settings
from worker.settings.reference import reference
from worker.settings.schema import SYSTEM, SettingKey, allowed, environment_name, unit

ROOT = Path(__file__).parents[3]


def test_the_reference_in_docs_is_what_the_classes_say() -> None:
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == reference(), (
        "run `autotag config reference docs/settings.md`"
    )


@pytest.mark.parametrize("key", SYSTEM, ids=".".join)
def test_every_setting_is_described(key: SettingKey) -> None:
    field = SYSTEM[key]
    assert field.description
    assert field.description.endswith(".")
    assert allowed(field)
    assert f"| `{key[-1]}` | {field.description}" in reference()
    assert f"`{environment_name(key)}` |" in reference()


def test_units_are_derived_from_names() -> None:
    relaunches = ("tensorflow", "maximum_number_of_relaunches_time_interval")
    assert unit(relaunches[-1], SYSTEM[relaunches]) == "seconds"
    assert unit("maximum_bytes", SYSTEM["sources", "maximum_bytes"]) == "bytes"
    assert unit("prefetch", SYSTEM["amqp", "prefetch"]) == ""


def test_the_example_file_loads(tmp_path: Path) -> None:
    settings = load_settings(ROOT / "deploy" / "autotag.example.toml", environ={}, directory=tmp_path).settings
    acme = settings.instances["acme.example.org"]
    assert (acme.tensorflow.enabled, acme.tensorflow.confidence_threshold) == (True, 0.8)


def test_importing_the_settings_loads_nothing_heavy() -> None:
    heavy = "{'tensorflow', 'numpy', 'PIL', 'rich', 'typer', 'httpx', 'pika'}"
    script = f"import sys, worker.settings; print(*({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert loaded.split() == []
