"""Progress bars on standard error, so that what a command prints can be piped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from worker.models.staging import Progress as Step
from worker.models.staging import ProgressCallback


@contextmanager
def model_progress(name: str) -> Iterator[ProgressCallback]:
    """A bar for building or installing a model; shown only if there is anything to do."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )

    def tell(step: Step) -> None:
        if not bar.task_ids:
            bar.start()
            bar.add_task(name)
        task = bar.task_ids[0]
        bar.update(task, description=f"{name}: {step.step}", completed=step.done, total=step.total or None)

    try:
        yield tell
    finally:
        if bar.task_ids:  # a bar that never began would leave an empty line
            bar.stop()
