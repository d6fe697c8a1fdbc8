"""`autotag publish`: publish upload events for files, as a document management system does, and show the results."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import time
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.amqp.topology import Lane
from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.image_files import ImageFiles
from worker.cli.output import cell, print_error, print_json, print_line, print_note
from worker.messages.fields import MAXIMUM_ID_CHARACTERS, why_no_path
from worker.operations.printable import printable

if TYPE_CHECKING:
    from rich.text import Text

    from worker.messages import Result
    from worker.settings import Settings


class By(StrEnum):
    """How an event carries its image."""

    INLINE = "inline"
    PATH = "path"


def publish(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(help="Image files, and folders of them.", metavar="FILES…", show_default=False)
    ],
    by: Annotated[
        By, typer.Option(help="Put the image into the event, or name its path (below one of the service's roots).")
    ] = By.INLINE,
    instance: Annotated[str, typer.Option(help="The virtual instance.", metavar="NAME")] = "default",
    locale: Annotated[
        str | None, typer.Option(help="Locale of the images, such as fr-CH: the language of their tags.")
    ] = None,
    lane: Annotated[Lane, typer.Option(help="A user waits for live, nobody for bulk.")] = Lane.LIVE,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results and show them.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the results.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Publish an upload event for each file; with `--wait`, show the tags that come back.

    Of a folder, every image below it is taken; for a whole library there is `autotag backfill`.

    Ends with status 1 if a file could not be read or its result is `failed`, 5 if a result did not come in time.
    """
    from worker.errors import AutotagError

    instance_or_exit(instance)
    settings = CliContext.of(context).load().settings
    bodies = {}
    found = ImageFiles(print_note)
    unreadable = 0
    for file in found.named(files):
        key = str(uuid.uuid4())
        try:
            bodies[key] = (file, event_about(key, file, content_of(file, by), instance, key, locale))
        except NotPublishableError as error:
            print_note(f"{file}: {error}")
            unreadable += 1
    unreadable += found.unreadable
    if not bodies:
        if not unreadable:
            print_note("no image is there")
        raise typer.Exit(ExitCode.FAILED)
    try:
        status = asyncio.run(_publish(settings, bodies, lane, wait, timeout, as_json))
    except AutotagError as error:
        print_error(error)
        raise typer.Exit(ExitCode.UNREACHABLE) from None
    raise typer.Exit(status or (ExitCode.FAILED if unreadable else ExitCode.OK))


def instance_or_exit(name: str) -> None:
    """Refuse a name that no event may name an instance by."""
    from worker.messages import is_instance_name

    if not is_instance_name(name):
        raise typer.BadParameter("letters, digits, '.', '_' and '-', at most 100", param_hint="--instance")


class NotPublishableError(Exception):
    """Why no event can be made of a file."""


def content_of(file: Path, by: By) -> dict[str, str]:
    """The `content` of an event about a file. Raises NotPublishableError."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise NotPublishableError("is no file")  # a named pipe would be waited for
        if by is By.INLINE:
            return {"base64": base64.b64encode(file.read_bytes()).decode()}
        path = str(file.absolute())
    except OSError as error:
        raise NotPublishableError(f"cannot be read: {error.strerror}") from error
    if (why := why_no_path(path)) is not None:
        raise NotPublishableError(f"cannot be published by its path: {why}; publish it with `--by inline`")
    return {"path": path}


def event_about(
    event_id: str, file: Path, content: dict[str, str], instance: str, asset_id: str, locale: str | None = None
) -> bytes:
    """The event for a file. Its ids are made, never names: a name may be no text, or not one that an id may be."""
    from worker.messages import EVENT_TYPE

    data = {
        "asset_id": asset_id,
        "instance": instance,
        "content": content,
        "file_name": printable(file.name, maximum=MAXIMUM_ID_CHARACTERS) or None,
        "locale": locale,
    }
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "autotag publish",
            "type": EVENT_TYPE,
            "subject": asset_id,
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
            "data": data,
        }
    ).encode()


async def _publish(
    settings: Settings, bodies: dict[str, tuple[Path, bytes]], lane: Lane, wait: bool, timeout_s: float, as_json: bool
) -> ExitCode:
    from worker.amqp.client import open_event_client
    from worker.amqp.topology import topology

    names = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
    async with open_event_client(settings.amqp, names, listen=wait) as client:
        started_s = time.monotonic()
        await asyncio.gather(*(client.publish_event(body, key, lane) for key, (_, body) in bodies.items()))
        if not wait:
            _print_published(bodies, as_json)
            return ExitCode.OK
        waiting = {key: file for key, (file, _) in bodies.items()}
        failed = False
        output = _ResultOutput(list(waiting.values()), as_json)
        try:
            async with asyncio.timeout(timeout_s):
                while waiting:
                    result = _awaited_result(await client.next_result(), waiting)
                    if result is None:
                        continue
                    output.add(waiting[result.event_id or ""], result, time.monotonic() - started_s)
                    failed |= result.status == "failed"
                    if result.complete:
                        del waiting[result.event_id or ""]
        except TimeoutError:
            missing = ", ".join(file.name for file in waiting.values())
            print_note(f"no result within {timeout_s:g} s for {missing}; is `autotag run` up? See `autotag status`")
            return ExitCode.TIMEOUT
        finally:
            output.finish()
        return ExitCode.FAILED if failed else ExitCode.OK


def _awaited_result(body: bytes, waiting: dict[str, Path]) -> Result | None:
    """The result in a message, if it belongs to one of our events; None otherwise."""
    from worker.messages import read_result

    try:
        result = read_result(body)
    except ValueError:
        return None  # another program's message on the same exchange
    return result if result.event_id in waiting else None


def _print_published(bodies: dict[str, tuple[Path, bytes]], as_json: bool) -> None:
    if as_json:
        for key, (file, _) in bodies.items():
            print_json({"file": str(file), "event_id": key})
    else:
        print_line(f"published {len(bodies)} event{'s' * (len(bodies) != 1)}")


class _ResultOutput:
    """Prints results: as JSON lines when they arrive, or as one table at the end, in the order of the files."""

    def __init__(self, files: list[Path], as_json: bool) -> None:
        self._files = files
        self._as_json = as_json
        self._rows: dict[Path, tuple[Text, Text, Text, Text]] = {}

    def add(self, file: Path, result: Result, after_s: float) -> None:
        """Add one result, which arrived `after_s` seconds after its event was published."""
        from worker.messages import result_data

        if self._as_json:
            print_json({"file": str(file)} | result_data(result))
            return
        outcome = [f"{each.name} {each.confidence:.0%}" for each in result.tags] or [
            f"{result.status}: {result.message}" if result.message else "no tag: nothing was sure enough"
        ]
        took = [f"{each.name} {(each.duration_s or 0) * 1000:.0f} ms" for each in result.providers] or ["-"]
        self._rows[file] = (cell(file.name), cell(*outcome), cell(*took), cell(f"{after_s * 1000:.0f} ms"))

    def finish(self) -> None:
        """Print the table, unless JSON was asked for or there are no results."""
        if self._as_json or not self._rows:
            return
        from rich.console import Console
        from rich.table import Table

        table = Table("photograph", "tags", "provider", "result after", show_lines=True)
        for file in self._files:
            if file in self._rows:
                table.add_row(*self._rows[file])
        Console().print(table)
