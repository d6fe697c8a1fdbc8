"""`autotag status`, `reset`, `pause`, `resume`, `reload`: commands to the running service over its control socket.

Of the settings they need its path alone, so that settings which are being mended keep nobody from pausing the service.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import cell, print_error, print_json, print_line
from worker.operations.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from worker.operations.health.status import CanaryStatus, Status

_WATCH_INTERVAL_S = 1.0
_RELOAD_TIMEOUT_S = 900.0
"""A reload may have to build another model first."""

AsJson = Annotated[bool, typer.Option("--json", help="The whole answer as one JSON object.")]
Socket = Annotated[
    Path | None,
    typer.Option(
        "--control-socket", help="Where the service listens, instead of where the settings say.", metavar="PATH"
    ),
]


def status(
    context: typer.Context,
    as_json: AsJson = False,
    control_socket: Socket = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
) -> None:
    """Show how the running service is doing: events, RabbitMQ, the model, its children.

    Ends with 0 while events are taken, 1 while they are not, 3 if no service answers.
    """
    path = _path(context, control_socket)
    current = _send(path, "status")
    try:
        if watch:
            _watch(path, current, as_json)
        else:
            _show(current, as_json)
    except KeyboardInterrupt:
        raise typer.Exit from None
    raise typer.Exit(ExitCode.OK if current.ready else ExitCode.FAILED)


def reset(context: typer.Context, as_json: AsJson = False, control_socket: Socket = None) -> None:
    """Forget the model's crashes, and launch it again if it had been disabled."""
    done = "the crashes are forgotten; what was disabled is being launched"
    _act(_path(context, control_socket), "reset", done, as_json)


def pause(context: typer.Context, as_json: AsJson = False, control_socket: Socket = None) -> None:
    """Take no more events until `autotag resume`; what is in hand is finished."""
    _act(_path(context, control_socket), "pause", "paused; `autotag resume` goes on", as_json)


def resume(context: typer.Context, as_json: AsJson = False, control_socket: Socket = None) -> None:
    """Take events again after `autotag pause`."""
    _act(_path(context, control_socket), "resume", "resumed", as_json)


def reload(context: typer.Context, as_json: AsJson = False, control_socket: Socket = None) -> None:
    """Have the settings read again. Invalid ones change nothing; what is wrong with them is reported here."""
    done = "the settings have been read again"
    _act(_path(context, control_socket), "reload", done, as_json, within_s=_RELOAD_TIMEOUT_S)


def _path(context: typer.Context, control_socket: Path | None) -> Path:
    return control_socket or CliContext.of(context).control_socket()


def _act(path: Path, command: str, done: str, as_json: bool, *, within_s: float = 10.0) -> None:
    new = _send(path, command, within_s=within_s)
    if as_json:
        print_json(new.to_json())
        return
    why = new.why_not
    print_line(done if why is None or command == "pause" else f"{done}; not taking events: {why}")


def _send(path: Path, command: str, *, within_s: float = 10.0) -> Status:
    """Send a command and return the service's status after it. Exits with a message if no service answers."""
    from worker.errors import TryLater
    from worker.operations.control import send_command
    from worker.operations.health.status import Status

    try:
        return Status.from_json(asyncio.run(send_command(path, command, within_s=within_s)))
    except TryLater as error:
        print_error(error)
        refused = error.reason == "command_failed"
        raise typer.Exit(ExitCode.FAILED if refused else ExitCode.UNREACHABLE) from None
    except ValueError:
        print_error("the service's status cannot be read; does it run another version of Autotag?")
        raise typer.Exit(ExitCode.FAILED) from None


def _watch(path: Path, current: Status, as_json: bool) -> None:
    from rich.live import Live

    if as_json:
        while True:
            print_json(current.to_json())
            time.sleep(_WATCH_INTERVAL_S)
            current = _send(path, "status")
    with Live(_render(current), auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_INTERVAL_S)
            current = _send(path, "status")
            live.update(_render(current), refresh=True)


def _show(current: Status, as_json: bool) -> None:
    if as_json:
        print_json(current.to_json())
        return
    from rich.console import Console

    Console(soft_wrap=True).print(_render(current), highlight=False)


def _render(current: Status) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    heading = cell(f"autotag {current.version}: ")
    if current.ready:
        heading.append("taking events", "bold green")
    else:
        heading.append(printable(f"not taking events: {current.why_not}"), "bold red")
    facts = Table.grid(padding=(0, 2))
    for name, text in _facts(current):
        facts.add_row(cell(name), cell(text))
    children = Table("child", "phase", "process", "memory", "images", box=None, padding=(0, 2, 0, 0))
    for child in current.children:
        memory = f"{child.resident_bytes / 1024**2:.0f} MiB" if child.pid else "-"
        children.add_row(cell(child.name), cell(child.phase), str(child.pid or "-"), memory, str(child.images_done))
    return Group(heading, "", facts, "", children)


def _facts(current: Status) -> list[tuple[str, str]]:
    broker, model = current.broker, current.model
    rabbitmq = f"{broker.version or 'not yet connected'}, {broker.phase} for {broker.for_s:.0f} s"
    if broker.lanes:
        rabbitmq += f" from {', '.join(broker.lanes)}"
    if broker.last_error:
        rabbitmq += f"; {broker.last_error}"
    facts = [("RabbitMQ", f"{rabbitmq}; {broker.reconnects} reconnects"), ("in hand", str(current.events_in_hand))]
    not_empty = {name: messages for name, messages in current.queues.items() if messages}
    if current.queues:
        facts.append(("queues", ", ".join(f"{name} {messages}" for name, messages in not_empty.items()) or "empty"))
    if model is not None:
        state = f"DISABLED: {model.disabled}" if model.disabled else "ready" if model.ready else "starting"
        facts.append(("model", f"{state}; {model.relaunches_left} relaunches left"))
    facts += [
        (provider.name, provider.unusable or f"switched on in {_instance_settings(provider.enabled_for)}")
        for provider in current.providers
    ]
    if current.canary is not None:
        facts.append(("known picture", _canary(current.canary)))
    from worker.operations.health.status import Pause

    if current.started and not any(provider.enabled_for for provider in current.providers):
        waits = any(pause.reason == Pause.NOTHING_SWITCHED_ON for pause in broker.pauses)
        what = "events wait in their queue" if waits else "every event is answered `skipped`"
        facts.append(("providers", f"none is switched on: {what}"))
    return facts


def _canary(canary: CanaryStatus) -> str:
    """In one line. Names of labels in it are of a model package."""
    state = "as expected" if canary.fault is None else f"WRONG ({canary.fault})"
    return f"{state} {canary.ago_s:.0f} s ago; {canary.message}"


def _instance_settings(number: int) -> str:
    return f"{number} set{'s' * (number != 1)} of instance settings"
