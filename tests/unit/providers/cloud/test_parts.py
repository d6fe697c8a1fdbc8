"""The parts that all cloud providers share, each in isolation."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from worker.errors import CannotBeDone, TryLater
from worker.providers.base import Answer, Suggestion
from worker.providers.cloud.budget import why_it_does_not_last
from worker.providers.cloud.budget_file import FileBudget
from worker.providers.cloud.cache import AnswerCache
from worker.providers.cloud.check_image import GREY_SIDE, grey_png
from worker.providers.cloud.circuit import Circuit
from worker.providers.cloud.errors import CallNotMade, RateLimited, ServiceFailed, steady, transient_error
from worker.providers.cloud.http_client import KeyHeader
from worker.providers.cloud.retries import FullJitterOrRetryAfter, RetryPolicy, call_with_retries
from worker.providers.cloud.suggestions import parse_suggestions
from worker.settings import Settings
from worker.sources.retry_after import MAXIMUM_RETRY_AFTER_S, retry_after_s

NOON_S = 1_795_435_200.0


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("header", "wait_s"),
        [
            ("2", 2.0),
            (" 30 ", 30.0),
            ("0", 0.0),
            (None, 0.0),
            ("", 0.0),
            ("-5", 0.0),
            ("soon", 0.0),
            ("1.5", 0.0),
            ("٣", 0.0),
            ("9" * 5000, MAXIMUM_RETRY_AFTER_S),
            (format_datetime(datetime.fromtimestamp(NOON_S + 40, UTC), usegmt=True), 40.0),
            (format_datetime(datetime.fromtimestamp(NOON_S - 40, UTC), usegmt=True), 0.0),
            ("Fri, 99 Foo 2026 99:99:99 GMT", 0.0),
        ],
    )
    def test_both_forms_are_parsed_and_everything_else_means_no_wait(self, header: str | None, wait_s: float) -> None:
        assert retry_after_s(header, now_s=NOON_S) == wait_s

    @given(st.text(max_size=60))
    def test_no_header_raises(self, header: str) -> None:
        assert 0 <= retry_after_s(header, now_s=NOON_S) <= MAXIMUM_RETRY_AFTER_S


def state_after(attempt: int, error: Exception) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    return state


class TestWaits:
    def test_they_have_full_jitter_from_the_minimum_to_a_bound_that_doubles_to_the_maximum(self) -> None:
        random.seed(4)
        wait = FullJitterOrRetryAfter(1, 30)
        for attempt, bound_s in [(1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (50, 30)]:
            error = ServiceFailed("down", reason="service_failed")
            waits_s = [wait(state_after(attempt, error)) for _ in range(400)]
            assert 1 <= min(waits_s) < 1 + (bound_s - 1) * 0.1
            assert bound_s - (bound_s - 1) * 0.1 < max(waits_s) <= bound_s

    def test_the_wait_that_the_service_asks_for_is_the_minimum(self) -> None:
        error = RateLimited("slow", reason="quota_exhausted", after_s=45)
        assert FullJitterOrRetryAfter(1, 30)(state_after(1, error)) == 45


class TestRetries:
    async def test_a_refusal_is_not_retried(self) -> None:
        attempts = 0

        async def request() -> None:
            nonlocal attempts
            attempts += 1
            raise CannotBeDone("never", reason="image_refused")

        with pytest.raises(CannotBeDone):
            await call_with_retries(request, RetryPolicy(5, 10, 0, 0))
        assert attempts == 1

    async def test_the_last_error_has_the_wait_that_the_service_asked_for(self) -> None:
        async def request() -> None:
            raise RateLimited("slow", reason="quota_exhausted", after_s=99)

        with pytest.raises(TryLater) as caught:
            await call_with_retries(request, RetryPolicy(5, 10, 0, 0))
        assert caught.value.after_s == 99
        assert type(caught.value) is TryLater

    @pytest.mark.parametrize(("after_s", "counted"), [(0, True), (0.01, True), (600, False)])
    async def test_a_wait_that_is_too_long_to_wait_here_is_no_attempt(self, after_s: float, counted: bool) -> None:
        async def request() -> None:
            error = transient_error("it", 503, after_s, "down")
            assert error is not None
            raise error

        with pytest.raises(TryLater) as caught:
            await call_with_retries(request, RetryPolicy(3, 60, 0, 0))
        assert (caught.value.after_s, caught.value.counted) == (after_s, counted)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(408, ServiceFailed), (429, RateLimited), (500, ServiceFailed), (503, ServiceFailed), (599, ServiceFailed)]
    + [(status, None) for status in (200, 301, 400, 401, 403, 404, 410, 413)],
)
def test_only_some_statuses_are_transient(status: int, kind: type[TryLater] | None) -> None:
    error = transient_error("it", status, 3, "a message")
    assert (type(error) if error else None) is kind
    assert error is None or error.after_s == 3


async def fail() -> None:
    raise ServiceFailed("down", reason="service_failed")


async def succeed() -> str:
    return "ok"


@dataclass
class Clock:
    """The time that circuits see."""

    now_s: float = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock for circuits that the test advances."""
    clock = Clock()
    monkeypatch.setattr("circuitbreaker.monotonic", lambda: clock.now_s)
    return clock


