"""Settings files that merely lie in the current directory: read if their owner can be trusted, and reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.settings import load_settings
from worker.settings.trust import why_not_read

WIDE_OPEN = '[sources]\npath_roots = ["/"]\n'
IN_VARIABLES = "AUTOTAG_SOURCES__PATH_ROOTS=/\n"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return planted(tmp_path, "autotag.toml")


def planted(directory: Path, name: str) -> Path:
    file = directory / name
    file.write_text(WIDE_OPEN if name.endswith("toml") else IN_VARIABLES)
    file.chmod(0o644)
    return file


def roots(directory: Path, config: Path | None = None, env_file: Path | None = None) -> tuple[Path, ...]:
    return load_settings(config, environ={}, directory=directory, env_file=env_file).settings.sources.path_roots


def test_ones_own_file_is_read_and_reported(toml: Path) -> None:
    loaded = load_settings(environ={}, directory=toml.parent)
    assert loaded.settings.sources.path_roots == (Path("/"),)
    assert loaded.found_files == (toml,)
    assert loaded.ignored_files == ()


@pytest.mark.parametrize("name", ["autotag.toml", ".env"])
@pytest.mark.parametrize(
    ("mode", "why"), [(0o646, "every user may write"), (0o666, "every user may write"), (0o777, "every user may write")]
)
def test_a_file_that_others_may_write_to_is_not_read(tmp_path: Path, name: str, mode: int, why: str) -> None:
    planted(tmp_path, name).chmod(mode)
    loaded = load_settings(environ={}, directory=tmp_path)
    assert loaded.settings.sources.path_roots == ()
    assert loaded.found_files == ()
    (ignored,) = loaded.ignored_files
    assert why in str(ignored)
    assert str(tmp_path / name) in str(ignored)


@pytest.mark.parametrize("name", ["autotag.toml", ".env"])
def test_a_file_of_another_user_is_not_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = planted(tmp_path, name)
    if os.geteuid() == 0:
        os.chown(file, 1234, 1234)
    else:
        monkeypatch.setattr("worker.settings.trust.os.geteuid", lambda: 1234)
    loaded = load_settings(environ={}, directory=tmp_path)
    assert loaded.settings.sources.path_roots == ()
    assert "belongs to another user" in str(loaded.ignored_files[0])


def test_a_file_of_root_is_read_by_every_user(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.settings.trust.os.geteuid", lambda: 1234)
    monkeypatch.setattr("worker.settings.trust._ROOT", toml.stat().st_uid)
    assert why_not_read(toml) is None


def test_a_link_of_another_user_to_ones_own_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = planted(tmp_path, "mine.toml")
    link = tmp_path / "autotag.toml"
    link.symlink_to(own)
    assert why_not_read(link) is None
    if os.geteuid() == 0:
        os.lchown(link, 1234, 1234)
    else:
        real = os.lstat
        monkeypatch.setattr(
            "worker.settings.trust.os.lstat", lambda path: os.stat_result([*real(path)[:4], 1234, *real(path)[5:]])
        )
    assert "another user" in (why_not_read(link) or "")


def test_the_group_of_the_process_may_write_and_another_may_not(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.chmod(0o664)
    assert why_not_read(toml) is None
    monkeypatch.setattr("worker.settings.trust.os.getegid", lambda: 4321)
    monkeypatch.setattr("worker.settings.trust._ROOT", 999_999)
    monkeypatch.setattr("worker.settings.trust.os.geteuid", lambda: toml.stat().st_uid)
    assert "another group" in (why_not_read(toml) or "")


@pytest.mark.parametrize("name", ["autotag.toml", ".env"])
def test_a_file_that_is_named_is_read_whoever_owns_it(tmp_path: Path, name: str) -> None:
    file = planted(tmp_path, name)
    file.chmod(0o666)
    named = {"config": file} if name == "autotag.toml" else {"env_file": file}
    assert roots(tmp_path / "elsewhere", **named) == (Path("/"),)
    variable = "AUTOTAG_CONFIG" if name == "autotag.toml" else "AUTOTAG_ENV_FILE"
    loaded = load_settings(environ={variable: str(file)}, directory=tmp_path / "elsewhere")
    assert loaded.settings.sources.path_roots == (Path("/"),)
    assert loaded.found_files == ()


def test_an_untrusted_env_file_cannot_name_a_settings_file(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(WIDE_OPEN)
    env = tmp_path / ".env"
    env.write_text(f"AUTOTAG_CONFIG={other}\n")
    env.chmod(0o666)
    assert roots(tmp_path) == ()


def test_an_env_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    from worker.errors import Misconfigured

    with pytest.raises(Misconfigured, match="not there"):
        load_settings(environ={}, env_file=tmp_path / "nothing.env", directory=tmp_path)


@pytest.mark.parametrize("name", ["autotag.toml", ".env"])
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o733])
def test_a_file_where_others_can_put_another_in_its_place_is_not_read(tmp_path: Path, name: str, mode: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    planted(shared, name)
    shared.chmod(mode)
    loaded = load_settings(environ={}, directory=shared)
    assert loaded.settings.sources.path_roots == ()
    assert "every user may write to its directory" in str(loaded.ignored_files[0])
    shared.chmod(0o1777)  # as /tmp: only its owner can replace a file
    assert roots(shared) == (Path("/"),)


def test_a_link_to_where_others_can_put_another_file_is_not_read(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    own = planted(shared, "mine.toml")
    (tmp_path / "autotag.toml").symlink_to(own)
    assert roots(tmp_path) == (Path("/"),)
    shared.chmod(0o777)
    assert roots(tmp_path) == ()


def test_a_directory_of_another_user_is_not_trusted_sticky_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = planted(tmp_path, "autotag.toml")
    real = os.stat

    def of_another_user(path: Path, **options: bool) -> os.stat_result:
        found = real(path, **options)
        return os.stat_result([*found[:4], 1234, *found[5:]]) if path == tmp_path else found

    for mode in (0o755, 0o1777):
        tmp_path.chmod(mode)
        with monkeypatch.context() as patch:
            patch.setattr("worker.settings.trust.os.stat", of_another_user)
            why = why_not_read(file)
        assert "its directory belongs to another user" in (why or "")
