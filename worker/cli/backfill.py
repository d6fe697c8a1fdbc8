"""`autotag backfill`: announce every image of a library that is there already, in the bulk lane."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import time
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote_from_bytes

import typer

from worker.amqp.topology import Lane
from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.image_files import ImageFiles
from worker.cli.output import print_error, print_json, print_line, print_note
from worker.cli.publish import By, NotPublishableError, content_of, event_about, instance_or_exit
from worker.messages.fields import MAXIMUM_ID_CHARACTERS

if TYPE_CHECKING:
    from worker.amqp.client import EventClient
    from worker.settings import Settings

_NAMESPACE = uuid.UUID("5b0f4f0e-9a3b-5d0c-8a3a-3d2b6f2c7a11")
_AT_ONCE = 64
_LOOK_EVERY_S = 1.0


def backfill(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, exists=True, file_okay=False)],
    by: Annotated[
        By,
        typer.Option(help="Name each image's path (DIR below one of the service's roots), or put it into the event."),
    ] = By.PATH,
    instance: Annotated[str, typer.Option(help="The virtual instance.", metavar="NAME")] = "default",
    maximum_queued: Annotated[
        int, typer.Option(min=1, help="Wait while so many events of the bulk lane are queued.")
    ] = 10_000,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Most events a second.", show_default="no limit")
    ] = None,
    relative_to: Annotated[
        Path, typer.Option(metavar="BASE", help="Asset ids are the images' paths below this folder.")
    ] = Path("/"),
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin again, instead of where the last run of this DIR stopped.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Publish nothing; show what would be published.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each event: file, asset and event id.")
    ] = False,
) -> None:
    """Publish an event for every image below DIR, in the bulk lane, where it slows no live event.

    Stopped by Ctrl-C, a lost connection or a reboot, it goes on where it was when it is called again. An image has the
    same event id each time as long as the file does not change, so that one that was published twice has one result.
    The asset id is the path below BASE, percent-encoded, or the digest of one that is too long for an id. Names that
    begin with a dot are left out, and links to folders are not followed.

    Ends with status 1 if a file could not be published, 3 if RabbitMQ could not be reached.
    """
    instance_or_exit(instance)
    settings = CliContext.of(context).load().settings
    folder, base = _folders(folder, relative_to)
    if by is By.PATH:
        _look_at_roots(folder, settings, instance)
    place = _Place.of(settings, folder, instance, by)
    if from_start:
        place.after = None
    files = ImageFiles(print_note)
    job = _Job(folder, base, instance, by, as_json)
    if place.after is not None:
        print_note(f"going on behind {os.fsdecode(place.after)} (--from-start begins again)")
    pending = _behind(files.below(job.folder), job.folder, place.after)
    if dry_run:
        for file in pending:
            job.show(file)
    else:
        _run(_publish_all(settings, job, pending, place, maximum_queued, rate), job)
        place.forget()
    if not as_json:
        left_out = f", {files.others} files that are no images left out" if files.others else ""
        print_line(f"{job.done} events {'would be ' if dry_run else ''}published{left_out}")
    if job.failed or files.unreadable:
        raise typer.Exit(ExitCode.FAILED)


def _folders(folder: Path, base: Path) -> tuple[Path, Path]:
    """Both in one spelling, so that there is one place and one set of ids, however they are written."""
    folder, base = Path(os.path.realpath(folder)), Path(os.path.realpath(base))
    if not folder.is_relative_to(base):
        raise typer.BadParameter(f"{folder} is not below it", param_hint="--relative-to")
    return folder, base


def _run(publishing: Coroutine[Any, Any, None], job: _Job) -> None:
    """Publish, and say how to go on if that ends too early."""
    from worker.errors import AutotagError

    try:
        asyncio.run(publishing)
    except KeyboardInterrupt:
        why, status = "stopped", ExitCode.FAILED
    except _NotKeptError as error:
        why, status = str(error), ExitCode.FAILED
    except AutotagError as error:
        print_error(error)
        why, status = "RabbitMQ", ExitCode.UNREACHABLE
    else:
        return
    print_note(f"{why}: {job.done} events were published; call it again to go on")
    raise typer.Exit(status)


@dataclass(slots=True)
class _Job:
    """What is published, and how it is shown."""

    folder: Path
    base: Path
    instance: str
    by: By
    as_json: bool
    done: int = 0
    failed: int = 0

    def event(self, file: Path) -> tuple[str, bytes]:
        """The event id and the event for a file. Raises NotPublishableError."""
        content = content_of(file, self.by)
        status = file.stat()
        name = b"\0".join([os.fsencode(file), b"%d" % status.st_size, b"%d" % status.st_mtime_ns])
        event_id = str(uuid.uuid5(_NAMESPACE, hashlib.sha256(name).hexdigest()))
        return event_id, event_about(event_id, file, content, self.instance, self.asset_id(file))

    def asset_id(self, file: Path) -> str:
        """The path below the base, percent-encoded; of one that is too long for an id, its digest."""
        below = os.fsencode(file.relative_to(self.base))
        asset_id = quote_from_bytes(below)
        return asset_id if len(asset_id) <= MAXIMUM_ID_CHARACTERS else hashlib.sha256(below).hexdigest()

    def show(self, file: Path) -> None:
        """Show what would be published for a file."""
        try:
            event_id, _ = self.event(file)
        except (NotPublishableError, OSError) as error:
            self.refused(file, error)
        else:
            self.published(file, event_id)

    def published(self, file: Path, event_id: str) -> None:
        """Count an event that is confirmed."""
        self.done += 1
        if self.as_json:
            print_json({"file": str(file), "asset_id": self.asset_id(file), "event_id": event_id})

    def refused(self, file: Path, why: Exception) -> None:
        """Count a file of which no event can be made."""
        self.failed += 1
        print_note(f"{file}: {why}")


def _look_at_roots(folder: Path, settings: Settings, instance: str) -> None:
    """Refuse a folder that the service would not read; where these settings have no roots, only say so."""
    sources = settings.sources_of(settings.instance(instance) or settings.defaults)
    roots = [Path(os.path.realpath(root)) for root in sources.path_roots]
    if not roots:
        print_note("these settings name no `sources.path_roots`: those of the service have to, or use `--by inline`")
    elif not any(folder.is_relative_to(root) for root in roots):
        named = ", ".join(map(str, roots))
        raise typer.BadParameter(f"{folder} is below none of `sources.path_roots` ({named}); or use `--by inline`")


def _parts(path: bytes) -> list[bytes]:
    return path.split(b"/")


def _behind(files: Iterator[Path], folder: Path, after: bytes | None) -> Iterator[Path]:
    """The files that come behind a path below the folder, which itself may be gone."""
    if after is None:
        return files
    return itertools.dropwhile(lambda file: _parts(os.fsencode(file.relative_to(folder))) <= _parts(after), files)


class _NotKeptError(Exception):
    """The state directory does not take the place."""


class _Place:
    """Where a backfill has got to: the last path below its folder up to which every event is confirmed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.after: bytes | None = None
        with suppress(OSError, ValueError, KeyError, TypeError):  # there is none, or none that can be used
            self.after = bytes.fromhex(json.loads(file.read_text())["after_hex"]) or None

    @classmethod
    def of(cls, settings: Settings, folder: Path, instance: str, by: By) -> _Place:
        """The place of a folder, an instance and a way to carry images, in the state directory."""
        key = hashlib.sha256(b"\0".join([os.fsencode(folder), instance.encode(), by.encode()])).hexdigest()[:32]
        return cls(settings.state_dir / "backfill" / f"{key}.json")

    def keep(self, after: bytes) -> None:
        """Keep it, so that it is whole whenever the power fails. Raises _NotKeptError."""
        new = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with new.open("w") as written:
                json.dump({"after_hex": after.hex()}, written)
                written.flush()
                os.fsync(written.fileno())
            new.replace(self._file)
        except OSError as error:
            raise _NotKeptError(
                f"where it stops cannot be kept in {self._file.parent}: {error.strerror}; set `state_dir`"
            ) from error

    def forget(self) -> None:
        """It has ended, or begins again."""
        self.after = None
        self._file.unlink(missing_ok=True)


