"""Labelled photographs tagged by a command: their file checked before anything is tagged, then one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from worker.cli.exit_codes import ExitCode
from worker.cli.explaining import explained, with_engine
from worker.cli.output import print_error, print_note

if TYPE_CHECKING:
    from worker.diagnostics.labelled import Labelled, LabelledFile
    from worker.engine import Engine
    from worker.settings import Settings
    from worker.tagging.explain import Explanation

_T = TypeVar("_T")

LabelledArgument = Annotated[
    Path,
    typer.Argument(
        help="CSV with the columns `file` and `label` (or several), or `kept`, `added`, `removed`; "
        "or corrections as JSON lines (.jsonl).",
        metavar="LABELLED.csv",
        show_default=False,
    ),
]
FolderOption = Annotated[
    Path | None, typer.Option(help="Where the files are; by default where LABELLED.csv is.", metavar="DIR")
]

_NAMES_SHOWN = 10


def checked_or_exit(path: Path, folder: Path | None) -> LabelledFile:
    """The file, if it has no mistake and every picture is there; else the command ends with status 2."""
    from worker.cli.progress import counting
    from worker.diagnostics.labelled import UNKNOWN_KEPT, LabelledFile
    from worker.errors import Misconfigured

    try:
        with counting("rows read") as count:
            found = LabelledFile.checked(path, folder or path.parent, count)
    except Misconfigured as error:
        print_error(error)
        raise typer.Exit(ExitCode.USAGE) from None
    if found.unknown:
        number = f"{len(found.unknown):,}" + (" or more" if len(found.unknown) == UNKNOWN_KEPT else "")
        shown = ", ".join(found.unknown[:_NAMES_SHOWN])
        print_note(f"{number} labels are no concepts of ours, and compared by name: {shown}")
    return found


def run_or_exit(settings: Settings, use: Callable[[Engine], Coroutine[Any, Any, _T]]) -> _T:
    """What `use` returns, given an engine; without one the command ends, with the status that says why."""
    from worker.diagnostics.first_starts import REASON
    from worker.errors import Misconfigured
    from worker.supervision.tasks import TOO_FEW_TASKS

    try:
        return asyncio.run(with_engine(settings, use))
    except Misconfigured as error:
        print_error(error)
        raise typer.Exit(ExitCode.FAILED if error.reason in (REASON, TOO_FEW_TASKS) else ExitCode.MODEL) from None


async def tagged(
    engine: Engine, settings: Settings, instance: str, file: LabelledFile, *, local_only: bool = False
) -> AsyncIterator[tuple[Labelled, Explanation]]:
    """Each photograph with what became of it; the number is shown as it grows, and what failed with the reason."""
    from worker.cli.progress import counting

    begun: deque[Labelled] = deque()

    def files() -> Iterator[Path]:
        for each in file:
            begun.append(each)
            yield each.file

    done = 0
    with counting(f"of {file.rows:,} photographs") as count:
        async for path, explanation in explained(
            engine, settings, instance, files(), all_labels=False, local_only=local_only
        ):
            if explanation.result.status == "failed":
                print_note(f"{path}: {explanation.result.message}")
            yield begun.popleft(), explanation
            done += 1
            count(done)
