"""`autotag dead-letters`: list, show, replay and purge the events that could not be done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from worker.amqp.topology import Lane
from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line
from worker.operations.printable import printable

if TYPE_CHECKING:
    from worker.amqp.dead_letters import DeadLetter, DeadLetters, OnProgress, Selection

T = TypeVar("T")

_MOST_SHOWN = 10

app = typer.Typer(no_args_is_help=True, help="Events that could not be done: list, show, replay, purge.")

Key = Annotated[
    str | None,
    typer.Option("--id", help="Only the one with this id, or the only one whose id begins so.", metavar="ID"),
]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
Asset = Annotated[str | None, typer.Option(help="Only this asset's.", metavar="ID")]
Instance = Annotated[str | None, typer.Option(help="Only this virtual instance's.", metavar="NAME")]
InLane = Annotated[Lane | None, typer.Option("--lane", help="Only those of this lane.")]
OfConnection = Annotated[
    str | None,
    typer.Option("--connection", help="Only results that the target of this connection did not take.", metavar="NAME"),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many, the oldest first.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts; one object a line.")]


@app.command("list")
def list_letters(
    context: typer.Context,
    key: Key = None,
    reason: Reason = None,
    asset: Asset = None,
    instance: Instance = None,
    lane: InLane = None,
    limit: Limit = 100,
    connection: OfConnection = None,
    as_json: Json = False,
) -> None:
    """Show which events could not be done, and why; the oldest first. Changes nothing.

    Two lines for each: its id, when it failed, the reason, the asset, the instance; and below, what happened.
    """
    selection = _selection(_full_key(context, key), reason, asset, instance, lane, limit, connection)
    letters = _run(context, lambda queue, on_progress: queue.browse(selection, on_progress))
    _warn_of_unmarked(letters)
    if as_json:
        for letter in letters:
            print_json(_letter_fields(letter))
        return
    if not letters:
        print_line("there are no such dead letters")
        return
    for letter in letters:  # no table: its columns would cut ids, which are there to be copied
        about = (letter.reason, letter.asset or "-", letter.instance or "-")
        print_line("  ".join((letter.key, letter.failed_at or "-", *about)))
        print_line(f"    {letter.message}")


@app.command("show")
def show(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="An id that `list` shows, or its beginning.", metavar="ID")],
    as_json: Annotated[bool, typer.Option("--json", help="On one line, for scripts.")] = False,
) -> None:
    """Show one of them whole, as JSON: its reason, its headers and the event itself. Changes nothing."""
    full = _full_key(context, key) or key
    letter = _run(context, lambda queue, _: queue.show(full))
    if letter is None:  # taken away in the meantime
        raise _no_letter(key)
    _warn_of_unmarked([letter])
    headers = {name: str(value) for name, value in (letter.properties.headers or {}).items()}
    details = _letter_fields(letter) | {
        "content_type": letter.properties.content_type,
        "headers": headers,
        "event": letter.body.decode("utf-8", "replace"),
    }
    print_json(details, indent=None if as_json else 2)


@app.command("replay")
def replay(
    context: typer.Context,
    key: Key = None,
    reason: Reason = None,
    asset: Asset = None,
    instance: Instance = None,
    lane: InLane = None,
    limit: Limit = None,
    connection: OfConnection = None,
    as_json: Json = False,
) -> None:
    """Send them to their lanes again, as if for the first time; results to their connection. Remove the cause first.

    Each leaves the dead letters only when its new message is confirmed.
    """
    selection = _selection(_full_key(context, key), reason, asset, instance, lane, limit, connection)
    replayed = _run(context, lambda queue, on_progress: queue.replay(selection, on_progress))
    _print_count(replayed.number, "replayed", as_json)
    if replayed.without_image:
        print_error(
            f"{len(replayed.without_image)} cannot be replayed, since they were kept without their image, too "
            f"large for RabbitMQ: {', '.join(replayed.without_image[:10])}. Have the DMS publish these events again, "
            "with the image by path or url"
        )
        raise typer.Exit(ExitCode.FAILED)


@app.command("purge")
def purge(
    context: typer.Context,
    key: Key = None,
    reason: Reason = None,
    asset: Asset = None,
    instance: Instance = None,
    lane: InLane = None,
    limit: Limit = None,
    connection: OfConnection = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Throw them away for good. Asks first."""
    selection = _selection(_full_key(context, key), reason, asset, instance, lane, limit, connection)
    if not yes:
        which = "these dead letters" if selection.key is None else f"the dead letter {printable(selection.key)}"
        typer.confirm(f"Throw {which} away for good?", abort=True, err=True)
    _print_count(_run(context, lambda queue, on_progress: queue.purge(selection, on_progress)), "purged", as_json)


