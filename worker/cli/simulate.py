"""`autotag simulate`: applies the relaunch rule to crashes and answers that have happened."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line
from worker.supervision.relaunch import NEVER, RelaunchRule, after_crash

_ANSWERED = "answered"

_ASSUMED = (
    f"no line says `{_ANSWERED}`: taken as if an image had been answered after every crash; "
    "--no-answers if there was none"
)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the file: its time as written and in seconds, and whether an image was answered then."""

    written: str
    time_s: float
    answered: bool


def simulate(
    context: typer.Context,
    crashes: Annotated[
        Path,
        typer.Argument(
            help="A line a crash: its time in seconds or as ISO 8601, in the first column. "
            f"A line with `{_ANSWERED}` in the second column is no crash: the model answered an image then."
        ),
    ],
    relaunches: Annotated[
        int | None, typer.Option(min=0, help="maximum_number_of_relaunches; unset: as the settings say.")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(min=0.001, help="…_time_interval in seconds; unset: as the settings say.")
    ] = None,
    no_answers: Annotated[
        bool,
        typer.Option("--no-answers", help=f"A file without a line that says `{_ANSWERED}` means that none was."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Would these settings have disabled the model? Ends with 1 if so, and says at which crash.

    A crash is forgotten when the interval has passed and an image has been answered since. A file without answers is
    taken as if there had been one after every crash, unless --no-answers is given.

    A first line that is no time is taken for the heading. The times must not go back.
    """
    process = CliContext.of(context).load().settings.tensorflow
    rule = RelaunchRule(
        process.maximum_number_of_relaunches if relaunches is None else relaunches,
        process.maximum_number_of_relaunches_time_interval if interval is None else interval,
    )
    try:
        lines = _lines(crashes)
    except (OSError, ValueError, csv.Error) as error:
        print_error(f"{crashes}: {error}")
        raise typer.Exit(ExitCode.USAGE) from None
    assumed = not no_answers and not any(line.answered for line in lines)
    disabled_at = _disabled_at(rule, lines, always_answered=assumed)
    crashed = [line for line in lines if not line.answered]
    _print_outcome(rule, crashed, disabled_at, assumed=assumed, as_json=as_json)
    raise typer.Exit(ExitCode.OK if disabled_at is None else ExitCode.FAILED)


def _disabled_at(rule: RelaunchRule, lines: Iterable[_Line], *, always_answered: bool) -> int | None:
    """The index of the crash that would have disabled the model; None when none would. Later ones are ignored.

    `always_answered`: as if an image had been answered after every crash.
    """
    remembered: tuple[float, ...] = ()
    answered_s, number = NEVER, 0
    for line in lines:
        if line.answered:
            answered_s = line.time_s
            continue
        decision = after_crash(rule, remembered, line.time_s if always_answered else answered_s, line.time_s)
        if decision.delay_s is None:
            return number
        remembered = decision.crashes
        number += 1
    return None


def _lines(file: Path) -> list[_Line]:
    """The crashes and answers of the file. Raises `ValueError`, which names the line."""
    lines: list[_Line] = []
    with file.open(newline="", encoding="utf-8") as rows:
        for number, row in enumerate(csv.reader(rows), 1):
            written = row[0].strip() if row else ""
            if not written:
                continue
            time_s = _seconds(written)
            if time_s is None:
                if number == 1:
                    continue
                raise ValueError(f"line {number}: {written!r} is no time; write seconds or ISO 8601")
            if lines and time_s < lines[-1].time_s:
                raise ValueError(f"line {number}: {written} is before the line above it; sort the file by time")
            answered = len(row) > 1 and row[1].strip().lower() == _ANSWERED
            lines.append(_Line(written, time_s, answered))
    return lines


def _seconds(written: str) -> float | None:
    try:
        return float(written)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        return None


def _print_outcome(
    rule: RelaunchRule, crashed: list[_Line], disabled_at: int | None, *, assumed: bool, as_json: bool
) -> None:
    written = None if disabled_at is None else crashed[disabled_at].written
    if as_json:
        answer = {
            "relaunches": rule.maximum_number_of_relaunches,
            "interval_s": rule.interval_s,
            "crashes": len(crashed),
            "answers_assumed": assumed,
            "disabled": disabled_at is not None,
            "at_crash": None if disabled_at is None else disabled_at + 1,
            "at": written,
        }
        print_json(answer)
        return
    settings = f"{rule.maximum_number_of_relaunches} relaunches within {rule.interval_s:g} s"
    if disabled_at is None:
        print_line(f"not disabled: {settings} would have answered all {len(crashed)} crashes")
    else:
        print_line(f"disabled at crash {disabled_at + 1} of {len(crashed)}, {written}: {settings} were used up")
    if assumed and crashed:
        print_line(f"({_ASSUMED})")
