"""The overlay: its place among the sources, changes that are checked first, versions, undo, and broken files."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.settings_sources import SourceFiles
from worker.errors import CannotBeDone
from worker.settings import LoadedSettings, UnusableSettings, load_settings
from worker.settings.overlay.change import UNSET, Editor, in_use, to_undo, why_not_writable
from worker.settings.overlay.secret_files import write_secret
from worker.settings.overlay.versions import KEPT, directory_of, read_versions
from worker.settings.overlay.written import key_written, value_written
from worker.settings.schema import SettingKey, dotted

NOW = datetime(2026, 5, 17, 12, 30, tzinfo=UTC)
THRESHOLD = "instances.acme.tensorflow.confidence_threshold"


class Installation:
    """Sources in a directory, with an overlay in its `state`."""

    def __init__(self, directory: Path) -> None:
        self.files = SourceFiles(directory)
        self.state = directory / "state"
        self.path = self.state / "overlay.toml"
        self.environ = {"AUTOTAG_STATE_DIR": str(self.state)}

    def load(self, *, overlay: Any = None) -> LoadedSettings:
        secrets = self.files.secrets_dir if self.files.secrets_dir.exists() else None
        return load_settings(secrets_dir=secrets, environ=self.environ, directory=self.files.directory, overlay=overlay)

    def editor(self, by: str = "tester", after_s: float = 0) -> Editor:
        return Editor(self.load, by, NOW + timedelta(seconds=after_s))

    def set(self, key: str, text: str, **options: Any) -> LoadedSettings:
        written = key_written(key)
        return self.editor().change({written: value_written(written, text)}, **options).after

    def unset(self, key: str) -> LoadedSettings:
        return self.editor().change({key_written(key): UNSET}).after

    def write(self, text: str) -> None:
        """By hand, past the validator."""
        self.state.mkdir(exist_ok=True)
        self.path.write_text(text, "utf-8")

    def refused(self, change: Callable[[], object]) -> str:
        """The words of a refusal, after which everything is as it was."""
        before = snapshot(self.state)
        with pytest.raises(CannotBeDone) as refusal:
            change()
        assert snapshot(self.state) == before
        return str(refusal.value)

    def left_out(self) -> list[str]:
        overlay = self.load().overlay
        assert overlay is not None
        return [str(each) for each in overlay.refused]


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a directory but the lock."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


# ── its place among the sources ──────────────────────────────────────────────────────────────────────────────────────


def test_it_lies_over_the_file_and_below_secrets_and_variables(here: Installation) -> None:
    key = ("amqp", "prefetch")

    def effective() -> tuple[int, str]:
        loaded = here.load()
        return loaded.settings.amqp.prefetch, loaded.origin(key)

    here.files.toml("amqp.prefetch = 2")
    here.set("amqp.prefetch", "3")
    assert effective() == (3, f"overlay {here.path}")
    here.files.secret("amqp__prefetch", "4")
    assert effective() == (4, "secret amqp__prefetch")
    here.files.dotenv("AUTOTAG_AMQP__PREFETCH=5")
    assert effective() == (5, ".env AUTOTAG_AMQP__PREFETCH")
    here.environ["AUTOTAG_AMQP__PREFETCH"] = "6"
    assert effective() == (6, "environment AUTOTAG_AMQP__PREFETCH")


def test_an_instances_own_value_in_it_wins_over_the_defaults_of_every_source(here: Installation) -> None:
    here.environ["AUTOTAG_DEFAULTS__LANGUAGE"] = "fr"
    assert here.set("instances.acme.language", "de").settings.instances["acme"].language == "de"
    assert here.load().origin(("instances", "acme", "language")) == f"[instances.acme] overlay {here.path}"


def test_a_change_that_would_have_no_effect_is_not_written_and_names_what_wins(here: Installation) -> None:
    here.environ["AUTOTAG_AMQP__PREFETCH"] = "6"
    assert "environment AUTOTAG_AMQP__PREFETCH takes precedence" in here.refused(lambda: here.set("amqp.prefetch", "3"))


def test_its_place_is_a_setting_of_the_file_or_the_environment_and_never_its_own(
    here: Installation, tmp_path: Path
) -> None:
    here.files.toml(f'overlay_file = "{tmp_path}/elsewhere.toml"')
    here.set("defaults.language", "fr")
    assert "language" in (tmp_path / "elsewhere.toml").read_text()
    for key in ("overlay_file", "state_dir"):
        assert "says where the overlay is" in here.refused(partial(here.set, key, "/somewhere/else"))
    here.files.toml("")
    assert here.load().settings.defaults.language == "en"


def test_variables_find_an_instance_that_only_the_overlay_names(here: Installation) -> None:
    here.set("instances.Acme.language", "fr")
    here.environ["AUTOTAG_INSTANCES__ACME__ENABLED"] = "false"
    assert here.load().settings.instances.keys() == {"Acme"}


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        (THRESHOLD, "0.3", 0.3),
        ("enabled", "off", False),
        ("maximum_number_of_tags_per_asset", "7", 7),
        ("sources.maximum_bytes", "64 MiB", 64 * 1024**2),
        ("defaults.labels.drop", "web site, screenshot", ("web site", "screenshot")),
        ("defaults.labels.rename", '{"tabby": "cat", "a b": "c \\"d\\""}', {"tabby": "cat", "a b": 'c "d"'}),
        ("defaults.labels.thresholds", '{"cat": 0.5}', {"cat": 0.5}),
        ('instances."acme.org".language', "fr", "fr"),
        ("log.level", "WARN", "warning"),
    ],
)
def test_a_value_is_written_as_toml_has_it_and_read_back(
    here: Installation, key: str, text: str, expected: object
) -> None:
    here.set(key, text)
    assert here.load().value(key_written(key)) == expected


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        (THRESHOLD, "3", "must be a number from 0 to 1"),
        (THRESHOLD, "nan", "must be a number from 0 to 1"),
        (THRESHOLD, "", "must be a number"),
        ("defaults.language", "tlh", "there are no names in it"),
        ("amqp.prefech", "3", "did you mean amqp.prefetch?"),
        ("instances.a b.enabled", "true", "is no key"),
        ('instances."a b".enabled', "true", "no event can name the instance"),
        ("enabled = true\nstate_dir", "true", "is no key"),
        ("instances", "true", "is not a setting"),
        ("defaults.labels.rename", "{", "is not JSON"),
        ("defaults.providers", '{"mine": {"option": null}}', "no null in TOML"),
        ("http.key_file", "/key.pem", "has no effect without http.certificate_file"),
    ],
)
def test_what_is_refused_is_not_written(here: Installation, key: str, text: str, words: str) -> None:
    assert words in here.refused(lambda: here.set(key, text))
    assert not here.path.exists()


def test_a_value_that_contradicts_another_source_is_refused(here: Installation) -> None:
    here.files.toml("instances.acme.maximum_number_of_tags_per_asset = 10")
    assert "is above the system's" in here.refused(lambda: here.set("maximum_number_of_tags_per_asset", "5"))


def test_unset_uncovers_what_lies_below_and_leaves_no_empty_table(here: Installation) -> None:
    here.files.toml("instances.acme.tensorflow.confidence_threshold = 0.2")
    here.set(THRESHOLD, "0.3")
    here.set("defaults.language", "fr")
    assert here.unset(THRESHOLD).settings.instances["acme"].tensorflow.confidence_threshold == 0.2
    assert "acme" not in here.path.read_text()
    assert "it comes from [instances.acme] file" in here.refused(lambda: here.unset(THRESHOLD))


def test_a_whole_table_can_be_unset(here: Installation) -> None:
    here.set(THRESHOLD, "0.3")
    here.set("instances.acme.language", "fr")
    assert not here.unset("instances.acme").settings.instances


def test_setting_what_is_set_already_makes_no_version(here: Installation) -> None:
    here.set(THRESHOLD, "0.3")
    key = key_written(THRESHOLD)
    assert here.editor().change({key: 0.3}).version is None
    assert len(read_versions(here.path)) == 2


# ── versions and undo ────────────────────────────────────────────────────────────────────────────────────────────────


def thresholds(here: Installation) -> float | None:
    found = here.load().settings.instances.get("acme")
    return found.tensorflow.confidence_threshold if found else None


def test_each_version_says_who_when_and_what(here: Installation) -> None:
    here.editor("Ada, by command").change({key_written(THRESHOLD): 0.3})
    first, second = read_versions(here.path)
    assert (first.content, first.by) == ("", "nobody")
    assert (second.by, second.at) == ("Ada, by command", "2026-05-17T12:30:00+00:00")
    assert second.what == (f"{THRESHOLD} = 0.3",)


def test_undo_goes_back_step_by_step_and_can_itself_be_undone(here: Installation) -> None:
    for text in ("0.1", "0.2", "0.3"):
        here.set(THRESHOLD, text)
    seen = []
    for _ in range(3):
        here.editor().undo()
        seen.append(thresholds(here))
    assert seen == [0.2, 0.1, None]
    assert "nothing to undo" in here.refused(here.editor().undo)
    here.editor().undo(to=3)
    assert thresholds(here) == 0.3
    here.set(THRESHOLD, "0.9")
    here.editor().undo()
    assert thresholds(here) == 0.3
    assert "there is no version 99" in here.refused(lambda: here.editor().undo(to=99))


def test_a_bounded_number_of_versions_is_kept(here: Installation) -> None:
    for number in range(KEPT + 5):
        here.set("amqp.prefetch", str(number + 1))
    versions = read_versions(here.path)
    assert len(versions) == KEPT
    assert versions[-1].what == (f"amqp.prefetch = {KEPT + 5}",)


def test_a_change_by_hand_is_kept_as_a_version_before_the_next_one(here: Installation) -> None:
    here.set("amqp.prefetch", "5")
    here.write("amqp.prefetch = 6  # mine")
    here.set(THRESHOLD, "0.3")
    by_hand = read_versions(here.path)[-2]
    assert (by_hand.what, by_hand.content) == (("written by hand",), "amqp.prefetch = 6  # mine")
    here.editor().undo()
    assert here.load().settings.amqp.prefetch == 6
    assert thresholds(here) is None


def test_an_undo_to_what_is_refused_by_now_is_not_done(here: Installation) -> None:
    here.set("instances.acme.maximum_number_of_tags_per_asset", "10")
    here.unset("instances.acme")
    here.files.toml("maximum_number_of_tags_per_asset = 5")
    assert "above the system's" in here.refused(here.editor().undo)


def test_versions_that_are_no_files_of_ours_are_left_out(here: Installation) -> None:
    here.set(THRESHOLD, "0.3")
    directory = directory_of(here.path)
    (directory / "000009.json").write_text("{")
    (directory / "000010.json").write_text("[]")
    (directory / "000011.json").write_text(json.dumps({"number": "x", "what": []}))
    (directory / "000012.json").write_bytes(b"\xff")
    assert [each.number for each in read_versions(here.path)] == [0, 1]


# ── two at once ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_second_of_two_editors_is_refused_and_reads_who_was_first(here: Installation) -> None:
    here.set(THRESHOLD, "0.1")
    seen = here.load().overlay
    assert seen is not None
    here.editor("Ada").change({key_written(THRESHOLD): 0.2}, seen=seen.fingerprint)
    words = here.refused(lambda: here.set(THRESHOLD, "0.3", seen=seen.fingerprint))
    assert "changed by Ada" in words
    assert f"{THRESHOLD} = 0.2" in words
    assert thresholds(here) == 0.2


def test_of_changes_to_different_settings_at_the_same_time_none_is_lost(here: Installation) -> None:
    errors: list[Exception] = []

    def change(number: int) -> None:
        try:
            here.set(f"instances.tenant-{number}.tensorflow.confidence_threshold", "0.3")
        except CannotBeDone as error:
            errors.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert len(here.load().settings.instances) == 8


# ── what can go wrong ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("at", [1, 2], ids=["while the version is kept", "while the overlay is written"])
def test_on_a_disk_that_takes_nothing_everything_stays_as_it_was(
    here: Installation, monkeypatch: pytest.MonkeyPatch, number: int, at: int
) -> None:
    here.set(THRESHOLD, "0.3")
    calls = 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += stat.S_ISREG(os.fstat(descriptor).st_mode)
        if calls == at:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    words = here.refused(lambda: here.set(THRESHOLD, "0.4"))
    assert os.strerror(number) in words
    assert "nothing was changed" in words
    assert calls == at
    assert thresholds(here) == 0.3


def test_a_real_full_disk_loses_nothing(here: Installation) -> None:
    """A write beyond RLIMIT_FSIZE fails in the middle as one on a full disk does."""
    import resource
    import signal

    here.set(THRESHOLD, "0.3")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert "cannot be written: File too large" in here.refused(lambda: here.set(THRESHOLD, "0.4"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert thresholds(here) == 0.3


def test_a_place_that_cannot_be_written_says_so_before_anything_is_tried(here: Installation) -> None:
    here.state.write_text("a file where the directory should be")
    assert "is no directory" in str(why_not_writable(here.load()))
    with pytest.raises(CannotBeDone, match="cannot be written"):
        here.set(THRESHOLD, "0.3")


DAMAGES = {"cut short": b"[instances.acme.tensor", "no UTF-8": b"\xff\xfe", "a NUL": b"a = \x00", "empty table": b"[[["}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_overlay_is_replaced_by_its_newest_version_and_said(here: Installation, damage: bytes) -> None:
    here.set(THRESHOLD, "0.3")
    here.path.write_bytes(damage)
    assert thresholds(here) == 0.3
    (words,) = here.left_out()
    assert "version 1 of 2026-05-17T12:30:00+00:00 is used in its place" in words
    assert "autotag config undo --to 1" in words
    here.set("amqp.prefetch", "5")  # writes it again, with what it held, and keeps the damaged one
    assert thresholds(here) == 0.3
    assert not here.left_out()
    assert here.path.with_name("overlay.toml.damaged").read_bytes() == damage


def test_a_damaged_overlay_without_versions_is_said_and_the_service_starts(here: Installation) -> None:
    here.write("[[[")
    assert here.load().settings.defaults.language == "en"
    (words,) = here.left_out()
    assert "no earlier version is kept" in words


def test_undo_of_a_damaged_overlay_writes_the_newest_version_again(here: Installation) -> None:
    here.set(THRESHOLD, "0.3")
    here.path.write_text("[[[")
    here.editor().undo()
    assert thresholds(here) == 0.3
    assert not here.left_out()


REFUSED_BY_A_NEW_VERSION = {
    "out of its range": ("amqp.prefetch = -1", "amqp.prefetch"),
    "of another type": ("defaults.tensorflow.enabled = 'perhaps'", "defaults.tensorflow.enabled"),
    "no setting any more": ("amqp.prefech = 1", "amqp.prefech"),
    "a table that is none": ("amqp = 1", "amqp"),
    "in an instance": ("instances.acme.language = 'tlh'", "instances.acme.language"),
    "an instance's name": ("instances.'a b'.enabled = true", 'instances."a b"'),
    "a secret": ("http.token = 'a-token-in-the-wrong-place'", "http.token"),
    "its own place": ("state_dir = '/tmp'", "state_dir"),
    "a contradiction": ("http.key_file = '/key.pem'", "http.key_file"),
}


@pytest.mark.parametrize(("text", "key"), REFUSED_BY_A_NEW_VERSION.values(), ids=REFUSED_BY_A_NEW_VERSION)
def test_a_value_that_is_refused_is_left_out_with_how_to_remove_it_and_the_rest_holds(
    here: Installation, text: str, key: str
) -> None:
    here.files.toml("amqp.prefetch = 7")
    here.write(f"maximum_number_of_tags_per_asset = 9\n{text}")
    loaded = here.load()
    assert loaded.settings.maximum_number_of_tags_per_asset == 9
    assert loaded.settings.amqp.prefetch == 7
    (words,) = here.left_out()
    assert words.startswith(key)
    assert f"`autotag config unset {key}` removes it" in words
    assert "wrong-place" not in words
    here.set("defaults.language", "fr")  # does not stand in the way of another change
    assert here.left_out() == [words]
    here.unset(key)
    assert not here.left_out()
    assert here.load().settings.maximum_number_of_tags_per_asset == 9


def test_a_system_limit_in_it_that_another_source_has_come_to_contradict_is_left_out(here: Installation) -> None:
    here.set("maximum_number_of_tags_per_asset", "5")
    here.set("defaults.language", "fr")
    here.files.toml("instances.acme.maximum_number_of_tags_per_asset = 10")
    loaded = here.load()
    assert (loaded.settings.maximum_number_of_tags_per_asset, loaded.settings.defaults.language) == (0, "fr")
    (words,) = here.left_out()
    assert words.startswith("maximum_number_of_tags_per_asset = 5: 10 is above the system's")


def test_settings_that_are_wrong_without_it_stay_wrong(here: Installation) -> None:
    here.set("defaults.language", "fr")
    here.files.toml("amqp.prefetch = -1")
    with pytest.raises(UnusableSettings, match=r"amqp\.prefetch = -1"):
        here.load()


def test_an_overlay_that_others_can_write_is_not_read_unless_it_is_named(here: Installation) -> None:
    here.set("defaults.language", "fr")
    here.path.chmod(0o666)
    assert here.load().settings.defaults.language == "en"
    (words,) = here.left_out()
    assert "every user may write to it" in words
    here.environ["AUTOTAG_OVERLAY_FILE"] = str(here.path)
    assert here.load().settings.defaults.language == "fr"


def test_files_are_of_their_owner_alone_and_keep_the_mode_that_they_are_given(here: Installation) -> None:
    here.set("defaults.language", "fr")
    assert here.path.stat().st_mode & 0o777 == 0o600
    assert directory_of(here.path).stat().st_mode & 0o777 == 0o700
    here.path.chmod(0o640)
    here.set("defaults.language", "de")
    assert here.path.stat().st_mode & 0o777 == 0o640
    assert not list(here.state.rglob("*.new"))


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(here: Installation, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    here.set("defaults.language", "fr")
    real = tmp_path / "kept" / "real.toml"
    here.path.rename(real)
    here.path.symlink_to(real)
    here.set("defaults.language", "de")
    assert here.path.is_symlink()
    assert 'language = "de"' in real.read_text()


def test_a_version_whose_overlay_was_never_written_does_no_harm(here: Installation) -> None:
    here.set("defaults.language", "fr")
    before = here.path.read_bytes()
    here.set("defaults.language", "de")
    here.path.write_bytes(before)  # killed between the version and the overlay
    overlay, versions = here.load().overlay, read_versions(here.path)
    assert overlay is not None
    assert [each.number for each in versions] == [0, 1, 2]
    now, before_it = in_use(overlay, versions), to_undo(overlay, versions)
    assert now is not None
    assert before_it is not None
    assert (now.number, before_it.number) == (1, 0)
    here.set("defaults.language", "es")
    assert here.load().settings.defaults.language == "es"


def test_what_the_service_refuses_is_taken_back_unless_somebody_else_has_changed_it_since(here: Installation) -> None:
    here.set("defaults.language", "fr")
    changed = here.editor().change({key_written("defaults.language"): "de"})
    here.editor().take_back(changed, "refused")
    assert here.load().settings.defaults.language == "fr"
    again = here.editor().change({key_written("defaults.language"): "de"})
    here.set("amqp.prefetch", "5")
    here.editor().take_back(again, "refused")
    assert here.load().settings.defaults.language == "de"


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────────

KEY: SettingKey = ("instances", "acme", "google_cloud_vision", "api_key")


def test_a_secret_goes_into_its_directory_for_its_owner_alone(here: Installation) -> None:
    here.files.secrets_dir.mkdir()
    changed = write_secret(here.load, KEY, "AIza-secret")
    key = changed.settings.settings.instances["acme"].google_cloud_vision.api_key
    assert key is not None
    assert key.get_secret_value() == "AIza-secret"
    assert changed.file.stat().st_mode & 0o777 == 0o600
    assert "AIza-secret" not in repr(changed)
    write_secret(here.load, KEY, None)
    assert not list(here.files.secrets_dir.iterdir())


@pytest.mark.parametrize(("secret", "words"), [("with space", "a space, a line break"), ("ümlaut", "beyond ASCII")])
def test_a_secret_that_is_refused_is_taken_back_and_not_quoted(here: Installation, secret: str, words: str) -> None:
    here.files.secret("instances__acme__google_cloud_vision__api_key", "before")
    with pytest.raises(CannotBeDone, match=words) as refusal:
        write_secret(here.load, KEY, secret)
    assert secret not in str(refusal.value)
    assert (here.files.secrets_dir / "instances__acme__google_cloud_vision__api_key").read_text() == "before"


def test_a_secret_that_would_have_no_effect_is_taken_back(here: Installation) -> None:
    here.files.secrets_dir.mkdir()
    here.environ["AUTOTAG_INSTANCES__ACME__GOOGLE_CLOUD_VISION__API_KEY"] = "of the environment"[:2]
    with pytest.raises(CannotBeDone, match="environment AUTOTAG_INSTANCES__ACME"):
        write_secret(here.load, KEY, "another")
    assert not list(here.files.secrets_dir.iterdir())


def test_without_a_directory_or_a_possible_name_the_reason_is_said(here: Installation) -> None:
    with pytest.raises(CannotBeDone, match="AUTOTAG_SECRETS_DIR"):
        write_secret(here.load, KEY, "another")
    here.files.secrets_dir.mkdir()
    of_host: SettingKey = ("sources", "credentials", "http://dms.lan:8080", "token")
    with pytest.raises(CannotBeDone, match="no file can have the name"):
        write_secret(here.load, of_host, "another")
    assert dotted(of_host) == 'sources.credentials."http://dms.lan:8080".token'