async def _publish_all(
    settings: Settings, job: _Job, files: Iterator[Path], place: _Place, maximum_queued: int, rate: float | None
) -> None:
    from worker.amqp.client import open_event_client
    from worker.amqp.topology import topology
    from worker.cli.progress import counting

    names = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
    with counting("events published") as count:
        async with open_event_client(settings.amqp, names, listen=False) as client:
            place.keep(place.after or b"")  # that it cannot be is found out before anything is published
            next_s = time.monotonic()
            while batch := list(itertools.islice(files, _AT_ONCE if rate is None else 1)):
                while await client.queued(Lane.BULK) >= maximum_queued:  # noqa: ASYNC110 - RabbitMQ has to be asked
                    await asyncio.sleep(_LOOK_EVERY_S)
                if rate is not None:
                    await asyncio.sleep(max(0.0, next_s - time.monotonic()))
                    next_s = max(next_s, time.monotonic() - 1.0) + 1.0 / rate
                await asyncio.gather(*(_publish_one(client, job, file) for file in batch))
                # All that come before are confirmed: nothing in between is left out by a run that goes on from here.
                place.keep(os.fsencode(batch[-1].relative_to(job.folder)))
                count(job.done)


async def _publish_one(client: EventClient, job: _Job, file: Path) -> None:
    try:
        event_id, body = await asyncio.to_thread(job.event, file)
    except (NotPublishableError, OSError) as error:
        job.refused(file, error)
        return
    await client.publish_event(body, event_id, Lane.BULK)
    job.published(file, event_id)