def _selection(*wanted: Any) -> Selection:
    from worker.amqp.dead_letters import Selection

    return Selection(*wanted)


def _full_key(context: typer.Context, start: str | None) -> str | None:
    """The id that is meant by its beginning. Ends the command when there is none, or more than one."""
    if start is None:
        return None
    found = _run(context, lambda queue, on_progress: queue.meant_by(start, on_progress))
    if not found:
        raise _no_letter(start)
    if len(found) > 1:
        candidates = [f"  {_in_a_line(each)}" for each in found[:_MOST_SHOWN]]
        more = [f"  and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
        title = f"{len(found)} ids begin with {printable(start)}:"
        print_error("\n".join([title, *candidates, *more]))
        raise typer.Exit(ExitCode.FAILED)
    return found[0].key


def _in_a_line(letter: DeadLetter) -> str:
    return printable(f"{letter.key}  {letter.reason}  {letter.asset or '-'}")


def _no_letter(key: str) -> typer.Exit:
    print_error(f"there is no dead letter {key}; `autotag dead-letters list` shows their ids")
    return typer.Exit(ExitCode.FAILED)


def _letter_fields(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.key,
        "lane": letter.lane.value,
        "reason": letter.reason,
        "message": letter.message,
        "asset_id": letter.asset,
        "instance": letter.instance,
        "failed_at": letter.failed_at,
        "connection": letter.connection,
        "attempt": letter.attempt,
        "left_out": letter.left_out,
        "unmarked": letter.unmarked,
        "size_bytes": letter.size_bytes,
    }


def _warn_of_unmarked(letters: Sequence[DeadLetter]) -> None:
    number = sum(letter.unmarked for letter in letters)
    if number:
        print_error(
            f"{number} of {len(letters)} carry headers without this installation's mark, which are ignored; "
            "reason, asset and instance are unknown. If a worker wrote them, this command needs that worker's "
            "amqp.header_key or password. `dead-letters show` prints them as they are"
        )


def _print_count(number: int, verb: str, as_json: bool) -> None:
    if as_json:
        print_json({verb: number})
    else:
        print_line(f"{verb} {number} dead letter{'s' * (number != 1)}")


def _run(context: typer.Context, operation: Callable[[DeadLetters, OnProgress], Awaitable[T]]) -> T:
    """Run an operation on the dead letters with a progress bar; exits with the error's message if it fails."""
    from worker.amqp.dead_letters import DeadLetters
    from worker.amqp.topology import topology
    from worker.errors import AutotagError

    settings = CliContext.of(context).load().settings
    queue = DeadLetters(settings.amqp, topology(settings.amqp.queue_prefix, settings.retry.delays_s))

    async def with_progress() -> T:
        with _progress_bar() as on_progress:
            return await operation(queue, on_progress)

    try:
        return asyncio.run(with_progress())
    except AutotagError as error:
        print_error(error)
        raise typer.Exit(ExitCode.UNREACHABLE) from None


@contextmanager
def _progress_bar() -> Iterator[OnProgress]:
    """A progress bar on standard error, removed at the end of the block."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("dead letters", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
