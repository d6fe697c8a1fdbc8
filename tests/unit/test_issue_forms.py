"""What reporters are asked for: forms that the hosting platform can read, and commands that exist."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

from worker.cli.app import app

ROOT = Path(__file__).parents[2]
FORMS = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
PAGES = [*FORMS, ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md", ROOT / "SECURITY.md"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_the_platform_demands(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    questions = [each for each in form["body"] if each["type"] != "markdown"]
    assert all(each["attributes"]["label"] for each in questions)
    names = [each["id"] for each in questions]
    assert len(names) == len(set(names))


def test_every_command_that_is_asked_for_exists() -> None:
    asked = {line for path in PAGES for line in re.findall(r"`autotag ([^`]+)`", path.read_text())}
    assert {"--version", "check --json"} <= asked
    for line in asked:
        command: Any = typer.main.get_command(app)
        for word in line.split():
            if word.startswith("-"):
                assert word in {option for parameter in command.params for option in parameter.opts}, line
            elif hasattr(command, "commands"):
                command = command.get_command(click.Context(command), word)
                assert command, line
