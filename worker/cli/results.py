"""`autotag results`: searches the ended events that are kept on disk, as the page's tab does."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line, print_note
from worker.operations.clock import written

if TYPE_CHECKING:
    from worker.operations.history.kept import KeptResult

_STATUSES = ("tagged", "no_tags", "skipped", "failed")


def _known_status(value: str | None) -> str | None:
    if value is not None and value not in _STATUSES:
        raise typer.BadParameter(f"one of {', '.join(_STATUSES)}")
    return value


def results(
    context: typer.Context,
    asset: Annotated[str | None, typer.Option(help="A part of the asset's id or file name.", metavar="TEXT")] = None,
    instance: Annotated[str | None, typer.Option(help="Only this virtual instance's.", metavar="NAME")] = None,
    status: Annotated[
        str | None,
        typer.Option(help="tagged, no_tags, skipped or failed.", metavar="STATUS", callback=_known_status),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag, in any case.", metavar="NAME")] = None,
    since_s: Annotated[
        float | None, typer.Option("--since-s", min=0, help="Only those that ended in the last so many seconds.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many, the newest first.")] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON, for scripts; one object a line, with what each provider said.")
    ] = False,
) -> None:
    """Show how events ended, from the history on disk (`history.enabled`); the newest first.

    The service need not run. Two lines for each: when, the status, the reason, the asset, the instance; and its tags.
    """
    from worker.errors import Unavailable
    from worker.operations.history.file import FILE_NAME, search
    from worker.operations.history.kept import HistoryQuery

    settings = CliContext.of(context).load().settings
    if not settings.history.enabled:
        print_error("no history is kept: `history.enabled` is false")
        raise typer.Exit(ExitCode.FAILED)
    query = HistoryQuery(
        asset=asset or None,
        instance=instance or None,
        status=status,
        tag=tag or None,
        since_s=time.time() - since_s if since_s is not None else None,
        limit=limit,
    )
    try:
        found = search(settings.state_dir / FILE_NAME, query)
    except Unavailable as error:
        print_error(error)
        raise typer.Exit(ExitCode.FAILED) from None
    for each in found.results:
        if as_json:
            print_json(_fields(each))
        else:
            _print(each)
    if not found.results and not as_json:
        print_line("no such results")
    if found.more:
        print_note(f"there are more: these are the newest {len(found.results)}; see --limit")
    if not found.in_time:
        print_error("the search was ended after a few seconds and is not complete: ask for an instance, status or tag")
        raise typer.Exit(ExitCode.TIMEOUT)


def _print(each: KeptResult) -> None:
    about = (each.reason or "-", each.asset_id, each.instance)
    print_line("  ".join((_time(each), each.status, *about)))
    tags = ", ".join(f"{tag.name} {tag.confidence:.0%}" for tag in each.tags)
    if said := tags or each.message:
        print_line(f"    {said}")


def _fields(each: KeptResult) -> dict[str, Any]:
    fields = each.to_json()
    del fields["at_s"]
    return {"time": _time(each)} | fields


def _time(each: KeptResult) -> str:
    return written(datetime.fromtimestamp(each.at_s, UTC))