class TestCircuit:
    async def test_only_failures_in_a_row_open_it(self, clock: Clock) -> None:
        circuit = Circuit("it", failures=2, open_s=60)
        for request in (fail, succeed, fail):
            with suppress(ServiceFailed):
                await circuit.call(request)
        assert circuit.state == "closed"
        with pytest.raises(ServiceFailed):
            await circuit.call(fail)
        assert circuit.state == "open"
        clock.now_s += 1
        with pytest.raises(CallNotMade, match="failed repeatedly") as caught:
            await circuit.call(succeed)
        assert caught.value.after_s == 59

    async def test_a_probe_that_fails_opens_it_again(self, clock: Clock) -> None:
        circuit = Circuit("it", failures=1, open_s=5)
        with pytest.raises(ServiceFailed):
            await circuit.call(fail)
        clock.now_s += 5
        assert circuit.state == "half_open"
        with pytest.raises(ServiceFailed):
            await circuit.call(fail)
        assert circuit.state == "open"

    async def test_a_refusal_shows_that_the_service_responds(self, clock: Clock) -> None:
        async def refuse() -> None:
            raise CannotBeDone("no", reason="image_refused")

        circuit = Circuit("it", failures=1, open_s=5)
        with pytest.raises(ServiceFailed):
            await circuit.call(fail)
        clock.now_s += 5
        with pytest.raises(CannotBeDone):
            await circuit.call(refuse)
        assert circuit.state == "closed"


RESERVE_MANY = """
import asyncio, pathlib, sys
from worker.providers.cloud.budget_file import FileBudget

async def run():
    budget = FileBudget(pathlib.Path(sys.argv[1]))
    reservations = await asyncio.gather(*(budget.reserve("p", "acme", 3, 100) for _ in range(25)))
    print(sum(each.calls for each in reservations))

asyncio.run(run())
"""


