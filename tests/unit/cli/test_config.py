"""`autotag config`: what it prints, where, and with which status."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from worker.cli import config
from worker.cli.context import CliContext
from worker.settings.reference import reference

MARKER = "marker-51c0de"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The commands under a root with a settings file and a secrets directory, in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AUTOTAG_")]:  # the tests' own broker
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "instances__acme__google_cloud_vision__api_key").write_text(MARKER)
    (tmp_path / "a.toml").write_text(
        f'[amqp]\nurl = "amqp://u:{MARKER}@h"\n'
        "[defaults.tensorflow]\nenabled = true\n[instances.acme.google_cloud_vision]\nenabled = true\n"
    )
    root = typer.Typer()

    @root.callback()
    def _root(context: typer.Context) -> None:
        context.obj = CliContext(config=Path("a.toml"), secrets_dir=Path("secrets"))

    root.add_typer(config.app, name="config")
    return root


def run(app: typer.Typer, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["config", *arguments])
    assert MARKER not in result.output
    return result.exit_code, result.stdout, result.stderr


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_show_prints_every_setting_with_its_value_and_origin(app: typer.Typer) -> None:
    status, out, _ = run(app, "show")
    assert status == 0
    assert ["[amqp]"] in lines(out)
    assert ["url", "amqp://u:********@h", "file", "a.toml"] in lines(out)
    assert ["maximum_bytes", "268435456", "(256.0", "MiB)", "default"] in lines(out)
    assert ["threads", "unset", "default"] in lines(out)
    headings = [line[0] for line in lines(out) if line and line[0].startswith("[")]
    assert "[defaults]" in headings
    assert len(headings) == len(set(headings)), "what stands in one table is shown together"


def test_show_of_an_instance_says_through_which_table_a_value_came(app: typer.Typer) -> None:
    _, out, _ = run(app, "show", "--instance", "acme")
    assert ["enabled", "true", "[defaults]", "file", "a.toml"] in lines(out)
    assert ["enabled", "true", "[instances.acme]", "file", "a.toml"] in lines(out)
    secret = "instances__acme__google_cloud_vision__api_key"
    assert ["api_key", "********", "[instances.acme]", "secret", secret] in lines(out)


def test_show_as_json_is_one_object(app: typer.Typer) -> None:
    _, out, _ = run(app, "show", "--json", "--instance", "acme")
    shown = json.loads(out)
    assert (shown["config_file"], shown["instance"], shown["known"]) == ("a.toml", "acme", True)
    assert shown["settings"]["google_cloud_vision.api_key"]["value"] == "********"
    assert shown["settings"]["tensorflow.specific_threshold"] == {"value": 0.65, "origin": "default"}
    _, out, _ = run(app, "show", "--json")
    assert json.loads(out)["settings"]["retry.delays_s"]["value"] == [10, 60, 600]


def test_show_reports_what_happens_to_events_of_an_unknown_instance(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(app, "show", "--instance", "nobody")
    assert (status, "the defaults hold for it" in err) == (0, True)
    assert ["[tensorflow]"] in lines(out)
    monkeypatch.setenv("AUTOTAG_UNKNOWN_INSTANCES", "skip")
    _, out, err = run(app, "show", "--instance", "nobody")
    assert "its events are skipped" in err
    assert out.strip() == ""
    assert json.loads(run(app, "show", "--instance", "nobody", "--json")[1])["settings"] == {}


def test_wrong_settings_end_with_status_2_and_a_message(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTAG_AMQP__PREFETCH", "0")
    status, out, err = run(app, "show")
    assert (status, out) == (2, "")
    assert 'amqp.prefetch = "0": must be a whole number from 1 to 1000 (environment AUTOTAG_AMQP__PREFETCH)' in err
    assert "Traceback" not in err


def test_reference_is_printed_unless_a_file_is_named(app: typer.Typer) -> None:
    status, out, _ = run(app, "reference")
    assert (status, out) == (0, reference())


def test_reference_writes_the_page_and_check_finds_it_out_of_date(app: typer.Typer) -> None:
    assert run(app, "reference", "page.md", "--check")[0] == 1
    assert run(app, "reference", "page.md")[0] == 0
    assert run(app, "reference", "page.md", "--check")[0] == 0
    Path("page.md").write_text("old")
    status, _, err = run(app, "reference", "page.md", "--check")
    assert (status, "page.md is not up to date" in err) == (1, True)
