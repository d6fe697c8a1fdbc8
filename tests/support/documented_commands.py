"""The commands that README and documentation show: taken from their blocks of code, and from what is in backticks.

A block is ```sh, where every line is a command, or ```console, where those with `$ ` are; the rest is what they print.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked_commands import ROOT, commands

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(autotag [^`\n]+)`")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")

NOT_RUN = {
    "docker": "there is no container engine here; tests/unit/deploy/test_containers.py judges the Dockerfile",
    "kubectl": "there is no cluster",
    "helm": "there are no cluster and registry; tests/unit/deploy/test_helm.py renders the chart",
    "sudo": "it changes the machine; deploy/systemd/trial.sh does it in a container",
    "sudoedit": "it waits for a person",
    "$EDITOR": "it waits for a person",
    "systemctl": "there is no systemd; deploy/systemd/trial.sh has one",
    "git": "it publishes a release",
    "awk": "it publishes a release",
    ".venv/bin/twine": "it publishes a release",
    "mc": "it needs a MinIO",
    "aws": "it needs a Ceph",
    ".ci/run": "it runs this test",
    ".venv/bin/pytest": "it runs these tests",
    "autotag/bin/pip": "`make dist` installs the wheels, and runs tests/smoke",
    "python3": "`make dist` makes the environment",
    "python": "a benchmark takes minutes",
    "autotag bench": "it measures for minutes; its options are examined",
    "autotag chaos": "it kills for minutes; its options are examined",
}
"""By how a command begins: what is examined and not run, each with the reason. `make` is run with `--dry-run`."""


@dataclass(frozen=True)
class DocumentedCommand:
    """A line of a block, with what the lines above it set."""

    page: str
    line: int
    text: str
    before: str
    """The assignments and exports of the block up to here, as a script."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text[:60]}"

    @property
    def words(self) -> list[str]:
        """The words of the first command in it, without assignments."""
        found = shlex.split(self.text, comments=True)
        while found and _ASSIGNMENT.match(found[0]):
            del found[0]
        return [word for word in found if word != "&"]

    @property
    def why_not_run(self) -> str | None:
        """The reason in `NOT_RUN`; None where it is run."""
        words = self.words
        program = "autotag" if is_autotag(words) else words[0]
        name = f"autotag {words[1]}" if program == "autotag" and f"autotag {words[1]}" in NOT_RUN else program
        return NOT_RUN.get(name)


def is_autotag(words: Sequence[str]) -> bool:
    """Whether it is Autotag's own command, wherever it is installed."""
    return bool(words) and words[0].rsplit("/", 1)[-1] == "autotag"


def blocks(page: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Kind, number of the first line, and lines of each block of code."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        lines = [line.removeprefix(fence["indent"]) for line in fence["body"].split("\n")[:-1]]
        yield fence["kind"], text.count("\n", 0, fence.start()) + 2, lines


def documented(page: Path) -> Iterator[DocumentedCommand]:
    """Every command of a page, in order."""
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    for kind, first, lines in blocks(page):
        if kind not in {"sh", "console"}:
            continue
        before = ""
        for number, text in _joined(first, lines):
            if kind == "console" and not text.startswith("$ "):
                continue
            command = DocumentedCommand(name, number, text.removeprefix("$ "), before)
            if not shlex.split(command.text, comments=True):
                continue
            if not command.words or command.words[0] == "export":
                before += command.text + "\n"
            else:
                yield command


def _joined(first: int, lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Lines with those that follow a backslash, or an open quotation mark, in one."""
    start, text = first, ""
    for number, line in enumerate(lines, first):
        start, text = (number, line) if not text else (start, f"{text}\n{line}")
        if text.endswith("\\"):
            continue
        try:
            shlex.split(text, comments=True)
        except ValueError:  # a quotation mark is open
            continue
        yield start, text
        text = ""
    assert not text, f"a command that does not end: {text}"


def in_backticks(page: Path) -> Iterator[str]:
    """What is in backticks and begins with `autotag `: `autotag dead-letters list | show` is two."""
    for text in _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        head, *others = re.split(r" *\\?\| *", text)
        yield head
        words = head.split()
        yield from (f"{' '.join(words[:-1])} {other}" for other in others)


COMMANDS = commands(groups=True)


def what_is_wrong(words: Sequence[str]) -> str | None:
    """Why Autotag would refuse these words after its name, as far as commands and options go; None if it would not."""
    path: tuple[str, ...] = ()
    values = 0
    for word in words:
        command: Any = COMMANDS[path]
        if values:
            values -= 1
        elif word.startswith("-") and word != "-":
            option = next((each for each in command.params if word.partition("=")[0] in each.opts), None)
            if option is None and word not in {"-h", "--help"}:
                return f"autotag {' '.join(path)} has no option {word}"
            if option is not None and not getattr(option, "is_flag", False) and "=" not in word:
                values = option.nargs
        elif (*path, word) in COMMANDS:
            path = (*path, word)
        elif getattr(command, "commands", None):
            return f"autotag {' '.join(path)} has no command {word}"
        elif not any(parameter.param_type_name == "argument" for parameter in command.params):
            return f"autotag {' '.join(path)} takes no {word}"
    return f"the option before the end of {' '.join(words)!r} wants a value" if values else None
