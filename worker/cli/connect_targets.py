"""What an operator asks of a connection: `autotag connect try`, `report` and `check`."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line, print_note
from worker.operations.printable import printable

if TYPE_CHECKING:
    from worker.connect.ledger import Removals, TagLedger
    from worker.connect.write import WritePlan
    from worker.messages import Result
    from worker.settings import Settings

_DROPPED_FROM = 3
"""Assets from which people have to have removed a label for a rule to be suggested."""
_DROPPED_SHARE = 0.5


def try_asset(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The connection.")],
    asset: Annotated[str, typer.Option("--asset", help="The system's id of an image.", metavar="ID")],
    content: Annotated[
        str | None, typer.Option(help="Where the image is, if that does not follow from its id.", metavar="URL")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the tags.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tag one image of a connected system, and show the event, the tags and the write, without making it.

    The service has to run; neither `autotag connect` nor anything in the system is changed.
    """
    from worker.errors import AutotagError

    settings = CliContext.of(context).load().settings
    _known_connection(settings, name)
    try:
        status = asyncio.run(_try(settings, name, asset, content, timeout, as_json))
    except AutotagError as error:
        print_error(error)
        status = ExitCode.FAILED
    raise typer.Exit(status)


def report(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only this connection.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the labels whose tags people have removed, and a rule that drops those they mostly remove."""
    import sqlite3

    settings = CliContext.of(context).load().settings
    if name is not None:
        _known_connection(settings, name)
    ledger = existing_ledger(settings)
    try:
        found = ledger.removals(name) if ledger is not None else []
    except sqlite3.Error as error:
        print_error(f"the ledger cannot be read: {error}")
        raise typer.Exit(ExitCode.FAILED) from None
    finally:
        if ledger is not None:
            ledger.close()
    if as_json:
        for each in found:
            print_json(
                {
                    "connection": each.connection,
                    "label": each.label,
                    "provider": each.provider,
                    "removed": each.removed,
                    "standing": each.standing,
                }
            )
        return
    _print_report(settings, found)


def check(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only this connection.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Read one page of each poller, ask each target something harmless and read one known asset. Writes nothing."""
    from worker.connect.inlet_checks import check_inlets
    from worker.connect.target_checks import ConnectionCheck, check_targets

    settings = CliContext.of(context).load().settings
    if name is not None:
        _known_connection(settings, name)
    failed = False
    ledger = existing_ledger(settings)

    async def checks() -> list[ConnectionCheck]:
        return [*await check_inlets(settings, name), *await check_targets(settings, ledger, name)]

    for result in asyncio.run(checks()):
        failed |= not result.is_fine
        if as_json:
            print_json(
                {"connection": result.connection, "part": result.part, "ok": result.is_fine, "message": result.message}
            )
        else:
            print_line(
                printable(f"{'✓' if result.is_fine else '✗'} {result.connection}.{result.part:<8} {result.message}")
            )
    if ledger is not None:
        ledger.close()
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _known_connection(settings: Settings, name: str) -> None:
    if name not in settings.connect:
        known = ", ".join(sorted(settings.connect)) or "none"
        raise typer.BadParameter(f"no connection is called {name!r}; there are: {known}", param_hint="name")


def existing_ledger(settings: Settings) -> TagLedger | None:
    """The ledger, if the connector has made one: a question makes none."""
    from worker.connect.ledger import TagLedger
    from worker.connect.service import LEDGER_FILE

    file = Path(settings.state_dir, LEDGER_FILE)
    return TagLedger(file) if file.exists() else None


def _print_report(settings: Settings, found: list[Removals]) -> None:
    if not found:
        print_line("people have removed no tag of ours")
        return
    for each in found:
        print_line(
            printable(
                f"{each.connection}: {each.label} ({each.provider or 'unknown'}): "
                f"removed from {each.removed}, stands on {each.standing}"
            )
        )
    unwanted: dict[str, list[str]] = {}
    for each in found:
        share = each.removed / (each.removed + each.standing)
        if each.removed >= _DROPPED_FROM and share >= _DROPPED_SHARE and each.connection in settings.connect:
            unwanted.setdefault(settings.connect[each.connection].instance, []).append(each.label)
    for instance, labels in unwanted.items():
        listed = ", ".join(f'"{_escaped(label)}"' for label in dict.fromkeys(labels))
        print_line("")
        print_line("# what people mostly remove; for the settings:")
        print_line(f'[instances."{instance}".labels]')
        print_line(printable(f"drop = [{listed}]"))


def _escaped(text: str) -> str:
    """A label inside a text of TOML."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


async def _try(
    settings: Settings, name: str, asset: str, content: str | None, timeout_s: float, as_json: bool
) -> ExitCode:
    from worker.connect.deliver import make_target
    from worker.connect.ledger import TagLedger
    from worker.connect.service import LEDGER_FILE
    from worker.connect.write import AssetWriter, ResultTimes

    event = _event(settings, name, asset, content)
    if not as_json:
        print_line("event:")
        print_json(event, indent=2)
    result = await _result_of(settings, event, timeout_s)
    if result is None:
        print_note(f"no result within {timeout_s:g} s; is `autotag run` up? See `autotag status`")
        return ExitCode.TIMEOUT
    with TemporaryDirectory() as folder:
        ledger = existing_ledger(settings) or TagLedger(Path(folder, LEDGER_FILE))
        target = make_target(name, settings)
        try:
            writer = AssetWriter(name, target, ledger, settings.connect[name].target.most_tags, None)
            plan = await writer.plan(result, ResultTimes(None, datetime.now(UTC).timestamp()))
            requests = target.planned(plan.asset, plan.merged.add, plan.merged.remove, plan.standing)
        finally:
            await target.close()
            ledger.close()
    _print_plan(event, result, plan, requests if plan.merged.is_write else [], as_json)
    return ExitCode.FAILED if result.status == "failed" else ExitCode.OK


def _event(settings: Settings, name: str, asset: str, content: str | None) -> dict[str, Any]:
    from worker.connect.mapping import UrlTemplate
    from worker.messages import EVENT_TYPE

    connection = settings.connect[name]
    if content is None:
        mapping = next((each for each in (connection.inlet, connection.poll) if each.content_url is not None), None)
        if mapping is None:
            raise typer.BadParameter("where the image is does not follow from its id: name it", param_hint="--content")
        content = UrlTemplate(mapping.content_url or "", connection.url or "", "content_url").of({"asset_id": asset})
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"/connect/{name}/try",
        "type": EVENT_TYPE,
        "data": {
            "asset_id": asset,
            "instance": connection.instance,
            "content": {"url": content},
            # Of no connection: what runs passes its result over.
            "context": {"connect_try": name},
        },
    }


async def _result_of(settings: Settings, event: dict[str, Any], timeout_s: float) -> Result | None:
    from worker.amqp.client import open_event_client
    from worker.amqp.topology import Lane, topology
    from worker.messages import read_result

    names = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
    async with open_event_client(settings.amqp, names, listen=True) as client:
        await client.publish_event(json.dumps(event).encode(), event["id"], Lane.LIVE)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        result = read_result(await client.next_result())
                    except ValueError:
                        continue
                    if result.event_id == event["id"] and result.complete:
                        return result
        except TimeoutError:
            return None


def _print_plan(event: dict[str, Any], result: Result, plan: WritePlan, requests: list[str], as_json: bool) -> None:
    merged = plan.merged
    if as_json:
        print_json(
            {
                "event": event,
                "status": result.status,
                "message": result.message,
                "tags": [
                    {"name": tag.name, "confidence": tag.confidence, "provider": tag.provider} for tag in result.tags
                ],
                "standing": list(plan.standing.tags),
                "add": list(merged.add),
                "remove": list(merged.remove),
                "stays_away": list(merged.removed_by_people),
                "requests": requests,
            }
        )
        return
    tags = ", ".join(f"{tag.name} {tag.confidence:.0%}" for tag in result.tags)
    print_line(printable(f"result: {result.status}: {tags or result.message or 'no tag'}"))
    for what, names in (
        ("tags in the system", plan.standing.tags),
        ("would be added", merged.add),
        ("would be removed", merged.remove),
        ("stay away, people removed them", merged.removed_by_people),
    ):
        print_line(printable(f"{what}: {', '.join(names) or 'none'}"))
    print_line("nothing would be written" if not requests else "the write, which is not made:")
    for line in requests:
        print_line(printable(f"  {line}", maximum=2000))
