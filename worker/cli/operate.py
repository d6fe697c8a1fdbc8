"""`autotag status`, `reset`, `pause`, `resume`, `reload`: ask the running service, over its control socket."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from rich.console import RenderableType

    from worker.operations.health.status import Status

_WATCH_EVERY_S = 1.0
_RELOAD_WITHIN_S = 900.0
"""A reload may have to build another model first."""

AsJson = Annotated[bool, typer.Option("--json", help="The whole answer as one JSON object.")]


def status(
    context: typer.Context,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
) -> None:
    """Show how the running service is doing: events, RabbitMQ, the model, its children.

    Ends with 0 while events are taken, 1 while they are not, 3 if no service answers.
    """
    now = _ask(context, "status")
    try:
        if watch:
            _watch(context, now, as_json)
        else:
            _show(now, as_json)
    except KeyboardInterrupt:
        raise typer.Exit from None
    raise typer.Exit(ExitCode.OK if now.ready else ExitCode.FAILED)


def reset(context: typer.Context, as_json: AsJson = False) -> None:
    """Forget the model's crashes, and launch it again if it had been disabled."""
    _order(context, "reset", "the crashes are forgotten; what was disabled is being launched", as_json)


def pause(context: typer.Context, as_json: AsJson = False) -> None:
    """Take no more events until `autotag resume`; what is in hand is finished."""
    _order(context, "pause", "paused; `autotag resume` goes on", as_json)


def resume(context: typer.Context, as_json: AsJson = False) -> None:
    """Take events again after `autotag pause`."""
    _order(context, "resume", "resumed", as_json)


def reload(context: typer.Context, as_json: AsJson = False) -> None:
    """Have the settings read again. Invalid ones change nothing; what is wrong with them is reported here."""
    _order(context, "reload", "the settings have been read anew", as_json, within_s=_RELOAD_WITHIN_S)


def _order(context: typer.Context, command: str, done: str, as_json: bool, *, within_s: float = 10.0) -> None:
    now = _ask(context, command, within_s=within_s)
    if as_json:
        print(json.dumps(now.to_json()))
        return
    why = now.why_not
    print(done if why is None or command == "pause" else f"{done}; not taking events: {why}")


def _ask(context: typer.Context, command: str, *, within_s: float = 10.0) -> Status:
    """The service's status after a command; when no service answers, report why and end."""
    from worker.errors import TryLater
    from worker.operations.control import ask
    from worker.operations.health.status import Status

    settings = CliContext.of(context).load().settings
    try:
        return Status.from_json(asyncio.run(ask(settings.control_socket, command, within_s=within_s)))
    except TryLater as error:
        print(f"autotag: {error}", file=sys.stderr)
        refused = error.reason == "command_failed"
        raise typer.Exit(ExitCode.FAILED if refused else ExitCode.UNREACHABLE) from None
    except ValueError:
        print("autotag: the service's status cannot be read; does it run another version of Autotag?", file=sys.stderr)
        raise typer.Exit(ExitCode.FAILED) from None


def _watch(context: typer.Context, now: Status, as_json: bool) -> None:
    from rich.live import Live

    if as_json:
        while True:
            print(json.dumps(now.to_json()), flush=True)
            time.sleep(_WATCH_EVERY_S)
            now = _ask(context, "status")
    with Live(_rendered(now), auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_EVERY_S)
            now = _ask(context, "status")
            live.update(_rendered(now), refresh=True)


def _show(now: Status, as_json: bool) -> None:
    if as_json:
        print(json.dumps(now.to_json()))
        return
    from rich.console import Console

    Console(soft_wrap=True).print(_rendered(now), highlight=False)


def _rendered(now: Status) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text(f"autotag {now.version}: ")
    if now.ready:
        head.append("taking events", "bold green")
    else:
        head.append(f"not taking events: {now.why_not}", "bold red")
    facts = Table.grid(padding=(0, 2))
    for name, text in _facts(now):
        facts.add_row(name, Text(text))
    children = Table("child", "phase", "process", "memory", "images", box=None, padding=(0, 2, 0, 0))
    for child in now.children:
        memory = f"{child.resident_bytes / 1024**2:.0f} MiB" if child.pid else "-"
        children.add_row(child.name, child.phase, str(child.pid or "-"), memory, str(child.images_done))
    return Group(head, "", facts, "", children)


def _facts(now: Status) -> list[tuple[str, str]]:
    broker, model = now.broker, now.model
    rabbitmq = f"{broker.phase} for {broker.for_s:.0f} s"
    if broker.lanes:
        rabbitmq += f" from {', '.join(broker.lanes)}"
    if broker.last_error:
        rabbitmq += f"; {broker.last_error}"
    facts = [("RabbitMQ", f"{rabbitmq}; {broker.reconnects} reconnects"), ("in hand", str(now.events_in_hand))]
    filled = {name: messages for name, messages in now.queues.items() if messages}
    if now.queues:
        facts.append(("queues", ", ".join(f"{name} {messages}" for name, messages in filled.items()) or "empty"))
    if model is not None:
        state = f"DISABLED: {model.disabled}" if model.disabled else "ready" if model.ready else "starting"
        facts.append(("model", f"{state}; {model.relaunches_left} relaunches left"))
    facts += [
        (provider.name, provider.unusable or f"switched on in {_sets(provider.enabled_for)}")
        for provider in now.providers
    ]
    if not any(provider.enabled_for for provider in now.providers):
        facts.append(("providers", "none is switched on: every event is answered `skipped`"))
    return facts


def _sets(number: int) -> str:
    return f"{number} set{'s' * (number != 1)} of instance settings"
