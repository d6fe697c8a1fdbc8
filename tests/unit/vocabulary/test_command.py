"""`autotag vocabulary check`: its exit status and its JSON."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from worker.cli.app import app
from worker.vocabulary import checks


def test_it_succeeds_on_what_is_shipped() -> None:
    done = CliRunner().invoke(app, ["--traceable", "vocabulary", "check", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "languages": ["de", "en", "es", "fr", "it", "ja", "nl", "pt", "zh"],
        "problems": [],
    }


def test_it_fails_with_every_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "problems", lambda: ["names/xx.txt: mend it"])
    done = CliRunner().invoke(app, ["--traceable", "vocabulary", "check"])
    assert done.exit_code == 1
    assert "names/xx.txt: mend it" in done.output
