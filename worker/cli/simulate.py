"""`autotag simulate`: applies the relaunch rule to crashes that have happened."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line
from worker.supervision.relaunch import RelaunchRule, after_crash


def simulate(
    context: typer.Context,
    crashes: Annotated[
        Path, typer.Argument(help="A line a crash: its time in seconds or as ISO 8601, in the first column.")
    ],
    relaunches: Annotated[
        int | None, typer.Option(min=0, help="maximum_number_of_relaunches; unset: as the settings say.")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(min=0.001, help="…_time_interval in seconds; unset: as the settings say.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Would these settings have disabled the model? Ends with 1 if so, and says at which crash.

    A first line that is no time is taken for the heading. The times must not go back.
    """
    process = CliContext.of(context).load().settings.tensorflow
    rule = RelaunchRule(
        process.maximum_number_of_relaunches if relaunches is None else relaunches,
        process.maximum_number_of_relaunches_time_interval if interval is None else interval,
    )
    try:
        times = _times(crashes)
    except (OSError, ValueError) as error:
        print_error(f"{crashes}: {error}")
        raise typer.Exit(ExitCode.USAGE) from None
    disabled_at = _disabled_at(rule, [time_s for _, time_s in times])
    _print_outcome(rule, times, disabled_at, as_json)
    raise typer.Exit(ExitCode.OK if disabled_at is None else ExitCode.FAILED)


def _disabled_at(rule: RelaunchRule, times_s: list[float]) -> int | None:
    """The index of the crash that would have disabled the model; None when none would. Later ones are ignored."""
    remembered: tuple[float, ...] = ()
    for number, time_s in enumerate(times_s):
        decision = after_crash(rule, remembered, time_s)
        if decision.delay_s is None:
            return number
        remembered = decision.crashes
    return None


def _times(file: Path) -> list[tuple[str, float]]:
    """Each crash's time as written in the file, and in seconds. Raises `ValueError`, which names the line."""
    times: list[tuple[str, float]] = []
    with file.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            written = row[0].strip() if row else ""
            if not written:
                continue
            time_s = _seconds(written)
            if time_s is None:
                if number == 1:
                    continue
                raise ValueError(f"line {number}: {written!r} is no time; write seconds or ISO 8601")
            if times and time_s < times[-1][1]:
                raise ValueError(f"line {number}: {written} is before the crash above it; sort the file by time")
            times.append((written, time_s))
    return times


def _seconds(written: str) -> float | None:
    try:
        return float(written)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        return None


def _print_outcome(rule: RelaunchRule, times: list[tuple[str, float]], disabled_at: int | None, as_json: bool) -> None:
    written = None if disabled_at is None else times[disabled_at][0]
    if as_json:
        answer = {
            "relaunches": rule.maximum_number_of_relaunches,
            "interval_s": rule.interval_s,
            "crashes": len(times),
            "disabled": disabled_at is not None,
            "at_crash": None if disabled_at is None else disabled_at + 1,
            "at": written,
        }
        print_json(answer)
        return
    settings = f"{rule.maximum_number_of_relaunches} relaunches within {rule.interval_s:g} s"
    if disabled_at is None:
        print_line(f"not disabled: {settings} would have answered all {len(times)} crashes")
    else:
        print_line(f"disabled at crash {disabled_at + 1} of {len(times)}, {written}: {settings} were used up")
