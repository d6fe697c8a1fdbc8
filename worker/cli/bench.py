"""`autotag bench`: how fast this machine tags, and with `--tune` which settings make it fastest. Needs no broker."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line, print_lines, print_note

if TYPE_CHECKING:
    from worker.diagnostics.tuning import Candidate, Measurement, Tuning
    from worker.images.content import Content
    from worker.settings import Settings

_MOST_FILES = 1000


def bench(
    context: typer.Context,
    tune: Annotated[
        bool, typer.Option("--tune", help="Vary decoders, threads and batch size, and print the best setting.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=1, max=3600, help="Seconds to measure; by default 5, with `--tune` 60.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="A directory of image files to measure with, instead of web-size photographs.", metavar="DIR"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write what `--tune` recommends (TOML) there, too.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure how many images per second the decoders and the local model process on this machine, without RabbitMQ.

    What `--tune` recommends belongs in the settings file; it recommends nothing that is not faster than the settings as
    they are by more than the noise of the machine. Run it while that does its usual other work: the broker and other
    programs need their share of it.
    """
    from worker.errors import AutotagError
    from worker.operations import logs

    logs.configure("warning", "console")
    settings = CliContext.of(context).load().settings
    try:
        current, tuning = asyncio.run(_bench(settings, tune, seconds or (60 if tune else 5), images))
        if tuning is not None and output is not None:
            if tuning.recommended is None:
                print_note(f"{output} is not written: there is nothing to change")
            else:
                output.write_text(tuning.recommended.toml())
    except (AutotagError, ExceptionGroup, OSError) as error:
        print_error(_first_message(error))
        raise typer.Exit(ExitCode.FAILED) from None
    if tuning is None:
        _show_rate(current, as_json)
    else:
        _show_tuning(tuning, as_json)


def _first_message(error: Exception) -> str:
    """The message of an error, or of the first one in a group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error)


async def _bench(
    settings: Settings, tune: bool, seconds: float, images: Path | None
) -> tuple[Measurement, Tuning | None]:
    """What is finished under the current settings and, if requested, the best settings."""
    from worker.cli.progress import model_progress
    from worker.diagnostics import tuning

    with ExitStack() as stack:
        contents = _files(images, stack) if images else await tuning.web_size_photographs(stack)
        with model_progress(", ".join(settings.tensorflow.names)) as progress:
            # Always first: it builds the model if necessary, which must not count in any measurement of the tuning.
            counted = await tuning.count(settings, contents, 1.0 if tune else seconds, progress)
        measured = tuning.Measurement(tuning.current(settings), counted)
        return measured, await tuning.tune(settings, contents, seconds, _print_measurement) if tune else None


def _files(folder: Path, stack: ExitStack) -> list[Content]:
    from worker.diagnostics.tuning import open_file
    from worker.errors import Misconfigured

    files = sorted(file for file in folder.iterdir() if file.is_file())[:_MOST_FILES]
    if not files:
        raise Misconfigured(f"there is no file in {folder}", reason="photographs")
    return [stack.enter_context(open_file(file)) for file in files]


def _print_measurement(measurement: Measurement) -> None:
    print_note(_line(measurement))


def _line(measurement: Measurement) -> str:
    counted = measurement.counted
    return (
        f"{_in_words(measurement.candidate)}: {counted.images_per_s:7.1f} images/s "
        f"({counted.images} in {counted.seconds:.2f} s)"
    )


def _in_words(candidate: Candidate) -> str:
    return f"{candidate.decoders:2} decoders, {candidate.threads:2} threads, batches of {candidate.batch_size:2}"


def _as_json(measurement: Measurement) -> dict[str, object]:
    counted = measurement.counted
    return asdict(measurement.candidate) | {
        "images_per_s": round(counted.images_per_s, 1),
        "images": counted.images,
        "seconds": round(counted.seconds, 3),
    }


def _show_rate(measurement: Measurement, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(measurement))
    else:
        print_line(_line(measurement))


def _show_tuning(tuning: Tuning, as_json: bool) -> None:
    recommended = tuning.recommended
    if as_json:
        print_json(
            {
                "recommended": None if recommended is None else asdict(recommended),
                "toml": None if recommended is None else recommended.toml(),
                "gain": round(tuning.gain, 4),
                "noise": round(tuning.noise, 4),
                "fastest": asdict(tuning.fastest) | {"images_per_s": round(tuning.images_per_s, 1)},
                "current": asdict(tuning.current) | {"images_per_s": round(tuning.current_images_per_s, 1)},
                "trials": [_as_json(each) for each in tuning.measurements],
            }
        )
        return
    print_line(f"# {_verdict(tuning)}")
    if recommended is not None:
        print_lines(recommended.toml())


def _verdict(tuning: Tuning) -> str:
    noise = f"the rates of the same settings differed by up to {tuning.noise:.0%} between the rounds"
    as_it_is = f"{tuning.current_images_per_s:.1f} images/s with the settings as they are"
    if tuning.fastest == tuning.current:
        return f"leave the settings: nothing is faster than {as_it_is}; {noise}"
    fastest = f"{tuning.images_per_s:.1f} with{_in_words(tuning.fastest).replace('  ', ' ')}"
    if tuning.recommended is None:
        return f"leave the settings: {as_it_is}, {fastest}: {tuning.gain:.0%} more, and {noise}"
    return f"{as_it_is}, {tuning.images_per_s:.1f} with these: {tuning.gain:.0%} more; {noise}"