class TestBudget:
    async def test_it_is_separate_for_each_provider_and_instance(self, tmp_path: Path) -> None:
        budget = FileBudget(tmp_path / "deep" / "calls.sqlite3")
        assert (await budget.reserve("google", "a", 4, 5)).calls == 4
        assert (await budget.reserve("google", "a", 4, 5)).calls == 1
        assert (await budget.reserve("google", "a", 4, 5)).calls == 0
        assert (await budget.reserve("google", "b", 4, 5)).calls == 4
        assert (await budget.reserve("microsoft", "a", 4, 5)).calls == 4
        assert await budget.used("google", "a") == 5
        assert await budget.used("google", "unknown") == 0

    async def test_it_renews_with_the_month_and_a_late_release_does_not_add_to_it(self, tmp_path: Path) -> None:
        now = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
        budget = FileBudget(tmp_path / "calls.sqlite3", now=lambda: now)
        assert budget.renews() == datetime(2027, 1, 1, tzinfo=UTC)
        december = await budget.reserve("p", "a", 5, 5)
        now = datetime(2027, 1, 1, tzinfo=UTC)
        assert budget.renews() == datetime(2027, 2, 1, tzinfo=UTC)
        assert (await budget.reserve("p", "a", 5, 5)).calls == 5
        await budget.release(december, 5)
        assert (await budget.reserve("p", "a", 5, 5)).calls == 0

    async def test_a_lower_limit_takes_effect_at_once(self, tmp_path: Path) -> None:
        budget = FileBudget(tmp_path / "calls.sqlite3")
        await budget.reserve("p", "a", 10, 100)
        assert (await budget.reserve("p", "a", 1, 5)).calls == 0

    async def test_several_processes_together_do_not_exceed_it(self, tmp_path: Path) -> None:
        file = tmp_path / "calls.sqlite3"
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", RESERVE_MANY, str(file), stdout=asyncio.subprocess.PIPE
            )
            for _ in range(3)
        ]
        reserved = [int((await process.communicate())[0]) for process in processes]
        assert sum(reserved) == 100
        assert await FileBudget(file).used("p", "acme") == 100

    async def test_a_file_that_can_not_be_used_blocks_every_call(self, tmp_path: Path) -> None:
        (tmp_path / "calls.sqlite3").write_bytes(b"this is no database" * 100)
        with pytest.raises(TryLater, match="call budget") as caught:
            await FileBudget(tmp_path / "calls.sqlite3").reserve("p", "a", 1, 5)
        assert caught.value.reason == "budget_unusable"

    async def test_a_database_that_is_locked_too_long_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("worker.providers.cloud.budget_file._BUSY_TIMEOUT_S", 0.1)
        budget = FileBudget(tmp_path / "calls.sqlite3")
        await budget.reserve("p", "a", 1, 5)
        holder = sqlite3.connect(tmp_path / "calls.sqlite3", isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(TryLater):
                await budget.reserve("p", "a", 1, 5)
        finally:
            holder.close()


class TestWhetherACountLasts:
    def test_it_does_not_in_memory(self) -> None:
        why = why_it_does_not_last(Settings.model_validate({"state_dir": "/dev/shm/autotag/not/made/yet"}))
        assert why is not None
        assert "tmpfs" in why

    def test_it_does_not_where_the_settings_say_so(self) -> None:
        settings = Settings.model_validate({"state_dir": "/", "state_dir_is_temporary": True})
        assert "state_dir_is_temporary" in (why_it_does_not_last(settings) or "")

    @pytest.mark.parametrize(
        ("mounts", "lasts"),
        [
            ("1 0 8:1 / / rw - ext4 /dev/sda rw", True),
            ("1 0 0:9 / / rw - overlay overlay rw", False),
            ("1 0 0:9 / / rw - overlay overlay rw\n2 1 8:1 / /srv/our\\040state rw master:1 - xfs /dev/sdb rw", True),
            ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / /srv rw - tmpfs none rw", False),
            ("2 1 0:9 / /srv rw - tmpfs none rw\n3 1 8:1 / /srv rw - ext4 /dev/sda rw", True),
            ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / /srv/our rw - tmpfs none rw", True),
        ],
        ids=["a disk", "a container", "a volume in a container", "memory", "mounted over", "a similar name"],
    )
    def test_the_file_system_of_the_directory_decides(
        self, mounts: str, lasts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mountinfo").write_text(mounts)
        monkeypatch.setattr("worker.providers.cloud.budget._MOUNTS", tmp_path / "mountinfo")
        monkeypatch.setattr(Path, "exists", lambda _self: True)
        settings = Settings.model_validate({"state_dir": "/srv/our state/autotag"})
        assert (why_it_does_not_last(settings) is None) is lasts


class TestAnswerCache:
    ANSWER = Answer((Suggestion("freight car", 0.75), Suggestion("žlutý kůň", 1.0)), "it/1")

    def cache(self, directory: Path, *, maximum_bytes: int = 1_000_000, age_s: float = 1000) -> AnswerCache:
        return AnswerCache(directory / "answers", maximum_bytes=maximum_bytes, maximum_age_s=age_s)

    async def test_an_answer_survives_a_restart(self, tmp_path: Path) -> None:
        await self.cache(tmp_path).put("k", self.ANSWER)
        assert await self.cache(tmp_path).get("k") == self.ANSWER
        assert await self.cache(tmp_path).get("other") is None

    async def test_the_oldest_are_evicted(self, tmp_path: Path) -> None:
        cache = self.cache(tmp_path, maximum_bytes=40 * 4096)  # a file takes a block of 4 KiB
        for at in range(100):
            await cache.put(f"k{at}", self.ANSWER)
        again = self.cache(tmp_path, maximum_bytes=40 * 4096)
        await again.put("last", self.ANSWER)
        assert 30 <= len(list((tmp_path / "answers").iterdir())) <= 40
        assert await again.get("last") == self.ANSWER
        assert await again.get("k99") == self.ANSWER
        assert await again.get("k0") is None

    async def test_an_old_one_expires(self, tmp_path: Path) -> None:
        cache = self.cache(tmp_path, age_s=1)
        await cache.put("k", self.ANSWER)
        await asyncio.sleep(2.1)  # the library stores whole seconds
        assert await cache.get("k") is None

    @pytest.mark.parametrize(
        "tree", [b"no json", b"{}", b"[1]", b'{"model": 1}', b'{"suggestions": [[1]], "model": 1}', b"17"]
    )
    async def test_a_damaged_one_counts_as_absent(self, tmp_path: Path, tree: bytes) -> None:
        cache = self.cache(tmp_path)
        await cache.put("k", self.ANSWER)
        for file in (tmp_path / "answers").iterdir():
            file.write_bytes(b"\0\0\0\0" + tree)
        assert await cache.get("k") is None
        for file in (tmp_path / "answers").iterdir():
            file.write_bytes(b"")
        assert await cache.get("k") is None

    async def test_it_never_unpickles(self, tmp_path: Path) -> None:
        import pickle

        cache = self.cache(tmp_path)
        await cache.put("k", self.ANSWER)
        for file in (tmp_path / "answers").iterdir():
            file.write_bytes(b"\0\0\0\0" + pickle.dumps(self.ANSWER))
        assert await cache.get("k") is None

    async def test_only_its_owner_can_read_it(self, tmp_path: Path) -> None:
        await self.cache(tmp_path).put("k", self.ANSWER)
        assert (tmp_path / "answers").stat().st_mode & 0o077 == 0

    def test_a_key_depends_on_every_part(self) -> None:
        keys = {
            AnswerCache.key("image", "https://a", "v1", True, 10),
            AnswerCache.key("other", "https://a", "v1", True, 10),
            AnswerCache.key("image", "https://b", "v1", True, 10),
            AnswerCache.key("image", "https://a", "v1", False, 10),
            AnswerCache.key("image", "https://a", "v1", True, 11),
        }
        assert len(keys) == 5


def test_the_image_that_check_sends_is_a_valid_png() -> None:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(grey_png())) as image:
        image.load()
        assert (image.format, image.size, image.getpixel((5, 5))) == ("PNG", (GREY_SIDE, GREY_SIDE), 128)


def test_what_a_service_wrote_is_quoted_on_one_printable_line_without_the_key() -> None:
    header = KeyHeader("x-key", SecretStr("s3cret"))
    assert header.redact("bad\n key s3cret\x1b[2J\u202e") == r"bad key [key]\x1b[2J\u202e"
    assert header.redact("x" * 1000) == "x" * 299 + "…"


@pytest.mark.parametrize("name", ["cat\x1b[2J", "cat\u202e", "cat\x9b", "cat\u3164", "\u200bcat"])
def test_a_name_that_cannot_be_seen_whole_is_left_out(name: str) -> None:
    kept, note = parse_suggestions("the service", [(name, 0.5), ("dog", 0.5)])
    assert [each.name for each in kept] == ["dog"]
    assert note is not None
    assert "control characters" in note


@pytest.mark.parametrize("name", ["Straßenbahn", "می\u200cخواهم", "👩\u200d💻"])  # noqa: RUF001 - Persian
def test_a_name_in_any_script_is_kept(name: str) -> None:
    kept, note = parse_suggestions("the service", [(f" {name}\n", 0.5)])
    assert ([each.name for each in kept], note) == ([name], None)


@pytest.mark.parametrize(
    ("text", "steady_text"),
    [
        ("Please retry after 26 seconds.", "Please retry after … seconds."),
        ("replenished in 12.03:30:56.", "replenished in …"),
        ("request d4d0d4f9-6e5b-4c5f failed", "request … failed"),
        ("The service is unavailable.", "The service is unavailable."),
    ],
)
def test_what_differs_from_one_time_to_the_next_is_not_quoted(text: str, steady_text: str) -> None:
    assert steady(text) == steady_text
