"""Progress bars on standard error, so that what a command prints can be piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from worker.models.staging import ModelProgress, ProgressCallback
from worker.operations.printable import printable


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """A count that goes up, where nobody knows how far; shown only on a terminal."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} {task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not Console(stderr=True).is_terminal,
    )
    with bar:
        task = bar.add_task(printable(what), total=None)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def model_progress(name: str) -> Iterator[ProgressCallback]:
    """A progress bar for building or installing a model; shown only once the yielded callback is called."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )

    def on_progress(progress: ModelProgress) -> None:
        if not bar.task_ids:
            bar.start()
            bar.add_task(printable(name))
        description = printable(f"{name}: {progress.step}")
        bar.update(bar.task_ids[0], description=description, completed=progress.done, total=progress.total or None)

    try:
        yield on_progress
    finally:
        if bar.task_ids:  # stopping a bar that was never started would print an empty line
            bar.stop()
