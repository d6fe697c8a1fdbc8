"""`autotag bench`: how fast this machine tags, and with `--tune` which settings make it fastest. No broker needed."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from worker.diagnostics.tuning import Measurement, Tuning
    from worker.images.content import Content
    from worker.settings import Settings

_MOST_FILES = 1000


def bench(
    context: typer.Context,
    tune: Annotated[
        bool, typer.Option("--tune", help="Vary decoders, threads and batch size, and write the best setting.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=1, max=3600, help="How long to measure; by default 5, with `--tune` 60.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="A directory of image files to measure with, instead of web-size photographs.", metavar="DIR"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the best setting (TOML) there, too.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure how many images a second the decoders and the local model do here, without RabbitMQ.

    The setting that `--tune` writes belongs into the settings file. Run it while the machine does what it usually does
    beside Autotag: what the broker and others need is not free.
    """
    from worker.errors import AutotagError
    from worker.operations import logs

    logs.configure("warning", "console")
    settings = CliContext.of(context).load().settings
    try:
        now, tuning = asyncio.run(_bench(settings, tune, seconds or (60 if tune else 5), images))
        if tuning is not None and output is not None:
            output.write_text(tuning.best.toml())
    except (AutotagError, ExceptionGroup, OSError) as error:
        print(f"autotag: {_said_by(error)}", file=sys.stderr)
        raise typer.Exit(ExitCode.FAILED) from None
    if tuning is None:
        _show_rate(now, as_json)
    else:
        _show_tuning(now, tuning, as_json)


def _said_by(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error)


async def _bench(
    settings: Settings, tune: bool, seconds: float, images: Path | None
) -> tuple[Measurement, Tuning | None]:
    """How fast it is as the settings are and, where that is asked for, how fast it could be."""
    from worker.cli.progress import model_progress
    from worker.diagnostics import tuning

    with ExitStack() as stack:
        contents = _files(images, stack) if images else await tuning.web_size_photographs(stack)
        with model_progress(settings.tensorflow.model) as progress:
            # Always first: it has the model built where it is not, which no measurement's time should have in it.
            rate = await tuning.rate(settings, contents, min(seconds, 5.0), progress)
        now = tuning.Measurement(tuning.current(settings), rate)
        return now, await tuning.tune(settings, contents, seconds, _tell) if tune else None


def _files(folder: Path, stack: ExitStack) -> list[Content]:
    from worker.diagnostics.tuning import open_file
    from worker.errors import Misconfigured

    files = sorted(file for file in folder.iterdir() if file.is_file())[:_MOST_FILES]
    if not files:
        raise Misconfigured(f"there is no file in {folder}", reason="photographs")
    return [stack.enter_context(open_file(file)) for file in files]


def _tell(measurement: Measurement) -> None:
    print(f"{_words(measurement)}", file=sys.stderr, flush=True)


def _words(measurement: Measurement) -> str:
    candidate = measurement.candidate
    return (
        f"{candidate.decoders:2} decoders, {candidate.threads:2} threads, batches of {candidate.batch_size:2}: "
        f"{measurement.images_per_s:7.1f} images/s"
    )


def _show_rate(measurement: Measurement, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(measurement.candidate) | {"images_per_s": round(measurement.images_per_s, 1)}))
    else:
        print(_words(measurement))


def _show_tuning(now: Measurement, found: Tuning, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "best": asdict(found.best) | {"images_per_s": round(found.images_per_s, 1)},
                    "current": asdict(now.candidate) | {"images_per_s": round(now.images_per_s, 1)},
                    "toml": found.best.toml(),
                    "measurements": [
                        asdict(t.candidate) | {"images_per_s": round(t.images_per_s, 1)} for t in found.measurements
                    ],
                }
            )
        )
        return
    print(f"# {found.images_per_s:.1f} images/s here; the settings as they are: {now.images_per_s:.1f}")
    print(found.best.toml(), end="")
