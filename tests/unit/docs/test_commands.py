"""No page shows a command that does not exist: programs, subcommands and options. What can be run is run by
tests/integration/test_documented_commands.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.documented_commands import (
    NOT_RUN,
    PAGES,
    DocumentedCommand,
    blocks,
    documented,
    in_backticks,
    is_autotag,
    what_is_wrong,
)
from tests.unit.docs.test_architecture import ROOT, named

COMMANDS = [command for page in PAGES for command in documented(page)]
RUN = {"autotag", "make", "rabbitmqctl", ".venv/bin/python"}
INSTALLER = ROOT / "deploy/systemd/install.sh"
PLACEHOLDER = re.compile(r"[\[\]]|…|\.\.\.|[A-Z]{2,}…?|<[^>]*>")


def faults(command: DocumentedCommand) -> str | None:
    """What is wrong with a command, without running it."""
    syntax = subprocess.run(["bash", "-n"], input=command.text, capture_output=True, text=True, check=False)  # noqa: S607
    if syntax.returncode:
        return syntax.stderr
    words = command.words
    if is_autotag(words):
        return what_is_wrong(_up_to_a_pipe(words[1:]))
    if words[0] not in RUN | NOT_RUN.keys():
        return f"{words[0]} is no program that these pages use"
    if words[0] == "make":
        done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
        return done.stderr if done.returncode else None
    if "deploy/systemd/install.sh" in words:
        unknown = [word for word in words if word.startswith("--") and f"\n{word})" not in INSTALLER.read_text()]
        return f"install.sh has no {unknown}" if unknown else None
    files = [word for word in words if re.fullmatch(r"(?:\./)?(?:scripts|deploy|tests|bench|\.ci)/[\w./-]+", word)]
    missing = [word for word in files if not (ROOT / word).exists()]
    return f"there is no {missing}" if missing else None


def _up_to_a_pipe(words: list[str]) -> list[str]:
    end = next((number for number, word in enumerate(words) if word in {"|", "&&", ";", ">"}), len(words))
    return words[:end]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_in_a_block_is_one(command: DocumentedCommand) -> None:
    assert faults(command) is None


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_command_in_backticks_is_one(page: Path) -> None:
    wrong = []
    for text in in_backticks(page):
        words = PLACEHOLDER.sub(lambda found: "" if found[0] in "[]" else "VALUE", text).split()[1:]
        if reason := what_is_wrong(words):
            wrong.append((text, reason))
    assert [each for each in wrong if "wants a value" not in each[1]] == [], "`--option` alone names the option"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_are_in_blocks_that_say_so(page: Path) -> None:
    """An indented block, or one without a kind, would not be looked at."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    programs = "|".join(map(re.escape, sorted(RUN | NOT_RUN.keys() - {"python", "python3", "git"})))
    hidden = re.findall(rf"^(?: {{4,}}|\t)(?:\$ )?(?:{programs}) .*$", text, re.MULTILINE)
    hidden += [line for kind, _, lines in blocks(page) if kind == "" for line in lines if line.startswith("$ ")]
    assert [line for line in hidden if "──" not in line] == []


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    used = {command.why_not_run for command in COMMANDS} - {None}
    assert set(NOT_RUN.values()) - used <= {NOT_RUN["autotag chaos"], NOT_RUN["python3"]}
    assert len(COMMANDS) > 80


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("autotag dead-letter list", "has no command dead-letter"),
        ("autotag dead-letters lst", "has no command lst"),
        ("autotag tag --explian photo.jpg", "has no option --explian"),
        ("autotag publish --by path --wiat a.jpg", "has no option --wiat"),
        ("autotag status now", "takes no now"),
        ("autotag tag photo.jpg --threshold", "wants a value"),
        ("make tets", "tets"),
        ("mak test", "is no program"),
        ("sudo deploy/systemd/install.sh --rollback", "has no"),
        (".venv/bin/python scripts/private_brokr.py run", "there is no"),
        ("autotag tag 'a", "unexpected EOF"),
    ],
)
def test_a_mistake_is_noticed(text: str, found: str) -> None:
    class Unquoted(DocumentedCommand):
        """One whose words bash could not read either."""

        words = property(lambda self: self.text.split())

    assert found in (faults(Unquoted("page.md", 1, text, "")) or "nothing is wrong")
