"""`autotag vocabulary`: checks the concepts and their names in each language."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line, print_note

if TYPE_CHECKING:
    from worker.vocabulary.own_terms import OwnTerms

app = typer.Typer(no_args_is_help=True, help="The vocabulary: concepts, their parents, names in each language.")


@app.callback()
def _root() -> None:
    """The vocabulary: concepts, their parents, names in each language."""


@app.command("map")
def map_terms(
    context: typer.Context,
    terms: Annotated[Path, typer.Argument(help="A file with one of your terms a line.", metavar="TERMS.txt")],
    instance: Annotated[
        str | None, typer.Option(help="Also by the aliases and broader terms of this instance.", metavar="NAME")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show which concepts your own terms mean, for `labels.only`, and what is like those that mean none.

    Ends with status 1 when a term means none.
    """
    from worker.vocabulary.lookup import similar_names
    from worker.vocabulary.own_terms import concept_or_none

    own = _own_terms(context, instance)
    try:
        lines = terms.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        print_error(f"{terms} is not UTF-8 (byte {error.start}): save it as UTF-8")
        raise typer.Exit(ExitCode.USAGE) from None
    unknown = 0
    for term in (line.strip() for line in lines if line.strip() and not line.startswith("#")):
        meant = own.meanings_of_term(term)
        similar = [] if meant else similar_names(term)
        unknown += not meant
        known = [one for one in meant if concept_or_none(one) is not None]
        if as_json:
            print_json({"term": term, "concepts": known, "own": len(meant) > len(known), "similar": similar})
        elif meant:
            shown = [f"{one} ({own.name(one)})" for one in known] or ["a broader term of your own"]
            print_line(f"{term}: {', '.join(shown)}")
        else:
            hint = f"; like {', '.join(similar)}" if similar else ""
            print_note(f"{term}: no concept has this name{hint}")
    if unknown:
        raise typer.Exit(ExitCode.FAILED)


def _own_terms(context: typer.Context, instance: str | None) -> OwnTerms:
    from worker.vocabulary.own_terms import OwnTerms

    if instance is None:
        return OwnTerms({}, {})
    found = CliContext.of(context).load().settings.instance(instance)
    if found is None:
        print_error(f"the settings know no instance {instance}")
        raise typer.Exit(ExitCode.USAGE)
    return OwnTerms(found.labels.alias, found.labels.parents)


@app.command("check")
def check(as_json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False) -> None:
    """Look for cycles, doubles, missing and unknown ids; exit status 1 when there is one."""
    from worker.vocabulary import concepts, languages
    from worker.vocabulary.aliases import aliases
    from worker.vocabulary.checks import problems

    found = problems()
    if as_json:
        print_json({"languages": list(languages()), "problems": found})
    elif not found:
        words = sum(len(each.same) for each in aliases())
        print_line(f"{len(concepts())} concepts, with a name each in: {', '.join(languages())}; {words} aliases")
    for problem in found:
        if not as_json:
            print_error(problem)
    if found:
        raise typer.Exit(ExitCode.FAILED)
