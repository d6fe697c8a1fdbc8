"""The layout of the package: few entries at the top, one name for one thing, none of the words that were given up."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import worker

PACKAGE = Path(worker.__file__).parent
ROOT = PACKAGE.parent
MOST_ENTRIES = 24
"""22; the vocabulary: data that tagging, providers and the command line all read; and the second role, `connect`."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def public_names(tree: ast.Module) -> Iterator[str]:
    """Classes, and aliases of types, which are assigned at the top of a module under a name in CamelCase."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][a-z]\w*", target.id):
                    yield target.id


def test_the_top_of_the_package_fits_on_a_screen() -> None:
    entries = sorted(entry.name for entry in PACKAGE.iterdir() if entry.name != "__pycache__")
    assert len(entries) <= MOST_ENTRIES, entries


def test_no_public_name_of_a_class_means_two_things() -> None:
    where = defaultdict(set)
    for module, tree in modules():
        for name in public_names(tree):
            if not name.startswith("_"):
                where[name].add(module)
    assert len(where) > 200, "the names are found"
    assert {name: sorted(found) for name, found in where.items() if len(found) > 1} == {}


def test_every_package_says_what_it_is_for() -> None:
    silent = [
        str(folder.relative_to(ROOT))
        for folder in PACKAGE.rglob("*")
        if (folder / "__init__.py").is_file() and not ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    ]
    assert silent == []


GIVEN_UP = r"""
    workshops? | open_workshop | crews? | \w+_crew | DecoderCrew | ModelCrew | [eE]rrands? | curious | [vV]itals
    | [aA]lbums? | Stretch | stretches | [pP]ulse | Strip | [dD]esk | [sS]urroundings | Guarded | [vV]isitors?
    | Trial | Findings | LaneRules | GoogleLane | patiently | Patience
    | _abandon_ship | _bury | _condemn | _deafen | _hire
    | [tT]old | [tT]ells? | telling | [wW]hoever | [aA]new
    | worker\.(frames|crews|trial|vitals|album|policy|checks|workshop|notify|replies|content|image_format)
    | worker\.(topology|asyncapi|tuning|chaos|advice|merge|logs|metrics|history|tracing|control)
"""
WORD = re.compile(r"(?<![\w.-])(" + "".join(GIVEN_UP.split()) + r")(?![\w-])")
TEXTS = ("worker/**/*.py", "tests/**/*.py", "docs/*.md", "docs/decisions/*.md")


@pytest.mark.parametrize("pattern", TEXTS)
def test_words_that_were_given_up_stay_away(pattern: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match[0]}"
        for file in sorted(ROOT.glob(pattern))
        if file != Path(__file__)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for match in WORD.finditer(line)
    ]
    assert found == []


OUTPUT = PACKAGE / "cli" / "output.py"
PRINTING = {"print", "echo", "secho", "dumps", "Text"}
ALLOWED = {
    "settings_table.py: dumps",  # a value's text for a cell of the table
    "publish.py: dumps",  # the event's body
    "connect_targets.py: dumps",  # likewise
    "schema.py: dumps",  # documents of our own, also written into files
}


def test_commands_print_through_the_functions_that_escape_what_others_wrote() -> None:
    """Tables are printed by rich's `Console.print`; what others wrote gets into them by `cell`."""
    found = set()
    for file in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and file != OUTPUT:
                called = node.func
                name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
                on_console = isinstance(called, ast.Attribute) and name == "print"
                if name in PRINTING and not on_console:
                    found.add(f"{file.name}: {name}")
    assert found == ALLOWED
