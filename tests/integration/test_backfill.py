"""A library that is there already is announced in the bulk lane; a run that was stopped goes on where it was."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.support.serving import Serving, serving, settings_for
from worker.amqp.topology import Lane

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 100
ODD = (
    b"Pr\xfcfung.jpg",
    b"line\nbreak.jpg",
    b"\x1b[2J.jpg",
    b"-n.jpg",
    "NFC \u00fc.jpg".encode(),
    "NFD u\u0308.jpg".encode(),
)


@pytest.fixture
async def it(broker: str) -> AsyncIterator[Serving]:
    """A broker that consumes nothing, so that what is published stays in its queue."""
    async with serving(settings_for(broker)) as it:
        await it.broker.stop_consuming("the test looks")
        yield it


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    for number in range(300):
        file = folder / f"{number % 7}" / f"{number:03}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(JPEG)
    return folder


def command(it: Serving, tmp_path: Path, *words: str | bytes) -> tuple[list[bytes], dict[str, str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    kept |= {"AUTOTAG_STATE_DIR": str(tmp_path / "state"), "AUTOTAG_AMQP__URL": it.settings.url.get_secret_value()}
    kept |= {"AUTOTAG_SOURCES__PATH_ROOTS": json.dumps([str(tmp_path)])}
    kept |= {"AUTOTAG_AMQP__QUEUE_PREFIX": it.settings.queue_prefix, "LC_ALL": "POSIX", "PYTHONUTF8": "0"}
    return [os.fsencode(word) for word in (sys.executable, "-P", "-m", "worker", "backfill", *words)], kept


async def run(it: Serving, tmp_path: Path, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    words_, environment = command(it, tmp_path, *words)
    return await asyncio.to_thread(
        subprocess.run, words_, env=environment, capture_output=True, timeout=100, check=False
    )


async def begin(it: Serving, tmp_path: Path, *words: str | bytes) -> asyncio.subprocess.Process:
    words_, environment = command(it, tmp_path, *words)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*words_, env=environment, stdout=pipe, stderr=pipe)


def ids(done: bytes) -> list[str]:
    return [json.loads(line)["event_id"] for line in done.decode().splitlines()]


async def test_every_image_is_published_once_and_again_under_the_same_id(
    it: Serving, library: Path, tmp_path: Path
) -> None:
    (library / "notes.txt").write_text("no picture")
    first = await run(it, tmp_path, "--json", str(library))
    assert first.returncode == 0, first.stderr
    assert len(set(ids(first.stdout))) == 300
    await it.depth_becomes(it.topology.lane_queue(Lane.BULK), 300)
    assert (await it.broker.depths())[it.topology.lane_queue(Lane.LIVE)] == 0
    second = await run(it, tmp_path, "--json", str(library))
    assert set(ids(second.stdout)) == set(ids(first.stdout)), "the run has ended, so another begins again"
    # A file that has changed since is another event
    (library / "0" / "000.jpg").write_bytes(JPEG + b"!")
    third = await run(it, tmp_path, "--json", "--dry-run", str(library))
    assert len(set(ids(third.stdout)) - set(ids(first.stdout))) == 1


async def test_a_run_that_is_killed_goes_on_and_leaves_none_out(it: Serving, library: Path, tmp_path: Path) -> None:
    everything = await run(it, tmp_path, "--json", "--dry-run", str(library))
    process = await begin(it, tmp_path, "--json", "--rate", "100", str(library))
    assert process.stdout is not None
    seen = [await process.stdout.readline() for _ in range(40)]
    process.kill()
    begun = ids(b"".join(seen) + await process.stdout.read())
    await process.communicate()
    assert 40 <= len(begun) < 300
    again = await run(it, tmp_path, "--json", str(library))
    assert again.returncode == 0
    assert b"going on behind" in again.stderr
    assert set(ids(again.stdout)) | set(begun) == set(ids(everything.stdout))
    assert len(ids(again.stdout)) <= 300 - len(begun) + 1, "what was published is not published again"


async def test_it_waits_while_enough_is_queued(it: Serving, library: Path, tmp_path: Path) -> None:
    process = await begin(it, tmp_path, "--json", "--maximum-queued", "100", str(library))
    await it.depth_becomes(it.topology.lane_queue(Lane.BULK), 128, within_s=60)
    # When the worker takes them, it goes on
    await it.broker.resume_consuming("the test looks")
    for _ in range(300):
        (await it.next(within_s=60)).ack()
    out, err = await process.communicate()
    assert (process.returncode, len(ids(out))) == (0, 300), err


async def test_odd_names_stop_nothing_and_have_ids_that_lead_back_to_them(
    it: Serving, library: Path, tmp_path: Path
) -> None:
    for name in ODD:
        (library / os.fsdecode(name)).write_bytes(JPEG)
    by_path = await run(it, tmp_path, "--json", str(library))
    assert by_path.returncode == 1
    impossible = by_path.stderr.decode().splitlines()
    assert len(impossible) == 3, "not UTF-8, a line break, an escape"
    assert all("by inline" in line and line.isprintable() for line in impossible)
    assert len(ids(by_path.stdout)) == 303
    inline = await run(it, tmp_path, "--json", "--by", "inline", "--relative-to", str(library), str(library))
    assert inline.returncode == 0, inline.stderr
    assets = [json.loads(line)["asset_id"] for line in inline.stdout.decode().splitlines()]
    assert set(ODD) <= {unquote_to_bytes(each) for each in assets}
    assert all(each.isascii() for each in assets)


async def test_however_a_folder_is_written_an_image_has_one_event_id_and_an_asset_id_of_its_own(
    it: Serving, library: Path, tmp_path: Path
) -> None:
    for year in ("2024", "2025"):
        (library / year).mkdir()
        (library / year / "a.jpg").write_bytes(JPEG)
    whole = await run(it, tmp_path, "--json", "--dry-run", str(library))
    found = {json.loads(line)["event_id"]: json.loads(line)["asset_id"] for line in whole.stdout.decode().splitlines()}
    assert len(set(found.values())) == len(found) == 302
    for written in (library / "2024", library / "x" / ".." / "2024"):
        (library / "x").mkdir(exist_ok=True)
        (event,) = (await run(it, tmp_path, "--json", "--dry-run", str(written))).stdout.decode().splitlines()
        assert found[json.loads(event)["event_id"]] == json.loads(event)["asset_id"]
    relative = await run(it, tmp_path, "--json", "--dry-run", "--relative-to", str(library), str(library / "2025"))
    assert json.loads(relative.stdout)["asset_id"] == "2025/a.jpg"


async def test_a_dry_run_keeps_the_place_and_a_folder_that_is_not_read_is_refused(
    it: Serving, library: Path, tmp_path: Path
) -> None:
    process = await begin(it, tmp_path, "--json", "--rate", "100", str(library))
    assert process.stdout is not None
    for _ in range(20):
        await process.stdout.readline()
    process.kill()
    await process.communicate()
    assert len(places(tmp_path)) == 1
    dry = await run(it, tmp_path, "--json", "--dry-run", "--from-start", str(library))
    assert len(ids(dry.stdout)) == 300
    assert len(places(tmp_path)) == 1
    outside = await run(it, tmp_path, "/usr/share")
    assert outside.returncode == 2
    assert b"path_roots" in outside.stderr


async def test_where_no_place_can_be_kept_nothing_is_published(it: Serving, library: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    done = await run(it, tmp_path, "--json", str(library))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"set `state_dir`" in done.stderr
    assert b"Traceback" not in done.stderr


async def test_without_a_broker_it_ends_with_3_and_says_how_to_go_on(
    it: Serving, library: Path, tmp_path: Path
) -> None:
    words, environment = command(it, tmp_path, str(library))
    environment["AUTOTAG_AMQP__URL"] = "amqp://127.0.0.1:1/"
    done = await asyncio.to_thread(subprocess.run, words, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 3
    assert b"call it again to go on" in done.stderr
    assert b"Traceback" not in done.stderr
    assert not places(tmp_path)


def places(tmp_path: Path) -> list[Path]:
    """Places that were kept."""
    return list((tmp_path / "state").glob("backfill/*.json"))
